"""Work that grows with its input and no faster: ratios within one process, since machines differ and coverage slows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Input = TypeVar("Input")


def linear(work: Callable[[Input], object], quarter: Input, whole: Input) -> None:
    """Four times the input takes some four times as long; a quadratic step takes sixteen times.

    What takes less than a quarter of a second is not told from noise.
    """
    first, second = _cost(work, quarter), _cost(work, whole)
    assert second < 9 * first + 0.25, (first, second)


def _cost(work: Callable[[Input], object], given: Input) -> float:
    began = time.process_time()
    work(given)
    return time.process_time() - began
