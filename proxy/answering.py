"""What becomes of identifiers in answers, by the configuration and the rules.

`pass` counts them and changes nothing.  `mask` and `stop` look at an answer as the rules look at a request: a kind that
might not leave for the target that answered, under the request's own health context, is not let through.  Where a
request was redacted, its pseudonyms are turned back on the way to the client, whatever else is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from compliance.answers import AnswerScanner
from compliance.detectors.model import Span
from compliance.holdback import Guard
from compliance.model import Finding
from compliance.pseudonyms import Scope
from compliance.rules import Facts, Labels
from compliance.rulings import Ruleset
from compliance.scan import NotScanned, Scanner
from engines.model import Operation
from proxy.exchange import Exchange
from proxy.holding import Answering
from proxy.session import AnswerScan

Found = Literal["pass", "mask", "stop"]


class Answers:
    """One object a worker.  `scanner` None: answers are not scanned.  `openings` is needed for all but `pass`."""

    def __init__(
        self,
        scanner: Scanner | None,
        ruleset: Ruleset,
        found: Found = "pass",
        openings: Callable[[str], int] | None = None,
        *,
        people_always: bool = False,
    ) -> None:
        self._scanner = scanner
        self._ruleset = ruleset
        self._found = found
        self._openings = openings
        self._people_always = people_always

    def of(self, exchange: Exchange, labels: Labels, scope: Scope | None) -> tuple[AnswerScan | None, Answering | None]:
        """What counts, and what changes, the answer of one attempt at a target with these labels."""
        request, scanner = exchange.request, self._scanner
        original = scope.original if scope is not None and scope.issued else None
        if request is None or request.operation is not Operation.CHAT:
            return (AnswerScanner(scanner) if scanner is not None else None), None
        if scanner is not None and self._openings is not None and self._found != "pass":
            facts = exchange.facts if exchange.facts is not None else Facts(health=True)
            return None, Answering(self._guard(scanner, self._openings, facts, labels), original)
        scan = AnswerScanner(scanner) if scanner is not None else None
        if original is None:
            return scan, None
        return scan, Answering(None, original, scan.feed if scan is not None else None)

    def _guard(self, scanner: Scanner, openings: Callable[[str], int], facts: Facts, labels: Labels) -> Guard:
        known: dict[str, bool] = {}
        health = facts.health

        def look(text: str) -> list[Span] | None:
            try:
                return scanner.spans(text, health=health)
            except NotScanned:
                return None

        def allowed(kind: str) -> bool:
            may = known.get(kind)
            if may is None:
                ruling = self._ruleset.judge((Finding(kind, "", 0, 0),), facts)
                may = known[kind] = ruling.on(labels).action == "allow"
            return may

        return Guard(look, openings, allowed, self._found == "stop", health or self._people_always)
