"""The configuration's `complexity:`: which scorers choose between a small and a large model, and how often the large one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from proxy.config_errors import Location
from proxy.config_parts import Part, Share

if TYPE_CHECKING:
    from proxy.config import Settings


class ComplexityPart(Part):
    """Files that `spillway calibrate` writes.  Without them nothing is scored, and explanations say `uncalibrated`."""

    scorer: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="of prompts: written by spillway calibrate, such as complexity.npz",
    )
    answers: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="of the small model's answers: written by spillway calibrate from labels that hold them",
    )
    strong_share: Share | None = Field(
        None, description="of prompts that go to the large model; default: what was calibrated"
    )


def missing_files(settings: Settings) -> Iterator[tuple[Location, str, str]]:
    """Scorers that are named and not there."""
    for name in ("scorer", "answers"):
        path = getattr(settings.complexity, name)
        if path is not None and not Path(path).is_file():
            yield (
                ("complexity", name),
                "is no file",
                "spillway calibrate writes it; leave it out until then, and nothing is scored",
            )
