"""The benchmark's verdicts: a figure that is missing or below its floor never reads as reached."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[1] / "bench/floors.py"


@pytest.fixture(scope="module")
def floors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_floors", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def pair(size: int, *ratios: float, side: str = "spillway bare", peer: str = "sglang-router") -> dict[str, Any]:
    return {"case": f"json, {size} connections", "side": side, "kind": "pair", "peer": peer, "ratios": list(ratios)}


@pytest.mark.parametrize(
    ("small", "large", "verdict"),
    [
        (1.4, 1.3, "goal"),
        (1.4, 1.0, "floor"),
        (1.4, 0.99, "below the floor"),  # the worse of the two counts
        (0.99, 1.4, "below the floor"),
    ],
)
def test_the_worse_case_decides(floors: ModuleType, small: float, large: float, verdict: str) -> None:
    """By its median: one round may have met another machine."""
    judged = floors.judge([pair(32, 0.1, small, 9.0), pair(256, 9.0, large, 0.1, large, 9.0)])
    assert judged[0]["verdict"] == verdict


def test_half_of_the_cases_or_rounds_is_not_a_measurement(floors: ModuleType) -> None:
    assert floors.judge([pair(32, 2.0, 2.0, 2.0)])[0]["verdict"] == "not measured"
    assert floors.judge([pair(32, 2.0, 2.0, 2.0), pair(256, 2.0, 2.0)])[0]["verdict"] == "not measured"


def test_each_peer_has_a_floor_of_its_own(floors: ModuleType) -> None:
    rows = [
        pair(256, 59.0, 61.0, 60.0, side=floors.CLOUD_3MS, peer="litellm"),
        pair(256, 0.3, 0.3, 0.3, side=floors.CLOUD_3MS),
    ]
    found = {row["name"]: (row["measured"], row["verdict"]) for row in floors.judge(rows)}
    assert found["everything, +3 ms, 256, times the best of LiteLLM"] == (60.0, "floor")
    assert found["everything, +3 ms, 256, of sglang-router"] == (0.3, "below the floor")


def test_nothing_measured_reaches_nothing(floors: ModuleType) -> None:
    assert {row["verdict"] for row in floors.judge([])} == {"not measured"}


def test_the_worst_stall_counts_and_peers_do_not(floors: ModuleType) -> None:
    def stall(side: str, value: float) -> dict[str, Any]:
        return {"case": "stall, json, up to 256 connections", "side": side, "kind": "stall", "p999_ms": value}

    rows = [stall("spillway everything", 9.0), stall("spillway everything, cloud", 11.0), stall("nginx", 99.0)]
    found = {row["name"]: row for row in floors.judge(rows)}["p99.9 stall under wrk, ms"]
    assert (found["measured"], found["verdict"]) == (11.0, "below the floor")


def load(side: str, size: int, rate: float, *, answers: int = 100_000, foreign: float = 0.0) -> dict[str, Any]:
    row = {"case": f"json, {size} connections", "side": side, "kind": "json", "requests_per_s": rate}
    return row | {"answers": answers, "foreign_cores": foreign}


def test_a_stall_while_the_machine_took_the_core_is_not_the_gateways(floors: ModuleType) -> None:
    row = {
        "case": "stall, json, up to 256 connections",
        "side": "spillway everything",
        "kind": "stall",
        "p999_ms": 50.0,
    }
    found = {row["name"]: row for row in floors.judge([{**row, "stolen_ms": 2 * floors.STOLEN}])}
    assert found["p99.9 stall under wrk, ms"]["verdict"] == "not measured"
    found = {row["name"]: row for row in floors.judge([{**row, "stolen_ms": floors.STOLEN}])}
    assert found["p99.9 stall under wrk, ms"]["measured"] == 50.0


def test_what_was_measured_beside_other_work_is_not_usable(floors: ModuleType) -> None:
    assert floors.usable(load("nginx", 32, 1000))
    assert not floors.usable(load("nginx", 32, 1000, foreign=0.3))
    assert not floors.usable(load("litellm", 256, 16, answers=64))  # it had no time to answer
    assert not floors.usable({"case": "stall", "side": "nginx", "kind": "stall"})
