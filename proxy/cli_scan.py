"""`spillway scan` and `spillway redact`: what is found in a text, whether it might leave, and what would be left of it.

Input is plain text, or JSONL rows {"id", "text"}.  Each text is looked at as the prompt of a request of its own.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NamedTuple

import typer

from proxy.terminal import ConfigOption, JsonOption, coloured, fail, located, open_input, report, styled

if TYPE_CHECKING:
    from compliance.model import Inspection, Verdict
    from proxy.config import Settings

app = typer.Typer()
FileArgument = Annotated[Path | None, typer.Argument(help="Text or JSONL. Default: standard input.")]
TierOption = Annotated[
    str | None,
    typer.Option(help="fast, or full: with the learned model for names and places. Default: as configured, else full."),
]
FormatOption = Annotated[
    str, typer.Option("--format", help="text, jsonl, or auto: JSONL where the first line is an object with a text.")
]
FORMATS = ("auto", "text", "jsonl")
TIERS = ("fast", "full")
_DAY = 86_400


@app.command(
    epilog="**Examples**\n\n`echo 'Jane Roe, SSN 123-45-6789' | spillway scan`\n\n"
    "`spillway scan --tier fast notes.jsonl > findings.jsonl`\n\n"
    "`spillway scan draft.txt --json || echo 'may not leave'`"
)
def scan(
    file: FileArgument = None,
    tier: TierOption = None,
    form: FormatOption = "auto",
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="For JSONL: end with 1 where any text might not leave as it is.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find identifiers in text, and say what the rules make of it for a cloud without any contract.

    Takes text, or JSONL of {"id", "text"}. Prints JSONL of {"id", "findings", "health_context", "action"}; offsets are
    code points. For one text on a terminal, the text itself with what was found in colour.

    Exit codes for a text: 0 where it may leave as it is (`allow`), 1 where it may not. For JSONL: 0 where every line was
    scanned, whatever was found, so that a batch is no failure; `--exit-code` makes it 1 where any text is not `allow`.
    2 where a line is not of this form (it is named, the others are scanned).
    """
    look = Look(_settings(config, tier))
    rows = Rows(file, form)
    pretty = not rows.is_jsonl and not as_json and sys.stdout.isatty()
    allowed = True
    for row in rows:
        seen, verdict = look.at(row.text)
        allowed = allowed and verdict.action == "allow"
        if pretty:
            print(view(row.text, seen, verdict, colour=coloured(sys.stdout)))
        else:
            found = [
                {"type": f.type, "start": f.start, "end": f.end, "confidence": f.confidence} for f in seen.findings
            ]
            print(
                json.dumps({"id": row.id, "findings": found, "health_context": seen.health, "action": verdict.action})
            )
    if rows.bad:
        raise typer.Exit(2)
    if not allowed and (exit_code or not rows.is_jsonl):
        raise typer.Exit(1)


@app.command(
    epilog="**Examples**\n\n`echo 'Jane Roe, SSN 123-45-6789' | spillway redact --text`\n\n"
    "`spillway redact notes.jsonl > redacted.jsonl`"
)
def redact(
    file: FileArgument = None,
    tier: TierOption = None,
    form: FormatOption = "auto",
    as_text: Annotated[bool, typer.Option("--text", help="Of a text, print the text alone and no JSON.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace in text whatever may not leave as it is, by pseudonyms such as [NAME_k7f2].

    Takes the same as `scan`. Prints JSONL of {"id", "text"}; of one text on a terminal, the text. A value has one
    pseudonym in the whole output; the key is thrown away, so there is no way back. In `serve`, a rule with the action
    `redact` does the same to requests, and turns it back in their answers.

    Exit codes: 0 where every text was redacted; 1 where one could not be (its `text` is null); 2 where a line is not of
    this form.
    """
    look = Look(_settings(config, tier))
    rows = Rows(file, form)
    plain = not rows.is_jsonl and not as_json and (as_text or sys.stdout.isatty())
    key = secrets.token_bytes(32)
    failed = False
    for row in rows:
        try:
            text: str | None = look.redacted(row.text, key)
        except CannotRedact as reason:
            text, failed = None, True
            report(f"{styled(f'{rows.place}:', dim=True)} cannot be redacted: {reason}")
        if not plain:
            print(json.dumps({"id": row.id, "text": text}))
        elif text is not None:
            print(visible(text) if sys.stdout.isatty() else text, end="" if text.endswith("\n") else "\n")
    if rows.bad or failed:
        raise typer.Exit(2 if rows.bad else 1)


class CannotRedact(Exception):
    """A text in which something would be left; the reason holds none of it."""


def _settings(config: Path | None, tier: str | None) -> Settings:
    """The configuration, with the tier that the command line asks for."""
    if tier is not None and tier not in TIERS:
        fail(f"there is no tier {tier!r}; there are {' and '.join(TIERS)}", 2)
    settings = located(config, None)
    if tier is None:
        return settings
    return settings.model_copy(update={"compliance": settings.compliance.model_copy(update={"tier": tier})})


class Look:
    """The scanner and the rules of a configuration, for texts alone: no tenant, no key, a cloud without any contract."""

    def __init__(self, settings: Settings) -> None:
        from proxy.app import build_ruleset, build_scanner

        self._scanner = build_scanner(settings)
        self._ruleset = build_ruleset(settings)
        self._today = int(time.time()) // _DAY

    def at(self, text: str) -> tuple[Inspection, Verdict]:
        """What is found in a text, and the verdict over it."""
        from compliance.rules import CLOUD, Facts

        seen = self._scanner.inspect(_request(text))
        ruling = self._ruleset.judge(seen.findings, Facts(health=seen.health, today=self._today))
        return seen, ruling.on(CLOUD)

    def redacted(self, text: str, key: bytes) -> str:
        """The text without what may not leave; `key` makes its pseudonyms.  Raises `CannotRedact`."""
        import msgspec

        from compliance.model import Action, Finding
        from compliance.pseudonyms import Scope
        from compliance.redaction import Unredactable, redact_body
        from compliance.rules import CLOUD, UNREAD, Facts

        seen, verdict = self.at(text)
        if verdict.action == "allow":  # it may leave as it is, as `serve` would let it
            return text
        facts = Facts(health=seen.health, today=self._today)

        @cache
        def decides(kind: str) -> Action:
            action = self._ruleset.judge((Finding(kind, "", 0, 0),), facts).on(CLOUD).action
            return action if action == "allow" or kind in UNREAD else "redact"

        try:
            raw = msgspec.json.encode(_request(text))
            made = redact_body(raw, self._scanner, decides, Scope("", key), health=seen.health)
        except UnicodeEncodeError:
            raise CannotRedact("it holds half a character") from None
        except Unredactable as reason:
            raise CannotRedact(str(reason)) from None
        return str(msgspec.json.decode(made.raw)["messages"][0]["content"])


def _request(text: str) -> dict[str, Any]:
    """The plainest request with this text."""
    return {"messages": [{"role": "user", "content": text}]}


# --- input ---------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One text.  `id` is any JSON value: it is given back as it came."""

    id: Any
    text: str


class Rows:
    """The texts of a file or of standard input, one by one.  A line that is no row is reported and counted in `bad`."""

    def __init__(self, file: Path | None, form: str) -> None:
        if form not in FORMATS:
            fail(f"there is no format {form!r}; there are {', '.join(FORMATS)}", 2)
        self.bad = 0
        self.place = str(file) if file is not None else "standard input"  # of what is read now, for messages
        self._name = str(file) if file is not None else "standard input"
        self._stream = open_input(file, "text")
        self._first = b"" if form == "text" else _first_line(self._stream)
        self.is_jsonl = form == "jsonl" or (form == "auto" and _is_row(self._first))

    def __iter__(self) -> Iterator[Row]:
        with self._stream:
            if self.is_jsonl:
                yield from self._lines()
                return
            try:
                yield Row(None, (self._first + self._stream.read()).decode())
            except UnicodeDecodeError:
                fail(f"{self._name} is not UTF-8 text", 2)

    def _lines(self) -> Iterator[Row]:
        number = self._first.count(b"\n") or 1
        line = self._first
        while line:
            if line.strip():
                self.place = f"{self._name}:{number}"
                row = _row(line)
                if isinstance(row, str):
                    self.bad += 1
                    report(f"{styled(f'{self.place}:', dim=True)} {row}")
                else:
                    yield row
            line = self._stream.readline()
            number += 1


def _first_line(stream: BinaryIO) -> bytes:
    """Up to the end of the first line that is not blank."""
    read = b""
    while line := stream.readline():
        read += line
        if line.strip():
            break
    return read


def _is_row(first: bytes) -> bool:
    """Is it meant to be JSONL?  A broken row is, too, so that it is reported and not taken for a text."""
    line = first.strip()
    if not line.startswith(b"{") or b'"text"' not in line:
        return False
    try:
        row = json.loads(line)
    except ValueError:
        return True
    return "text" in row


def _row(line: bytes) -> Row | str:
    """A row, or what is wrong with the line; what stands in it is not repeated."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        return "is not UTF-8 text"
    except ValueError as error:
        return f"is not JSON: {getattr(error, 'msg', 'not readable')}"
    except RecursionError:
        return "is nested too deeply"
    if not isinstance(row, dict):
        return 'is not an object of {"id", "text"}'
    if not isinstance(row.get("text"), str):
        return "has no text" if "text" not in row else "has a text that is no string"
    return Row(row.get("id"), row["text"])


# --- for people ----------------------------------------------------------------------------------------------

_COLOURS = {"always": "red", "context": "yellow"}
_BARE = {"\n", "\t"}


def view(text: str, seen: Inspection, verdict: Verdict, *, colour: bool) -> str:
    """The text with what was found marked, a legend, and the verdict.  Control characters are shown, not obeyed."""
    from compliance.identifiers import FAMILY, IDENTIFIERS

    out = []
    reached = 0
    for finding in sorted(seen.findings, key=lambda finding: (finding.start, -finding.end)):
        if finding.start < reached or finding.end == 0:
            continue  # inside what is marked already, or somewhere in the text
        value = visible(text[finding.start : finding.end])
        tint = _COLOURS[FAMILY.get(finding.type, "always")]
        out.append(visible(text[reached : finding.start]))
        out.append(typer.style(value, fg=tint, bold=True) if colour else f"[{finding.type}: {value}]")
        reached = finding.end
    out.append(visible(text[reached:]).rstrip("\n"))
    lines = ["".join(out), ""]
    described = {kind.name: kind.description for kind in IDENTIFIERS}
    described |= {"opaque": "could not be looked into", "scan_failed": "was not scanned"}
    for kind in dict.fromkeys(finding.type for finding in seen.findings):
        count = sum(finding.type == kind for finding in seen.findings)
        family = FAMILY.get(kind, "always")
        name = typer.style(f"{kind:12}", fg=_COLOURS[family], bold=True) if colour else f"{kind:12}"
        stays = "whatever surrounds it" if family == "always" else "under health context"
        lines.append(f"  {name} {count:3}  {described.get(kind, 'of your own')} ({stays})")
    if not seen.findings:
        lines.append("  nothing was found")
    lines.append(f"  health context: {'yes' if seen.health else 'no'}")
    lines.append(f"  action: {verdict.action} ({verdict.rule})")
    return "\n".join(lines)


def visible(text: str) -> str:
    """Without what would steer a terminal or turn its writing round: such characters as their numbers."""
    return "".join(c if c in _BARE or c.isprintable() else f"<{ord(c):04x}>" for c in text)
