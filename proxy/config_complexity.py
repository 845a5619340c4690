"""The configuration's `complexity:`: which scorers choose between a small and a large model, and how often the large one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from proxy.config_errors import Location
from proxy.config_parts import Duration, Part, Share

if TYPE_CHECKING:
    from proxy.config import Settings


class RememberPart(Part):
    """What is kept of requests to learn a scorer from: numbers, no text; but they say much of a short text."""

    share: Share = Field(1.0, description="of answered requests, chosen by chance")
    keep: Duration = Field(90 * 86_400.0, gt=0, description="then they are removed, but for those under a hold")
    tenants: tuple[str, ...] | None = Field(None, description="whose requests; default: everybody's")
    findings: Literal["skip", "keep"] = Field(
        "skip", description="skip: nothing of a request in which identifiers were found, or under health context"
    )
    most: int = Field(
        200_000, ge=100, le=5_000_000, description="requests on this host; past it the oldest are removed"
    )


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
    remember: RememberPart | None = Field(
        None, description="off by default; {}: what spillway train learns from is kept of every answered request"
    )
    drift_every: Duration = Field(
        86_400.0,
        gt=0,
        description="where traffic is no longer like the calibration's, alerts: is told so, at most once in this time",
    )


def file_hashes(part: ComplexityPart) -> dict[str, str]:
    """SHA-256 of each scorer's file that can be read, 32 hex digits of it, by the option that names it."""
    found = {}
    for name in ("scorer", "answers"):
        path = getattr(part, name)
        if path is not None:
            with contextlib.suppress(OSError):
                found[name] = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:32]
    return found


def missing_files(settings: Settings) -> Iterator[tuple[Location, str, str]]:
    """Scorers that are named and not there.  Where it is remembered what one is learnt from, the first is still to come."""
    if settings.complexity.remember is not None:
        return
    for name in ("scorer", "answers"):
        path = getattr(settings.complexity, name)
        if path is not None and not Path(path).is_file():
            yield (
                ("complexity", name),
                "is no file",
                "spillway calibrate or train writes it; leave it out until then, and nothing is scored",
            )
