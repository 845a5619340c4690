"""What a rule said at the time: from the text of its policy, which is kept under its hash beside the logs (effects: files)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from proxy.config_parts import RulePart
from proxy.fingerprints import kept_text
from proxy.meaning import condition


def rules_of(text: bytes | None) -> dict[str, Any]:
    """A policy's rules by name, in their order; none where the text is not kept."""
    try:
        return {rule["name"]: rule for rule in json.loads(text or b"")["compliance"]["rules"]}
    except (ValueError, KeyError, TypeError):
        return {}


def rule_says(audit: Path, policy: str, name: str) -> str:
    """A rule in words; empty for the defaults, whose names say it, and where the text is not kept."""
    rule = rules_of(kept_text(audit, policy)).get(name)
    if rule is None:
        return ""
    try:
        part = RulePart.model_validate(rule)
    except ValidationError:  # of a version that said it otherwise
        return ""
    return f"{condition(part.when)}: {part.action}"
