"""What the logs hold of one past request, as a replay asks for it: facts, sizes, what left, what stood in the way then."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from compliance.model import LOCAL, Verdict
from compliance.records import Decision, Outcome, Refused
from engines.model import Operation, Request
from policies.model import Facts
from proxy.config_parts import RulePart
from proxy.config_rules import any_everywhere
from proxy.fingerprints import kept_text
from proxy.surfaces import BY_NAME

if TYPE_CHECKING:
    from proxy.config import Settings

DAY = 86_400_000_000
"""Microseconds."""
HEALTH = "health context"
"""Stands beside types of findings: a text under health context that leaves is told, whatever else was found."""
_EPOCH = datetime.date(1970, 1, 1)
_STATES = ("unhealthy", "saturated", "unredactable", "pseudonyms", "audit_unavailable")
_VETO = re.compile(rf"(.*?):({'|'.join(_STATES)})(?::.*)?", re.DOTALL)
_BAA = re.compile(r"baa until (\d{4}-\d{2}-\d{2})")
DOUBTFUL = ": its answer was doubtful"
"""The end of the rule of an attempt further up; see `proxy.escalating`."""
FAILED = re.compile(r"(?:^|: )([a-z_.]+) (?:failed|took|is not known)")


class Past(Struct):
    """What the logs hold of one request."""

    request: str
    at: int
    decisions: list[Decision] = []
    outcomes: dict[int, Outcome] = {}
    refused: Refused | None = None
    drawn: bool = False  # an experiment took it

    @property
    def record(self) -> Decision | Refused:
        found = self.decisions[0] if self.decisions else self.refused
        assert found is not None
        return found


class Went(Struct, frozen=True):
    """Where a request went, or would go."""

    where: str  # local, cloud, refused
    target: str = ""  # that answered, or was tried last
    rule: str = ""  # the routing rule, or the refusal's code
    cost: int | None = 0  # pico-dollars; None: it is not known
    leaves: Mapping[str, frozenset[str]] = {}  # type of finding -> targets outside that get it in the clear


def was(past: Past) -> Went:
    """Where a request went, by its records."""
    rows = [(one.target, one.boundary, _clear_then(one)) for one in past.decisions]
    spent = sum([one.cost for one in past.outcomes.values()])
    leaves = leaving(rows)
    if past.refused is not None:
        return Went("refused", rule=past.refused.code, cost=spent, leaves=leaves)
    last = past.decisions[-1]
    where = LOCAL if last.boundary == LOCAL else "cloud"
    return Went(where, last.target, past.decisions[0].routing, spent, leaves)


def contract_of(record: Decision) -> tuple[bool, bool]:
    """(an agreement was in force, nothing was kept) of the target that an attempt went to, on its day."""
    until = _BAA.search(record.contract)
    return until is not None and iso_day(record.at) <= until[1], "zero_retention" in record.contract


def record_code(past: Past) -> str:
    return past.refused.code if past.refused is not None else ""


def record_target(past: Past) -> str:
    return past.decisions[0].target if past.decisions else ""


def kinds_of(record: Decision | Refused) -> tuple[str, ...]:
    """The types of what was found in the request, each once."""
    return tuple(dict.fromkeys([one.partition(":")[0] for one in record.findings]))


def shape_of(record: Decision | Refused, verdict: Verdict) -> Facts:
    """Sizes and needs as recorded; of an earlier version's records without them, -1 tokens."""
    surface = BY_NAME[record.surface]
    assert surface.operation is not None
    words = record.shape.split(" ")
    tokens, messages, most = [*words, "?", "0", "0"][:3] if record.shape else ("?", "0", "0")
    needs = frozenset(words[3].split(",")) if len(words) > 3 else frozenset()
    return Facts(
        model=record.model, operation=surface.operation.value, needs=needs | {surface.operation.value}, prompt_bytes=0,
        prompt_tokens=int(tokens) if tokens.isdigit() else -1, max_output=int(most) or None, messages=int(messages),
        stream=isinstance(record, Decision) and record.stream, has_tools="tools" in needs, action=verdict.action, rule=verdict.rule,
    )  # fmt: skip


def states_of(past: Past) -> dict[str, str]:
    """What spoke against targets then that lies in the moment, not in the policy."""
    found = {}
    for veto in past.record.vetoes:
        match = _VETO.fullmatch(veto)
        if match is not None:
            found[match[1]] = match[2]
    return found


def of_shape(record: Decision | Refused, shape: Facts) -> dict[str, Any]:
    if not record.shape:
        return {}
    known: dict[str, Any] = {"messages": shape.messages, "max_output": shape.max_output}
    known["structure.images"] = "vision" in shape.needs
    if shape.has_tools:
        known["structure.tools"] = True
    if shape.prompt_tokens >= 0:
        known["tokens"] = shape.prompt_tokens
    if isinstance(record, Decision):
        known["stream"] = record.stream
    return known


def _flag(word: str) -> bool:
    return word == "yes"


def _maybe(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda word: None if word == "unknown" else read(word)


READ: dict[str, Callable[[str], Any]] = {
    "route": str,
    "probability": float,
    "margin": float,
    "complexity": _maybe(float),
    "load": _maybe(float),
    "language": _maybe(str),
    "tokens": int,
    "messages": int,
    "max_output": _maybe(int),
    "stream": _flag,
    **{f"structure.{name}": _flag for name in ("code", "maths", "json", "diff", "tools", "images")},
}
"""Signals as `policies.signals.told` writes them."""


def clear(record: Decision | Refused, verdict: Verdict) -> frozenset[str]:
    """Types that a target under this verdict gets unreplaced."""
    kinds = set(kinds_of(record))
    if verdict.action == "redact":
        kinds -= verdict.redact
    if record.health:
        kinds.add(HEALTH)
    return frozenset(kinds)


def iso_day(at: int) -> str:
    return (_EPOCH + datetime.timedelta(days=at // DAY)).isoformat()


def _clear_then(record: Decision) -> frozenset[str]:
    kinds = set(kinds_of(record))
    if record.action == "redact":
        kinds -= {one.partition(":")[0] for one in record.redacted}
    if record.health:
        kinds.add(HEALTH)
    return frozenset(kinds)


def leaving(rows: Sequence[tuple[str, str, frozenset[str]]]) -> dict[str, frozenset[str]]:
    """(target, its boundary, types it gets) of each attempt -> by type, the targets outside."""
    found: dict[str, set[str]] = {}
    for target, boundary, kinds in rows:
        if boundary != LOCAL:
            for kind in kinds:
                found.setdefault(kind, set()).add(target)
    return {kind: frozenset(targets) for kind, targets in found.items()}


def did_fail(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.ending == "failed" and not outcome.committed


def unseen(record: Decision | Refused) -> bool:
    return record.rule.startswith("not scanned: ")


def stub(record: Decision | Refused, shape: Facts) -> Request:
    """A request without its text: what prices and paths are asked about."""
    surface = BY_NAME[record.surface]
    return Request(
        surface.dialect, Operation(shape.operation), record.model, shape.stream, b"", {}, False, shape.max_output, 1, shape.needs
    )  # fmt: skip


class Policies:
    """The policies of the past, as far as their texts are kept beside the logs."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self._logs = logs
        self._now: dict[str, Any] = json.loads(settings.policy_material)
        self._known: dict[str, dict[str, Any] | None] = {settings.policy_hash: self._now}

    def _text(self, policy: str) -> dict[str, Any] | None:
        if policy not in self._known:
            text = kept_text(self._logs, policy)
            self._known[policy] = None if text is None else json.loads(text)
        return self._known[policy]

    def same_routes(self, policy: str) -> bool:
        """Would the routes, and what tells them apart, say the same?"""
        return self.same(policy, "routes", "classifiers")

    def same(self, policy: str, *parts: str) -> bool:
        """Were these parts of it what they are now?"""
        then = self._text(policy)
        return then is not None and all([then.get(name) == self._now.get(name) for name in parts])

    def same_scorer(self, policy: str) -> bool:
        then = self._text(policy)
        if then is None:
            return False
        return bool(then.get("complexity", {}).get("files") == self._now.get("complexity", {}).get("files"))

    def escalation(self, policy: str, decision: str) -> Any:
        """What a decision wanted done with doubtful answers; None: nothing, or it is not known."""
        parts = (self._text(policy) or {}).get("decisions", [])
        return next((part.get("escalate") for part in parts if part.get("name") == decision), None)

    def looked_everywhere(self, policy: str) -> bool:
        """Were names and places looked for outside of health context, too?"""
        rules = (self._text(policy) or {}).get("compliance", {}).get("rules", [])
        return any_everywhere([RulePart.model_validate(rule) for rule in rules])

    def clinical(self, policy: str) -> frozenset[str]:
        """Tenants that were tagged with health context."""
        tenants = (self._text(policy) or {}).get("compliance", {}).get("tenants", {})
        return frozenset([name for name, tenant in tenants.items() if tenant.get("context") == "health"])
