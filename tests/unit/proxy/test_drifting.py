"""The drift alarm: when it is said, to whom, and how often."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from outcomes_made import made_scorer
from prometheus_client import CollectorRegistry

from policies.drift import Drift, drift
from policies.gain import Origin, calibrated
from proxy.alerts import Notice, body_of
from proxy.drifting import Watch, standings, words
from proxy.standing import health
from proxy.telemetry import Metrics, Telemetry

LIKE = np.random.default_rng(1).random(600).tolist()
UNLIKE = (0.7 + 0.3 * np.random.default_rng(2).random(600)).tolist()


class Ear:
    """What would be sent."""

    def __init__(self) -> None:
        self.told: list[Notice] = []
        self.closed = 0

    def tell(self, notice: Notice) -> None:
        self.told.append(notice)

    def close(self) -> None:
        self.closed += 1


class Traffic:
    """Percentiles of one worker's latest prompts."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=2000)

    def __call__(self) -> Drift:
        return drift(tuple(self.recent), 1000, 0.3)


def origin() -> Origin:
    scorer, _, _ = made_scorer()
    return calibrated(scorer, np.linspace(0, 1, 1000), day="2026-02-03", share=0.3).origin


def watch(state: Path, slot: str, traffic: Traffic, ear: Ear | None, now: list[float], **more: Any) -> Watch:
    return Watch(traffic, origin(), state, slot, every=3600, alerts=ear, clock=lambda: now[0], **more)  # type: ignore[arg-type]


def test_it_rings_once_a_period_over_all_workers_and_says_so_once_in_each_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    now, ear, measured = [1000.0], Ear(), []
    traffics = [Traffic() for _ in range(3)]
    watches = [
        watch(tmp_path, f"slot-{n}", traffic, ear, now, measure=lambda *row: measured.append(row))
        for n, traffic in enumerate(traffics)
    ]
    for one in watches:
        assert not one.look().alarm
    for traffic in traffics:
        traffic.recent.extend(LIKE)
    for one in watches:
        found = one.look()
        assert not found.alarm and found.seen == 600
    assert not ear.told and not caplog.records
    for traffic in traffics[:2]:
        traffic.recent.extend(UNLIKE * 3)
    for _ in range(3):
        for one in watches:
            one.look()
    assert len(ear.told) == 1 and len(caplog.records) == 2  # one worker's traffic is as it was
    assert [one.standing["alarm"] for one in watches] == [True, True, False]
    now[0] += 3599
    watches[1].look()
    assert len(ear.told) == 1
    now[0] += 2
    for one in watches:
        one.look()
    assert len(ear.told) == 2 and len({notice.id for notice in ear.told}) == 2
    now[0] -= 10_000  # a clock that was set back keeps nobody quiet
    watches[0].look()
    assert len(ear.told) == 3
    assert (0.0, False) not in measured[3:] and any(alarm for _, alarm in measured)


def test_it_ends_when_the_traffic_is_as_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    traffic = Traffic()
    one = watch(tmp_path, "slot-0", traffic, None, [0.0])
    traffic.recent.extend(UNLIKE)
    assert one.look().alarm
    traffic.recent.extend(LIKE * 4)
    assert not one.look().alarm and "again" in caplog.records[-1].getMessage()
    assert not (tmp_path / "drift" / "told").exists()


def test_what_stands_is_read_by_others_and_only_of_the_scorer_in_use(tmp_path: Path) -> None:
    traffic = Traffic()
    traffic.recent.extend(UNLIKE)
    watch(tmp_path, "slot-0", traffic, None, [7.0]).look()
    (tmp_path / "drift" / "slot-1.json").write_text("no json")
    found = standings(tmp_path, now=1000.0)
    assert list(found) == ["slot-0"] and found["slot-0"]["alarm"] and found["slot-0"]["at"] == 7
    assert standings(tmp_path, "another day", now=1000.0) == {}
    assert list(standings(tmp_path, origin().made, now=1000.0)) == ["slot-0"]
    assert standings(tmp_path, now=4000.0) == {}  # that worker is gone
    assert "no longer like its calibration of 2026-02-03" in words(found["slot-0"])
    assert "100 % of it would ask" in words(found["slot-0"])
    assert words({"index": None, "seen": 3}) == "too few prompts to say (3)"


def test_a_worker_of_quiet_traffic_says_that_it_is_there(tmp_path: Path) -> None:
    now = [100.0]
    one = watch(tmp_path, "slot-0", Traffic(), None, now)
    one.look()
    for later in (500.0, 800.0, 5000.0):
        now[0] = later
        one.look()
    assert standings(tmp_path, now=5001.0)["slot-0"]["at"] == 5000


def test_the_message_holds_numbers_and_names_alone(tmp_path: Path) -> None:
    ear, traffic = Ear(), Traffic()
    traffic.recent.extend(UNLIKE)
    watch(tmp_path, "slot-4", traffic, ear, [50.0]).look()
    message = json.loads(body_of(ear.told[0]))
    assert (message["type"], message["timestamp"]) == ("complexity.drift", 50)
    assert message["data"]["worker"] == "slot-4" and message["data"]["index"] >= 0.25
    assert set(message["data"]) == {
        "index", "gap", "chance", "seen", "strong_share", "made", "calibrated", "calibrated_on", "worker", "text"
    }  # fmt: skip


def test_metrics_are_there_once_it_is_looked(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    telemetry = Telemetry(metrics=Metrics(registry), exporter=None, sample=0, version="1", worker=0)
    assert registry.get_sample_value("spillway_complexity_drift") is None
    traffic = Traffic()
    one = watch(tmp_path, "slot-0", traffic, None, [0.0], measure=telemetry.drift)
    one.look()
    assert registry.get_sample_value("spillway_complexity_drift_alarm") == 0
    traffic.recent.extend(UNLIKE)
    found = one.look()
    assert registry.get_sample_value("spillway_complexity_drift") == found.index
    assert registry.get_sample_value("spillway_complexity_drift_alarm") == 1


async def test_a_fault_of_its_own_is_said_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def broken() -> Drift:
        calls.append(1)
        raise RuntimeError("secret words")

    one = Watch(broken, origin(), tmp_path, "slot-0", every=1)
    task = asyncio.create_task(one.run(0.001))
    async with asyncio.timeout(20):
        while len(calls) < 5:
            await asyncio.sleep(0.005)
    task.cancel()
    said = [row.getMessage() for row in caplog.records]
    assert len(said) == 1 and "RuntimeError" in said[0] and "secret" not in said[0]


def test_health_tells_it_and_is_degraded_by_it() -> None:
    def body(drift: dict[str, Any] | None) -> Any:
        status, raw = health(draining=False, writable=True, waiting=0, serves_without=False, witnesses={}, drift=drift)
        assert status == 200
        return msgspec.json.decode(raw)

    assert "complexity" not in body(None) and "complexity" not in body({})
    row = {"alarm": True, "index": 0.4, "seen": 900, "strong_share": 0.6, "calibrated_on": "2026-02-03", "gap": 0.3}
    assert body(row)["status"] == "degraded"
    assert body(row)["complexity"] == {
        name: row[name] for name in ("alarm", "index", "seen", "strong_share", "calibrated_on")
    }
    assert body({**row, "alarm": False})["status"] == "ok"
