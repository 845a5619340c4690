"""Which identifiers went to whom, whose data it was, when, for what purpose and under which contract.

It supports an accounting of disclosures (45 CFR 164.528): (b)(2) asks for the date, who received it, what it was and the
purpose, and (b)(3) lets several disclosures to one recipient for one purpose be summed with their number and dates.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from compliance.lookup import Row
from compliance.rules import UNREAD
from proxy.reports.model import Report, Section, count, day, moment
from proxy.reports.sources import LISTED, Sources

_UNTIL = re.compile(r"baa until (\d{4}-\d{2}-\d{2})")
NOBODY = "(no subject named)"


class Sums(Struct):
    """Disclosures that are one line."""

    first: int
    last: int
    number: int = 0
    unsure: int = 0  # of which nothing tells that they arrived


def in_clear(row: Row) -> tuple[str, ...]:
    """The types that a request held, and that were not replaced in what was sent."""
    found = row.findings[: len(row.findings) - row.answered]
    replaced = {one.partition(":")[0] for one in row.redacted}
    return tuple(dict.fromkeys(kind for one in found if (kind := one.partition(":")[0]) not in replaced))


def replaced_in(row: Row) -> tuple[str, ...]:
    """The types that were replaced by pseudonyms."""
    return tuple(dict.fromkeys(kind for one in row.redacted if (kind := one.partition(":")[0]) != "literal"))


def recipient(row: Row) -> str:
    """Who received it, as far as the log knows."""
    engine = row.target.partition("/")[0]
    where = f", {row.region}" if row.region else ""
    return f"{engine} ({row.provider or 'kind not recorded'}{where})"


def contract(row: Row) -> str:
    """What was agreed, and whether the agreement was in force on that day."""
    if not row.contract:
        return "none on record"
    words = row.contract.replace("zero_retention", "zero retention")
    until = _UNTIL.search(row.contract)
    if until is None:
        return words
    force = "in force" if day(row.at) <= until[1] else "had ended"
    return f"{words[: until.end()].replace('baa', 'BAA')} ({force}){words[until.end() :]}"


def disclosures(sources: Sources) -> Report:
    """The report."""
    groups: dict[tuple[str, ...], Sums] = {}
    recipients: dict[tuple[str, str], Counter[str]] = {}
    listed: list[tuple[str, ...]] = []
    totals: Counter[str] = Counter()
    detectors: set[str] = set()
    query = msgspec.structs.replace(sources.query, kind=("attempt",))
    for row in sources.index.search(query, left=True):
        totals["left"] += 1
        told = recipients.setdefault((recipient(row), contract(row)), Counter())
        told["attempts"] += 1
        if row.sent == "no":
            totals["unsent"] += 1
            told["unsent"] += 1
            continue
        kinds, hidden = in_clear(row), replaced_in(row)
        told["replaced"] += bool(hidden)
        if not kinds:
            totals["replaced" if hidden else "nothing"] += 1
            totals["of a subject"] += bool(row.subject)
            continue
        totals["disclosures"] += 1
        told["disclosures"] += 1
        _add(groups, row, kinds, hidden)
        detectors.add(row.rule_version)
        if len(listed) < LISTED:
            listed.append(_line(row, kinds))
    subjects = {group[0] for group in groups} - {NOBODY}
    return sources.report(
        "disclosures",
        "Disclosures by subject",
        "Requests in which identifiers were found and that left this house with them: to whom they went, when, for what purpose,"
        " and under which agreement. It supports an accounting of disclosures under 45 CFR 164.528.",
        subject=True,
        figures=(
            ("disclosures", f"{totals['disclosures']:,}"),
            ("subjects named", f"{len(subjects):,}"),
            ("recipients", f"{len({key[0] for key, told in recipients.items() if told['disclosures']}):,}"),
            ("left with identifiers replaced", f"{totals['replaced']:,}"),
            ("attempts that left, all in all", f"{totals['left']:,}"),
        ),
        sections=_sections(groups, recipients, listed, totals),
        limits=_limits(totals),
    )


def _add(groups: dict[tuple[str, ...], Sums], row: Row, kinds: Sequence[str], hidden: Sequence[str]) -> None:
    key = (
        row.subject or NOBODY,
        recipient(row),
        contract(row),
        row.purpose or "not stated",
        _what(row, kinds),
        ", ".join(sorted(hidden)) or "-",
    )
    sums = groups.get(key)
    if sums is None:
        sums = groups[key] = Sums(row.at, row.at)
    sums.last = row.at
    sums.number += 1
    sums.unsure += row.sent != "yes"


def _what(row: Row, kinds: Iterable[str]) -> str:
    """PHI where there was health context; what could not be read is said as such."""
    read = sorted(kind for kind in kinds if kind not in UNREAD)
    words = [f"{'PHI' if row.health else 'PII'}: {', '.join(read)}"] if read else []
    if any(kind in UNREAD for kind in kinds):
        words.append("parts that could not be read")
    return "; ".join(words)


def _line(row: Row, kinds: Sequence[str]) -> tuple[str, ...]:
    return (
        moment(row.at),
        f"{row.request}/{row.attempt}",
        row.subject or "-",
        row.target,
        _what(row, kinds),
        row.project or row.key or "-",
        f"{row.rule} ({row.rule_version})" if row.rule_version else row.rule,
        row.policy,
        f"{row.ending}{'' if row.sent == 'yes' else ', arrival not known'}",
    )


def _sections(
    groups: dict[tuple[str, ...], Sums],
    recipients: dict[tuple[str, str], Counter[str]],
    listed: Sequence[tuple[str, ...]],
    totals: Counter[str],
) -> list[Section]:
    sums = sorted(groups.items(), key=lambda group: (group[0][0] == NOBODY, group[0], group[1].first))
    more = totals["disclosures"] - len(listed)
    return [
        Section(
            "By subject and recipient",
            ("subject", "recipient", "contract", "purpose", "what went", "replaced", "first", "last", "number"),
            tuple((*key, day(one.first), day(one.last), f"{one.number:,}") for key, one in sums),
            frozenset({8}),
            "One line for all disclosures of the same kind to one recipient for one purpose (164.528(b)(3)). A subject is the"
            " pseudonym of what the application wrote in x-spillway-subject.",
            "Nothing with an identifier in it left in this period.",
        ),
        Section(
            "Each of them",
            (
                "time (UTC)",
                "request",
                "subject",
                "target",
                "what went",
                "application",
                "allowed by rule",
                "policy",
                "ended",
            ),
            tuple(listed),
            note=f"The first {LISTED}; {count(more, 'further one', 'further ones')}: `spillway audit search --json`."
            if more
            else "",
        ),
        Section(
            "Recipients",
            ("recipient", "contract", "attempts", "not sent", "with identifiers", "with some replaced"),
            tuple(
                (*key, *(f"{told[name]:,}" for name in ("attempts", "unsent", "disclosures", "replaced")))
                for key, told in sorted(recipients.items())
            ),
            frozenset({2, 3, 4, 5}),
            "Everybody outside who was sent anything at all.",
            "Nobody.",
        ),
    ]


def _limits(totals: Counter[str]) -> list[str]:
    unsure = "An attempt counts as sent once the connection to the recipient was open, whether or not it answered."
    return [
        "What was found is what the detectors knew at the time: their version stands in every decision's record. What they did"
        " not find is not here.",
        f"Attempts that left without an identifier in clear are not listed: {totals['nothing']:,} in which none was found, and"
        f" {totals['replaced']:,} in which all were replaced; {totals['of a subject']:,} of them named a subject.",
        "A subject is known only where the application named one. Lines without a subject have to be attributed by their"
        " requests.",
        unsure,
        "Whether a disclosure must be accounted for is not decided here: 164.528(a)(1) leaves out, among others, those for"
        " treatment, payment and health care operations. What recipients did with it, and disclosures by other ways than"
        " through this gateway, are not known here.",
        "Purposes and contracts are what the configuration said at the time; a recipient's postal address is not in the log.",
    ]
