"""Findings + the operator's rules -> a verdict.  Pure.

Without rules the default is safe: whatever the detectors find keeps the request local, and so does what they
could not look at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from msgspec import Struct

from compliance.model import Action, Finding, Verdict

TYPES = ("card", "ssn", "email", "secret", "opaque", "scan_failed")
"""What a rule can speak of."""

_STRICTNESS: dict[str, int] = {"allow": 0, "redact": 1, "keep_local": 2, "block": 3}


class Rule(Struct, frozen=True):
    """The first rule that matches a finding decides over it.  Empty `found` or `tenants`: any."""

    name: str
    action: Action
    found: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()

    def matches(self, finding: str, tenant: str | None) -> bool:
        return (not self.found or finding in self.found) and (not self.tenants or tenant in self.tenants)


class Ruleset:
    """Rules in order.  The strictest action over all findings is the verdict's."""

    def __init__(self, rules: Sequence[Rule] = (), *, opaque: Action = "keep_local") -> None:
        self._rules = tuple(rules)
        self._opaque = opaque

    def verdict(self, findings: Iterable[Finding], *, tenant: str | None) -> Verdict:
        """The verdict over a request with these findings."""
        found = tuple(findings)
        if not found:
            return CLEAN
        action: Action = "allow"
        rule = "default"
        # In their order, not a set's: the same request names the same rule in every process.
        for kind in dict.fromkeys([finding.type for finding in found]):
            decided, name = self._decide(kind, tenant)
            if _STRICTNESS[decided] > _STRICTNESS[action]:
                action, rule = decided, name
            elif decided == action and rule == "default":
                rule = name
        return Verdict(action, found, rule)

    def _decide(self, kind: str, tenant: str | None) -> tuple[Action, str]:
        for rule in self._rules:
            if rule.matches(kind, tenant):
                if kind == "scan_failed" and _STRICTNESS[rule.action] < _STRICTNESS["keep_local"]:
                    break  # no rule can call clean what was not looked at
                return rule.action, rule.name
        if kind == "scan_failed":
            return "keep_local", "default: not scanned"
        if kind == "opaque":
            return self._opaque, "default: opaque"
        return "keep_local", f"default: {kind} stays local"


CLEAN = Verdict("allow")


def policy_hash(material: bytes) -> str:
    """Names a policy in records and headers: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(material).hexdigest()[:16]
