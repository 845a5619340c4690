"""What a replay comes to: shares, cost, refusals before and after, and above all what would newly leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from proxy.past import Past, Went, contract_of
from proxy.replay import Replayed, Replayer

EXAMPLES = 5
"""Request ids that are named for each type."""
MOST_ROWS = 20
"""Rows of each table for people; JSON has all."""
PICO = 1_000_000_000_000


class Sums(Struct):
    """One side of a group."""

    local: int = 0
    cloud: int = 0
    refused: int = 0
    cost: int = 0  # pico-dollars
    unknown_cost: int = 0  # requests whose cost is not known

    def add(self, went: Went) -> None:
        setattr(self, went.where, getattr(self, went.where) + 1)
        if went.cost is None:
            self.unknown_cost += 1
        else:
            self.cost += went.cost

    def row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "cost"} | {
            "cost": f"{self.cost // PICO}.{self.cost % PICO:012d}"
        }


class Leak(Struct):
    """One type of finding, and where it would go."""

    requests: int = 0
    targets: Counter[str] = Counter()
    examples: list[str] = []

    def add(self, request: str, targets: frozenset[str]) -> None:
        self.requests += 1
        self.targets = self.targets + Counter(targets)
        if len(self.examples) < EXAMPLES:
            self.examples.append(request)


class Report:
    """Adds up requests as they are replayed."""

    def __init__(self, replayer: Replayer) -> None:
        self._replayer = replayer
        self.requests = 0
        self.same = 0
        self.moved = 0
        self.untold: Counter[str] = Counter()
        self.other_detectors = 0
        self.before, self.after = Sums(), Sums()
        self.models: dict[str, tuple[Sums, Sums]] = {}
        self.rules: Counter[tuple[str, str]] = Counter()
        self.targets: Counter[tuple[str, str]] = Counter()
        self.newly: dict[str, Leak] = {}
        self.weaker: dict[str, Leak] = {}  # left before, and would go to a target under less of a contract
        self.elsewhere: dict[str, Leak] = {}  # left before, to another target
        self.no_longer: Counter[str] = Counter()
        self.may: dict[str, Leak] = {}  # of requests that cannot be told

    @property
    def more_leaves(self) -> bool:
        """Would more sensitive data leave than did?"""
        return bool(self.newly or self.weaker)

    def add(self, past: Past, replayed: Replayed) -> None:
        self._count(past)
        before, after = replayed.before, replayed.after
        if (before.where, before.target) == (after.where, after.target):
            self.same += 1
        else:
            self.moved += 1
            self.targets[_name(before), _name(after)] += 1
        if before.rule != after.rule:
            self.rules[before.rule, after.rule] += 1
        self.before.add(before)
        self.after.add(after)
        sides = self.models.setdefault(replayed.model, (Sums(), Sums()))
        sides[0].add(before)
        sides[1].add(after)
        self._leaves(past, before, after)

    def not_told(self, past: Past, reason: str, may: frozenset[str]) -> None:
        """A request that records do not tell enough of; `may`: types that could newly leave."""
        self._count(past)
        self.untold[reason] += 1
        for kind in may:
            self.may.setdefault(kind, Leak(examples=[])).add(past.request, frozenset())

    def _count(self, past: Past) -> None:
        self.requests += 1
        detectors = past.record.detectors
        self.other_detectors += bool(detectors) and detectors != self._replayer.detectors

    def _leaves(self, past: Past, before: Went, after: Went) -> None:
        for kind, targets in after.leaves.items():
            old = before.leaves.get(kind)
            if old is None:
                self._tell(self.newly, kind, past, targets)
            elif targets - old:
                worse = self._weaker(past, targets - old)
                if worse:
                    self._tell(self.weaker, kind, past, worse)
                if targets - old - worse:
                    self._tell(self.elsewhere, kind, past, targets - old - worse)
        for kind in before.leaves.keys() - after.leaves.keys():
            self.no_longer[kind] += 1

    @staticmethod
    def _tell(where: dict[str, Leak], kind: str, past: Past, targets: frozenset[str]) -> None:
        where.setdefault(kind, Leak(examples=[])).add(past.request, targets)

    def _weaker(self, past: Past, targets: frozenset[str]) -> frozenset[str]:
        """Targets that lack an agreement which one that got it then had."""
        had = [contract_of(one) for one in past.decisions if one.boundary != "local"]
        baa, nothing_kept = any([one[0] for one in had]), any([one[1] for one in had])
        found = set()
        for name in targets:
            labels = self._replayer.labels_of(name)
            today = past.at // 86_400_000_000
            if (
                labels is None
                or (baa and not labels.holds("baa", today))
                or (nothing_kept and not labels.zero_retention)
            ):
                found.add(name)
        return frozenset(found)

    # --- what is printed ----------------------------------------------------------------------------------------

    def row(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "requests": self.requests,
            "replayed": self.requests - self.untold.total(),
            "not_replayed": dict(self.untold.most_common()),
            "other_detectors": self.other_detectors,
            "same": self.same,
            "moved": self.moved,
            "before": self.before.row(),
            "after": self.after.row(),
            "egress": {
                "more_leaves": self.more_leaves,
                "newly": _leaks(self.newly),
                "weaker_contract": _leaks(self.weaker),
                "elsewhere": _leaks(self.elsewhere),
                "no_longer": dict(self.no_longer.most_common()),
                "may": _leaks(self.may),
            },
            "targets": [
                {"before": before, "after": after, "requests": count}
                for (before, after), count in self.targets.most_common()
            ],
            "decisions": [
                {"before": before, "after": after, "requests": count}
                for (before, after), count in self.rules.most_common()
            ],
            "models": [
                {"model": model, "before": sides[0].row(), "after": sides[1].row()}
                for model, sides in sorted(self.models.items(), key=lambda item: -sum_of(item[1][0]))
            ],
        }

    def text(self) -> str:
        """For people."""
        told = self.requests - self.untold.total()
        lines = [
            f"{self.requests:,} requests; {told:,} can be told, {self.moved:,} of them would have gone elsewhere",
            "",
        ]
        if told:
            lines += _sides([("all", self.before, self.after)], told)
            lines += _sides([(name, *sides) for name, sides in self._busiest()], 0)
        lines += _moves("target", self.targets)
        lines += _moves("decided by", self.rules)
        lines += self._egress()
        if self.untold:
            lines += ["", f"{self.untold.total():,} cannot be told:"]
            lines += [f"  {count:>8,}  {reason}" for reason, count in self.untold.most_common()]
        if self.other_detectors:
            lines += [
                "",
                f"{self.other_detectors:,} were looked at by other detectors: what was found is what those found",
            ]
        return "\n".join(lines)

    def _busiest(self) -> list[tuple[str, tuple[Sums, Sums]]]:
        found = sorted(self.models.items(), key=lambda item: -sum_of(item[1][0]))
        return found[:MOST_ROWS] if len(found) > 1 else []

    def _egress(self) -> list[str]:
        lines = [""]
        for title, leaks in (
            ("NEWLY LEAVES, in the clear:", self.newly),
            ("LEAVES TO A TARGET UNDER LESS OF A CONTRACT:", self.weaker),
            ("leaves as before, to another target:", self.elsewhere),
            ("may newly leave, of requests that cannot be told:", self.may),
        ):
            if leaks:
                lines.append(title)
                for kind, leak in sorted(leaks.items(), key=lambda item: -item[1].requests):
                    to = f" to {', '.join([name for name, _ in leak.targets.most_common(3)])}" if leak.targets else ""
                    lines.append(f"  {leak.requests:>8,}  {kind}{to}, such as {', '.join(leak.examples[:2])}")
        if self.no_longer:
            gone = ", ".join([f"{kind} of {count:,}" for kind, count in self.no_longer.most_common()])
            lines.append(f"leaves no longer: {gone}")
        if len(lines) == 1:
            lines.append("nothing that was found would newly leave")
        return lines


def sum_of(sums: Sums) -> int:
    return sums.local + sums.cloud + sums.refused


def _name(went: Went) -> str:
    return f"refused: {went.rule}" if went.where == "refused" else went.target


def _leaks(leaks: Mapping[str, Leak]) -> list[dict[str, Any]]:
    return [
        {
            "type": kind,
            "requests": leak.requests,
            "targets": dict(leak.targets.most_common()),
            "examples": leak.examples,
        }
        for kind, leak in sorted(leaks.items(), key=lambda item: -item[1].requests)
    ]


def _sides(rows: list[tuple[str, Sums, Sums]], whole: int) -> list[str]:
    if not rows:
        return []
    width = max(12, *[len(name) for name, _, _ in rows])
    lines = [] if not whole else [f"{'':{width}}  {'':6}  {'local':>9}  {'cloud':>9}  {'refused':>9}  {'API cost':>12}"]
    for name, before, after in rows:
        for side, sums in (("before", before), ("after", after)):
            first = name if side == "before" else ""
            unknown = f"  and of {sums.unknown_cost:,} not known" if sums.unknown_cost else ""
            lines.append(
                f"{first:{width}}  {side:6}  {sums.local:>9,}  {sums.cloud:>9,}  {sums.refused:>9,}  {_dollars(sums.cost):>12}{unknown}"
            )
        if whole:
            share = f"{100 * before.cloud / whole:.1f} % -> {100 * after.cloud / whole:.1f} %"
            lines.append(f"{'':{width}}  to the cloud {share}")
    return lines


def _dollars(pico: int) -> str:
    return f"${pico / PICO:,.4f}"


def _moves(what: str, moves: Counter[tuple[str, str]]) -> list[str]:
    if not moves:
        return []
    lines = ["", f"{what}:"]
    lines += [f"  {count:>8,}  {before} -> {after}" for (before, after), count in moves.most_common(MOST_ROWS)]
    if len(moves) > MOST_ROWS:
        lines.append(f"            and {len(moves) - MOST_ROWS} more; --json has all")
    return lines
