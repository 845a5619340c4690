"""Who looked into the logs, and what was changed: policies, keys, starts and stops."""

from __future__ import annotations

from typing import Any

import msgspec

from compliance.lookup import Row
from proxy.fingerprints import kept_text
from proxy.reports.model import Report, Section, count, moment, period
from proxy.reports.rules import rules_of
from proxy.reports.sources import LISTED, Sources

_TRAFFIC = ("attempt", "refused")
_GLASS = "break_glass"
_ADMIN = ("hold", "erased", "operator", "retention", "captures_expired", "attested")


def access(sources: Sources) -> Report:
    """Who looked."""
    looks = list(sources.index.events(("log_access",), sources.query))
    glass = list(sources.index.events((_GLASS,), sources.query))
    sums: dict[tuple[str, str], list[int]] = {}
    for row, record in looks:
        one = sums.setdefault((row.actor, record["command"]), [row.at, row.at, 0, 0])
        one[1] = row.at
        one[2] += 1
        one[3] += record["found"]
    return sources.report(
        "access",
        "Who looked",
        "Every look into the audit log through Spillway: by whom, with which command, how much of it; and every step towards"
        " reading a captured prompt or answer.",
        figures=(
            ("looks", f"{len(looks):,}"),
            ("accounts", f"{len({row.actor for row, _ in looks}):,}"),
            ("captures read", f"{sum(record.get('step') == 'read' for _, record in glass):,}"),
        ),
        sections=(
            Section(
                "By account",
                ("account", "command", "first", "last", "looks", "records shown"),
                tuple(
                    (*key, moment(one[0]), moment(one[1]), f"{one[2]:,}", f"{one[3]:,}")
                    for key, one in sorted(sums.items())
                ),
                frozenset({4, 5}),
                empty="Nobody looked.",
            ),
            Section(
                "Each look",
                ("time (UTC)", "account", "command", "chosen by", "period asked for", "request", "records", "result"),
                tuple(_look(row, record) for row, record in looks[-LISTED:]),
                frozenset({6}),
                "By which fields records were chosen is recorded by their names, not their values."
                + (f" The newest {LISTED} of {len(looks):,}." if len(looks) > LISTED else ""),
            ),
            Section(
                "Captures",
                ("time (UTC)", "account", "operator", "step", "request", "reason", "until", "denied because"),
                tuple(_step(row, record) for row, record in glass),
                note="Break-glass: who asked to read a capture, who approved, who read it.",
            ),
        ),
        limits=(
            "It knows looks through the `spillway` command and its doors. Whoever may read the files themselves, on this host, in"
            " a backup or in a copy, can do so without a record; `--unrecorded` is for such copies.",
            "An account is what the operating system says: who had its password is not known here.",
            "Outputs of earlier looks (packs, tables, reports) are not followed.",
        ),
    )


def _look(row: Row, record: dict[str, Any]) -> tuple[str, ...]:
    asked = period(record["begin"], record["end"]) if record["end"] else "-"
    return (
        moment(row.at),
        row.actor,
        record["command"],
        ", ".join(record["filters"]) or "-",
        asked.removesuffix(" (UTC)"),
        record["request"] or "-",
        f"{record['found']:,}",
        record["result"] or "-",
    )


def _step(row: Row, record: dict[str, Any]) -> tuple[str, ...]:
    told = {name: str(record.get(name) or "-") for name in ("by", "step", "request", "reason", "why")}
    until = moment(record["until"]) if record.get("until") else "-"
    return moment(row.at), row.actor, told["by"], told["step"], told["request"], told["reason"], until, told["why"]


def policy(sources: Sources) -> Report:
    """What was in force, and what was changed."""
    changed = list(sources.index.events(("policy_changed",), sources.query))
    keys = list(sources.index.events(("key_changed",), sources.query))
    starts = list(sources.index.events(("started", "stopped"), sources.query))
    admin = list(sources.index.events(_ADMIN, sources.query))
    scorers = list(sources.index.events(("scorer",), sources.query))
    traffic = msgspec.structs.replace(sources.query, kind=_TRAFFIC)
    force = sources.index.sums(("min(at)", "max(at)", "count(*)"), ("policy",), traffic)
    crashes = sum(
        record["lost_window_us"] > 0 or record["interrupted"] > 0 for row, record in starts if row.kind == "started"
    )
    return sources.report(
        "policy",
        "Policy changes",
        "Which policies decided, what was changed in them and in the configuration, which keys were made and revoked, and when"
        " workers started and stopped.",
        figures=(
            ("changes", f"{len(changed):,}"),
            ("policies in force", f"{len(force):,}"),
            ("keys made", f"{sum(record['change'] == 'created' for _, record in keys):,}"),
            ("keys revoked", f"{sum(record['change'] == 'revoked' for _, record in keys):,}"),
            ("starts after a crash", f"{crashes:,}"),
        ),
        sections=(
            Section(
                "In force",
                ("policy", "first", "last", "requests decided", "text kept"),
                tuple(
                    (
                        name or "-",
                        moment(first),
                        moment(last),
                        f"{number:,}",
                        "yes" if kept_text(sources.audit, name) else "no",
                    )
                    for name, first, last, number in sorted(force, key=lambda one: one[1])
                ),
                frozenset({3}),
                "A policy is named by the hash of its text: all that decides where a prompt may and should go.",
                "Nothing was decided in this period.",
            ),
            Section(
                "Changes",
                ("time (UTC)", "account", "policy before", "policy", "configuration", "changed", "rules"),
                tuple(_change(sources, row, record) for row, record in changed),
                empty="Nothing was changed.",
            ),
            Section(
                "Keys",
                ("time (UTC)", "account", "change", "key", "name", "application", "tenant", "may"),
                tuple(_key(row, record) for row, record in keys),
            ),
            *_scorers(scorers),
            Section(
                "Holds, erasures, retention, attestations",
                ("time (UTC)", "account", "what", "done", "said"),
                tuple(_admin(row, record) for row, record in admin),
            ),
            Section(
                "Starts and stops",
                (
                    "time (UTC)",
                    "account",
                    "log",
                    "what",
                    "policy",
                    "lost at most",
                    "interrupted",
                    "unsigned before",
                    "set aside",
                ),
                tuple(_start(row, record) for row, record in starts[-LISTED:]),
                frozenset({5, 6, 7, 8}),
                "After a crash, local-only requests of the time named may be missing; what left is all there, and attempts that"
                " were under way are recorded as interrupted. A killed writer leaves a second of records that no checkpoint covers: the"
                " log's key vouched for them, and they were signed from then on. Records that it did not vouch for were set aside:"
                " a crash in the middle of a write leaves some; any after a clean stop were added by somebody else."
                + (f" The newest {LISTED} of {len(starts):,}." if len(starts) > LISTED else ""),
            ),
        ),
        limits=(
            "Who edited a configuration file is not known here: the account is the one that Spillway was started under, or that"
            " gave the command.",
            "Paths and names of rules are told, not their contents: the text of a policy is kept under its hash beside the logs,"
            " and is part of an evidence pack.",
            "Keys that stand in a configuration change with it, and show as a change of `keys`.",
        ),
    )


def _change(sources: Sources, row: Row, record: dict[str, Any]) -> tuple[str, ...]:
    return (
        moment(row.at),
        row.actor,
        record["policy_before"] or "none",
        record["policy"],
        f"{record['config_before'] or 'none'} → {record['config']}",
        ", ".join(record["changed"])
        or ("the first one" if not record["policy_before"] else "the text before was not kept"),
        "; ".join(
            rules_changed(kept_text(sources.audit, record["policy_before"]), kept_text(sources.audit, record["policy"]))
        )
        or "-",
    )


def rules_changed(before: bytes | None, after: bytes | None) -> list[str]:
    """Rules that were added, removed or changed, by name, with their actions."""
    if before is None or after is None:
        return []
    old, new = rules_of(before), rules_of(after)
    out = [f"+ {name}: {new[name]['action']}" for name in new if name not in old]
    out += [f"- {name}: {old[name]['action']}" for name in old if name not in new]
    for name in new:
        if name in old and old[name] != new[name]:
            was, now = old[name]["action"], new[name]["action"]
            out.append(f"~ {name}: {was} → {now}" if was != now else f"~ {name}: its conditions")
    if not out and list(old) != list(new):
        out.append("their order")
    return out


def _key(row: Row, record: dict[str, Any]) -> tuple[str, ...]:
    may = [
        f"models {', '.join(record['models'])}" if record.get("models") else "",
        f"only {', '.join(record['boundaries'])}" if record.get("boundaries") else "",
        f"until {moment(record['expires'] * 1_000_000)}" if record.get("expires") else "",
    ]
    return (
        moment(row.at),
        row.actor,
        record["change"],
        record["key"],
        record.get("name") or "-",
        row.project or "-",
        row.tenant or "-",
        "; ".join(filter(None, may)) or "everything",
    )


def _scorers(found: list[tuple[Row, dict[str, Any]]]) -> tuple[Section, ...]:
    """Where one was promoted."""
    if not found:
        return ()
    return (
        Section(
            "Scorers that were promoted",
            (
                "time (UTC)",
                "account",
                "of",
                "experiment",
                "measure",
                "labels",
                "APGR (95 %)",
                "strong calls",
                "before",
                "file",
            ),
            tuple([_scorer(row, record) for row, record in found]),
            frozenset({5}),
            "They were learnt from this instance's own records, and passed the gate: the lower end of the interval beats chance,"
            " which is .5. They decide from the next start of a worker on, which shows as another policy.",
        ),
    )


def _scorer(row: Row, record: dict[str, Any]) -> tuple[str, ...]:
    apgr, low, high = (f"{record[name] / 1_000_000:.3f}" for name in ("apgr", "low", "high"))
    return (
        moment(row.at),
        row.actor,
        "answers" if record["option"] == "answers" else "prompts",
        record["experiment"],
        record["metric"] or "answers compared",
        f"{record['labels']:,}",
        f"{apgr} ({low} to {high})",
        f"{record['strong_share'] / 10_000:g} %",
        record["hash_before"] or "none",
        record["hash"],
    )


def _admin(row: Row, record: dict[str, Any]) -> tuple[str, ...]:
    said = [str(record[name]) for name in ("scope", "name", "reviewer", "statement", "reason") if record.get(name)]
    return moment(row.at), row.actor or "-", row.kind, row.action or "-", ": ".join(said) or "-"


def _start(row: Row, record: dict[str, Any]) -> tuple[str, ...]:
    if row.kind == "stopped":
        return moment(row.at), "-", row.origin, "stopped", "-", "-", "-", "-", "-"
    window, broken = record["lost_window_us"], record["interrupted"]
    return (
        moment(row.at),
        row.actor or "-",
        row.origin,
        "started after a crash" if window or broken else "started",
        row.policy,
        f"{window / 1000:g} ms" if window else "-",
        count(broken, "attempt") if broken else "-",
        _unsigned(record),
        f"{record['unauthenticated']:,}" if record.get("unauthenticated") else "-",
    )


def _unsigned(record: dict[str, Any]) -> str:
    """Records that a start took over."""
    number, unvouched = record.get("unsigned", 0), record.get("unvouched", 0)
    if not number:
        return "-"
    return f"{number:,} ({unvouched:,} unvouched)" if unvouched else f"{number:,}"
