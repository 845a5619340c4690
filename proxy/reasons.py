"""Reasons that operators give: they stand in the log for ever, so nobody may be named in them."""

from __future__ import annotations

import os

from proxy.terminal import fail

LONGEST_REASON = 500


def checked_reason(reason: str) -> str:
    """A reason as it may stand in the log for ever: printable, bounded, and without what is seen to identify somebody."""
    from compliance.detectors.forms import Forms
    from compliance.detectors.health import HealthContext
    from compliance.detectors.patterns import Patterns
    from compliance.scan import Scanner
    from proxy.state.shelf import user_shelf

    text = reason.strip()
    if not text or not text.isprintable() or len(text) > LONGEST_REASON:
        fail(f"--reason takes one line of words, up to {LONGEST_REASON} characters", 2)
    shelf = user_shelf(os.environ)
    scanner = Scanner(Patterns(shelf=shelf), (), HealthContext(shelf), Forms(shelf))
    found = sorted({finding.type for finding in scanner.inspect_text(text, "reason")} - {"date"})
    if found:
        fail(f"the reason would stand in the log for ever, and seems to hold {', '.join(found)}; say it without", 2)
    return text
