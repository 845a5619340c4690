"""The evaluation's verdicts and its search for what leaked: a figure that is missing never reads as met."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "eval"


@pytest.fixture(scope="module")
def sets() -> ModuleType:
    return _module("sets")


@pytest.fixture(scope="module")
def surviving() -> ModuleType:
    return _module("surviving")


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


def test_a_goal_is_judged_by_its_side(sets: ModuleType) -> None:
    assert sets.Goal("<=", 1).judged(1.0) == "met"
    assert sets.Goal("<=", 1).judged(2.5) == "missed by 1.5 %"
    assert sets.Goal(">=", 95).judged(94) == "missed by 1 %"
    assert sets.Goal(">=", 95).judged(None) == "not measured"
    assert sets.Goal("<=", 0.1, " ms").judged(0.3) == "missed by 0.2 ms"


def test_the_interval_is_wilsons(sets: ModuleType) -> None:
    """Wilson 1927, worked by hand: 10 of 100, none of 50."""
    assert sets.share(10, 100).text == "10.00 % (10/100; 5.52-17.44)"
    assert sets.share(0, 50).text == "0.00 % (0/50; 0.00-7.14)"
    assert sets.share(0, 0).value is None


@pytest.mark.parametrize(
    "text",
    ["seen by Ada Quell there", "seen by ADA  QUELL", "ＡＤＡ quell", "AdaQuell", "A-d-a Q.u.e.l.l"],
)
def test_a_value_survives_in_any_spelling(surviving: ModuleType, text: str) -> None:
    assert surviving.survives("Ada Quell", b"", [text])


@pytest.mark.parametrize("text", ["seen by [NAME_k7f2] Quell", "Ada Quelling-Smith 7", ""])
def test_a_part_of_a_value_is_no_value(surviving: ModuleType, text: str) -> None:
    assert not surviving.survives("Ada Quo", b"", [text])


def test_short_values_stand_at_borders(surviving: ModuleType) -> None:
    assert surviving.survives("NY", b"", ["to NY, then"])
    assert not surviving.survives("NY", b"", ["any other"])
    assert surviving.survives("NY", b'{"content": "to NY"}', [])
