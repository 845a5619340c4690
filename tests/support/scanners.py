"""Scanners made once for all tests of a process: compiling the shapes takes most of a second."""

from __future__ import annotations

from compliance.scan import Scanner
from proxy.app import build_scanner
from proxy.config import Settings

_made: dict[str, Scanner] = {}


def shared_scanner(settings: Settings) -> Scanner:
    """What `build_scanner` gives for these settings: scanners are thread-safe and keep nothing."""
    key = settings.compliance.model_dump_json()
    if key not in _made:
        _made[key] = build_scanner(settings)
    return _made[key]
