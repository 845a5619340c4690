"""What is measured: the scanner of a configuration and the default rules, as the proxy builds them."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from compliance.detectors.learned import Learned
from compliance.detectors.names import Names
from compliance.model import Finding
from compliance.rules import CLOUD, Facts, Rule
from compliance.rulings import Ruleset
from compliance.scan import Detector, Scanner

REDACT = Rule("redact", "redact", found=frozenset(("phi", "pii")))
"""The rule of the `redact` figures: whatever was found is replaced, and the rest may leave."""
UNREAD = frozenset(("opaque", "scan_failed"))


class Judged(Struct, frozen=True):
    """What became of one prompt under the default rules."""

    action: str
    health: bool
    findings: tuple[Finding, ...]


class Subject:
    """One tier.  Each prompt is scanned as the body of a chat request, once."""

    def __init__(self, tier: str, scanner: Scanner) -> None:
        self.tier = tier
        self.scanner = scanner
        self._rules = Ruleset()
        self._judged: dict[str, Judged] = {}

    def judge(self, text: str) -> Judged:
        """The verdict over a prompt for a cloud without a contract."""
        judged = self._judged.get(text)
        if judged is None:
            seen = self.scanner.inspect(body_of(text))
            verdict = self._rules.judge(seen.findings, Facts(health=seen.health)).on(CLOUD)
            judged = self._judged[text] = Judged(verdict.action, seen.health, seen.findings)
        return judged

    def covered(self, text: str) -> bytearray:
        """1 for each character that is found where there is health context, as redaction would cover it."""
        found = bytearray(len(text))
        for span in self.scanner.inspect_text(text, health=True):
            end = len(text) if span.type in UNREAD else span.end
            found[span.start : end] = b"\1" * (end - span.start)
        return found


def body_of(text: str) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def subjects(tiers: tuple[str, ...], model: Path | None) -> dict[str, Subject | str]:
    """By tier: its subject, or why it cannot be measured."""
    result: dict[str, Subject | str] = {}
    for tier in tiers:
        people: list[Detector] = [Names()]
        if tier == "full":
            try:
                people.append(Learned(model))
            except FileNotFoundError:
                result[tier] = "no learned model"
                continue
        result[tier] = Subject(tier, Scanner(people=people))
    return result
