"""What was refused and by which rule, and whether canaries came home."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from compliance.lookup import Row
from proxy.reports.model import Report, Section, moment
from proxy.reports.sources import LISTED, Sources


def canary(sources: Sources) -> Report:
    """Results of canaries."""
    runs = list(sources.index.events(("canary",), sources.query))
    broken = sum(record["broken"] for _, record in runs)
    newest = runs[-1][1] if runs else None
    return sources.report(
        "canary",
        "Canary results",
        "Synthetic identifiers that were sent through every surface, kind of field and rule, to see whether what must not leave"
        " stays: `spillway canary`.",
        figures=(
            ("runs", f"{len(runs):,}"),
            ("through the running proxy", f"{sum(record['live'] for _, record in runs):,}"),
            ("canaries", f"{sum(record['canaries'] for _, record in runs):,}"),
            ("promises broken", f"{broken:,}"),
            ("last run", "none" if newest is None else "held" if not newest["broken"] else "broken"),
        ),
        sections=(
            Section(
                "Runs",
                ("time (UTC)", "account", "how", "policy", "canaries", "broken", "rules never reached", "seed"),
                tuple(_run(row, record) for row, record in runs[-LISTED:]),
                frozenset({4, 5, 7}),
                empty="No canary was tried in this period.",
            ),
            Section(
                "Broken promises",
                ("time (UTC)", "policy", "where and what"),
                tuple(
                    (moment(row.at), record["policy"], problem)
                    for row, record in runs
                    for problem in record["problems"]
                )[-LISTED:],
                note="The first of each run." if runs else "",
                empty="Every promise held." if runs else "None was tried.",
            ),
        ),
        limits=(
            "A canary holds kinds of identifiers that Spillway can make up, in fields and forms that it knows: that they were"
            " caught does not show that every real one is.",
            "Without --live a run asks the rules of a configuration, not the proxy that runs; both name the policy they were"
            " tried on.",
            "A period without runs says nothing of that period.",
        ),
    )


def _run(row: Row, record: dict[str, Any]) -> tuple[str, ...]:
    return (
        moment(row.at),
        row.actor,
        "live" if record["live"] else "dry",
        record["policy"],
        f"{record['canaries']:,}",
        f"{record['broken']:,}" if record["broken"] else "-",
        ", ".join(record["unreached"]) or "-",
        str(record["seed"]),
    )


class _Group:
    """Refusals that are one line."""

    def __init__(self, at: int) -> None:
        self.first = self.last = at
        self.number = 0
        self.found: Counter[str] = Counter()


def refusals(sources: Sources) -> Report:
    """What was refused."""
    by_rule: dict[tuple[str, str, str], _Group] = {}
    by_caller: dict[tuple[str, str, str, str], Counter[str]] = {}
    total = 0
    for row in sources.index.search(msgspec.structs.replace(sources.query, kind=("refused",))):
        total += 1
        # Where the rules had no say (no key, no such model), a rule is not what refused it.
        key = (row.error, row.rule or "-", row.rule_version or "-")
        group = by_rule.get(key)
        if group is None:
            group = by_rule[key] = _Group(row.at)
        group.last = row.at
        group.number += 1
        group.found.update({one.partition(":")[0] for one in row.findings})
        caller = (row.organisation or "-", row.tenant or "-", row.project or "-", row.key or "-")
        by_caller.setdefault(caller, Counter())[row.error] += 1
    by_rules = sum(
        group.number
        for (code, _, _), group in by_rule.items()
        if code in ("policy_blocked", "no_eligible_target", "not_scannable")
    )
    return sources.report(
        "refusals",
        "Refused requests",
        "Requests that Spillway refused instead of sending them anywhere: why, by which rule, and whose they were.",
        figures=(
            ("refused", f"{total:,}"),
            ("for what was in them", f"{by_rules:,}"),
            ("rules behind it", f"{len({rule for _, rule, _ in by_rule} - {'-'}):,}"),
            ("callers", f"{len(by_caller):,}"),
        ),
        sections=(
            Section(
                "By reason and rule",
                ("code", "rule", "rule version", "found in them", "first", "last", "requests"),
                tuple(
                    (
                        *key,
                        ", ".join(f"{kind} in {n:,}" for kind, n in group.found.most_common(6)) or "-",
                        moment(group.first),
                        moment(group.last),
                        f"{group.number:,}",
                    )
                    for key, group in sorted(by_rule.items(), key=lambda one: -one[1].number)
                ),
                frozenset({6}),
                "The rule is the one whose action was in force over the request; codes are those of the error that the client"
                " got.",
                "Nothing was refused.",
            ),
            Section(
                "By caller",
                ("organisation", "tenant", "application", "key", "codes", "requests"),
                tuple(
                    (*key, ", ".join(f"{code} {n:,}" for code, n in codes.most_common(6)), f"{codes.total():,}")
                    for key, codes in sorted(by_caller.items(), key=lambda one: -one[1].total())[:LISTED]
                ),
                frozenset({5}),
                empty="Nobody.",
            ),
        ),
        limits=(
            "Requests that were kept local or redacted were not refused, and are not here: `spillway audit search --action"
            " keep_local` finds them.",
            "A request that an engine refused is an attempt that failed, not one that Spillway refused.",
            "Connections that broke off before a whole request had come are not records.",
        ),
    )
