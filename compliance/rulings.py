"""Findings + the operator's rules -> what may go where.  Pure.

A verdict is a function of the target: the same prompt may go to one cloud under a contract and to no other.  So a
request gets a `Ruling`, which is asked for each target's labels, and remembers what it said.  The first rule that
matches decides over each kind of identifier that was found, and over the request as a whole; of all that was
decided the strictest action holds.

Without rules the default is safe: numbers that were issued to somebody, and secrets, stay local whatever surrounds
them; names, contacts, places and dates stay local under health context; so does what could not be looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from compliance.identifiers import FAMILY
from compliance.model import LOCAL, Action, Finding, Verdict
from compliance.rules import UNREAD, Facts, Labels, Rule

_STRICTNESS: dict[str, int] = {"allow": 0, "redact": 1, "keep_local": 2, "block": 3}
_MAX_REMEMBERED = 64
"""Label sets that one ruling remembers; an operator has a handful."""


class Ruling:
    """What may be done with one request, target by target."""

    __slots__ = ("_facts", "_kinds", "_known", "_opaque", "_rules", "findings")

    def __init__(
        self, rules: Sequence[Rule], facts: Facts, findings: tuple[Finding, ...], kinds: tuple[str, ...], opaque: Action
    ) -> None:
        self._rules = rules  # those whose conditions on the request hold
        self._facts = facts
        self._kinds = kinds  # of what was found, once each, in their order: the same request names the same rule
        self._opaque = opaque
        self._known: dict[Labels, Verdict] = {}
        self.findings = findings

    @property
    def health(self) -> bool:
        """There is health context, or a tenant that is tagged with it."""
        return self._facts.health

    def over(self, kind: str, labels: Labels) -> Action:
        """The action over one kind of finding for a target with these labels, also where none was found before."""
        rules = [rule for rule in self._rules if rule.target.matches(labels, self._facts.today)]
        return self._decide(kind, rules, labels)[0]

    def on(self, labels: Labels) -> Verdict:
        """The verdict for a target with these labels."""
        verdict = self._known.get(labels)
        if verdict is None:
            verdict = self._judge(labels)
            if len(self._known) < _MAX_REMEMBERED:
                self._known[labels] = verdict
        return verdict

    def _judge(self, labels: Labels) -> Verdict:
        rules = [rule for rule in self._rules if rule.target.matches(labels, self._facts.today)]
        action: Action = "allow"
        name = "default"
        redacted = []
        for kind in (*self._kinds, ""):  # the request as a whole last: what was found gives its name to the verdict
            decided, by = self._decide(kind, rules, labels)
            if decided == "redact":
                redacted.append(kind)
            if _STRICTNESS[decided] > _STRICTNESS[action]:
                action, name = decided, by
            elif decided == action and name == "default":
                name = by
        if action != "redact":
            return Verdict(action, self.findings, name)
        if labels.boundary == LOCAL:  # at home nothing need be replaced
            return Verdict("keep_local", self.findings, name)
        return Verdict("redact", self.findings, name, frozenset(redacted))

    def _decide(self, kind: str, rules: Sequence[Rule], labels: Labels) -> tuple[Action, str]:
        """The action over one kind of finding, "" for the request as a whole, and the rule's name."""
        health = self._facts.health
        for rule in rules:
            if not (rule.speaks_of(kind, health) if kind else not rule.found):
                continue
            if rule.expression is not None:
                holds = rule.expression.holds(self._names(labels))
                if holds is None:  # a mistake in it keeps text at home, and opens nothing
                    holds = _STRICTNESS[rule.action] >= _STRICTNESS["keep_local"]
                if not holds:
                    continue
            if kind == "scan_failed" and _STRICTNESS[rule.action] < _STRICTNESS["keep_local"]:
                break  # no rule can call clean what was not looked at
            if rule.action == "redact" and (not kind or kind in UNREAD):
                if kind:
                    break  # there is no text that could be replaced
                return "allow", rule.name  # nor is there anything to replace
            return rule.action, rule.name
        return default(kind, health, self._opaque)

    def _names(self, labels: Labels) -> dict[str, object]:
        facts = self._facts
        return {
            "found": list(self._kinds),
            "tenant": facts.tenant,
            "application": facts.application,
            "key": facts.key,
            "surface": facts.surface,
            "model": facts.model,
            "health": facts.health,
            "target": {
                "boundary": labels.boundary,
                "provider": labels.provider,
                "region": labels.region,
                "baa": labels.holds("baa", facts.today),
                "zero_retention": labels.zero_retention,
            },
        }


def default(kind: str, health: bool, opaque: Action = "keep_local") -> tuple[Action, str]:
    """(action, its name) where no rule speaks of a kind of finding."""
    if not kind:
        return "allow", "default"
    if kind == "opaque":
        return opaque, "default: opaque"
    if kind == "scan_failed":
        return "keep_local", "default: not scanned"
    if FAMILY.get(kind) == "context":
        if health:
            return "keep_local", f"default: {kind} under health context stays local"
        return "allow", f"default: {kind} without health context"
    return "keep_local", f"default: {kind} stays local"


class Ruleset:
    """Rules in order."""

    def __init__(self, rules: Sequence[Rule] = (), *, opaque: Action = "keep_local") -> None:
        self._rules = tuple(rules)
        self._whole = tuple(rule for rule in self._rules if not rule.found)
        self._opaque = opaque

    def judge(self, findings: Iterable[Finding], facts: Facts) -> Ruling:
        """The ruling over a request with these findings."""
        found = tuple(findings)
        rules = [rule for rule in (self._rules if found else self._whole) if rule.suits(facts)]
        if not found and not rules:
            return CLEAN
        kinds = tuple(dict.fromkeys([finding.type for finding in found]))
        return Ruling(rules, facts, found, kinds, self._opaque)


class Fixed(Ruling):
    """One verdict for every target: where nothing speaks of the request, or nothing was scanned, since nobody needed to."""

    __slots__ = ("_verdict",)

    def __init__(self, verdict: Verdict) -> None:
        super().__init__((), Facts(), verdict.findings, (), "keep_local")
        self._verdict = verdict

    def on(self, labels: Labels) -> Verdict:
        return self._verdict


CLEAN = Fixed(Verdict("allow"))
"""Nothing was found and no rule speaks of the request: it may go anywhere."""
