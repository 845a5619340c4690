"""A report as text for a terminal, as Markdown, or as one page of HTML that prints and needs nothing else."""

from __future__ import annotations

import re
import textwrap
from functools import cache

import jinja2
from markupsafe import Markup, escape

from proxy.meaning import table
from proxy.reports.model import Report, Section

WIDTH = 100
UNRECORDED = "No record of this look was made: the log could not be written, and --unrecorded was given."
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")


def text(report: Report) -> str:
    """For a terminal."""
    out = [report.title, "=" * len(report.title), *textwrap.wrap(report.lead, WIDTH), ""]
    if not report.recorded:
        out += [UNRECORDED, ""]
    out += _pairs([*report.scope, ("made", f"{report.made} by {report.by}")])
    out += ["", *_pairs(report.figures)]
    for section in report.sections:
        out += ["", section.title, "-" * len(section.title)]
        out += textwrap.wrap(section.note, WIDTH)
        out.append(_table(section) if section.rows else section.empty)
    out += ["", "What this report cannot say", "---------------------------"]
    for limit in report.limits:
        out += textwrap.wrap(limit, WIDTH, initial_indent="- ", subsequent_indent="  ")
    out += ["", "What it was made from", "---------------------"]
    for log in report.logs:
        out.append(
            f"{log.origin}: {log.records:,} records, {log.signed:,} of them signed by key sha256:{log.key[:16]}..."
        )
        out.append(f"  root {log.root}")
    return "\n".join(_printable(line) for line in out)


def _pairs(rows: object) -> list[str]:
    pairs = list(rows)  # type: ignore[call-overload]
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in pairs]


def _table(section: Section) -> str:
    """Columns that line up, numbers to the right."""
    body = [tuple(map(_printable, row)) for row in section.rows]
    widths = [max(len(row[i]) for row in (section.head, *body)) for i in section.numbers]
    right = dict(zip(section.numbers, widths, strict=True))

    def padded(row: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(cell.rjust(right[i]) if i in right else cell for i, cell in enumerate(row))

    return table(padded(section.head), [padded(row) for row in body], numbers=False)


def _printable(line: str) -> str:
    """A name that a configuration gave may hold what would move the cursor."""
    return "\n".join(
        part if part.isprintable() else "".join(c if c.isprintable() else "?" for c in part)
        for part in line.split("\n")
    )


def markdown(report: Report) -> str:
    """For a wiki or a ticket."""
    out = [f"# {_escaped(report.title)}", "", _escaped(report.lead), ""]
    if not report.recorded:
        out += [f"> **{UNRECORDED}**", ""]
    facts = [*report.scope, ("made", f"{report.made} by {report.by}"), *report.figures]
    out += [f"- **{_escaped(name)}**: {_escaped(value)}" for name, value in facts]
    for section in report.sections:
        out += ["", f"## {_escaped(section.title)}", ""]
        out += [_prose(section.note), ""] if section.note else []
        if not section.rows:
            out.append(_escaped(section.empty))
            continue
        out.append("| " + " | ".join(map(_escaped, section.head)) + " |")
        out.append("|" + "|".join("---:" if i in section.numbers else "---" for i in range(len(section.head))) + "|")
        out += ["| " + " | ".join(map(_escaped, row)) + " |" for row in section.rows]
    out += ["", "## What this report cannot say", "", *(f"- {_prose(limit)}" for limit in report.limits)]
    out += ["", "## What it was made from", "", "| log | records | signed | root | key |", "|---|---:|---:|---|---|"]
    out += [
        f"| {_escaped(log.origin)} | {log.records:,} | {log.signed:,} | `{log.root}` | `sha256:{log.key}` |"
        for log in report.logs
    ]
    return "\n".join(out) + "\n"


def _escaped(words: str) -> str:
    return _MARKDOWN.sub(r"\\\1", _printable(words.replace("\n", " ")))


def _prose(words: str) -> str:
    """Sentences of Spillway's own, in which commands stand between backquotes."""
    parts = words.split("`")
    return "".join(f"`{part}`" if number % 2 else _escaped(part) for number, part in enumerate(parts))


def _coded(words: str) -> Markup:
    """The same for a page."""
    parts = [escape(part) for part in words.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def html(report: Report) -> str:
    """One page: no script, no other file, everything in it escaped."""
    return _page().render(report=report, unrecorded=UNRECORDED)


@cache
def _page() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("proxy.reports"),
        autoescape=True,
        finalize=lambda value: _printable(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = _coded
    return environment.get_template("report.html.j2")


FORMS = {"text": text, "markdown": markdown, "html": html}
