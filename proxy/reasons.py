"""What operators write in words of their own: it stands in the log for ever, so nobody may be named in it."""

from __future__ import annotations

import os

from proxy.terminal import fail

LONGEST_REASON = 500


def checked_reason(reason: str) -> str:
    """A reason as it may stand in the log for ever."""
    return checked_words(reason, "reason", LONGEST_REASON)


def checked_words(words: str, option: str, longest: int) -> str:
    """Words as they may stand in the log for ever: printable, bounded, and without what is seen to identify somebody."""
    from compliance.detectors.forms import Forms
    from compliance.detectors.health import HealthContext
    from compliance.detectors.patterns import Patterns
    from compliance.scan import Scanner
    from proxy.state.shelf import user_shelf

    text = words.strip()
    if not text or not text.isprintable() or len(text) > longest:
        fail(f"--{option} takes one line of words, up to {longest} characters", 2)
    shelf = user_shelf(os.environ)
    scanner = Scanner(Patterns(shelf=shelf), (), HealthContext(shelf), Forms(shelf))
    found = sorted({finding.type for finding in scanner.inspect_text(text, option)} - {"date"})
    if found:
        fail(f"the {option} would stand in the log for ever, and seems to hold {', '.join(found)}; say it without", 2)
    return text
