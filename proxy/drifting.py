"""The drift alarm: is what a worker's decisions ask about still like what the scorer was calibrated on?

Each worker watches its own latest prompts (`proxy.complexity_models.RECENT` of them) and writes down where they stand in
`drift/` of the state directory, for `explain` and `calibrate --status`.  The alarm is a line of the log when it begins
and when it ends, a metric, a word in `GET /health`, and one signed message a period to `alerts:`, whichever worker is
the first.  Numbers only; no prompt is kept.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.alerts import Alerts, Notice

if TYPE_CHECKING:
    from policies.drift import Drift
    from policies.gain import Origin

log = logging.getLogger("spillway")

FOLDER = "drift"
LOOK = 30.0
"""Seconds between two looks; each costs a worker some tenth of a millisecond, in a thread."""
REFRESH = 600.0
"""Seconds after which a worker writes down again where it stands, though nothing has changed."""
STALE = 3600.0
"""Seconds after which what a worker wrote down says nothing any more: it is gone."""
_TOLD = "told"


class Watch:
    """One worker's.  `look` blocks for two small files: it is for a thread."""

    def __init__(
        self,
        drift: Callable[[], Drift],
        origin: Origin,
        state: Path,
        slot: str,
        *,
        every: float,
        alerts: Alerts | None = None,
        measure: Callable[[float | None, bool], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`every`: seconds between two messages to `alerts`, which run.  `measure` gets the index and the alarm for metrics."""
        self._drift = drift
        self._origin = origin
        self._folder = state / FOLDER
        self._slot = slot
        self._every = every
        self._alerts = alerts
        self._measure = measure
        self._clock = clock
        self._last: Drift | None = None
        self._trouble = False
        self.standing: dict[str, Any] = {}  # as of the last look; replaced as a whole

    async def run(self, pause: float = LOOK) -> None:
        """Until cancelled.  A fault of its own is said once, and harms no request."""
        while True:
            await asyncio.sleep(pause)
            try:
                await asyncio.to_thread(self.look)
                self._trouble = False
            except Exception as error:  # noqa: BLE001  whatever fails here, requests do not suffer from it
                if not self._trouble:
                    log.error("the drift of complexity is not watched: %s", type(error).__name__)
                self._trouble = True

    def look(self) -> Drift:
        """Compare, and tell what has changed."""
        found = self._drift()
        now = self._clock()
        if found == self._last and 0 <= now - self.standing["at"] < REFRESH:
            if found.alarm:
                self._ring(found)
            return found
        before, self._last = self._last, found
        self.standing = {
            "alarm": found.alarm, "index": found.index, "gap": found.gap, "chance": found.chance, "seen": found.seen,
            "strong_share": found.strong_share, "at": int(now), "made": self._origin.made,
            "calibrated": self._origin.calibrated, "calibrated_on": self._origin.calibrated_on,
        }  # fmt: skip
        if self._measure is not None:
            self._measure(found.index, found.alarm)
        if found.alarm and (before is None or not before.alarm):
            log.warning("%s: %s", self._slot, words(self.standing))
        elif before is not None and before.alarm and not found.alarm:
            log.warning("%s: complexity's traffic is like its calibration's again", self._slot)
        self._write()
        if found.alarm:
            self._ring(found)
        return found

    def close(self) -> None:
        """What is to be told is tried once more.  Blocks."""
        if self._alerts is not None:
            self._alerts.close()

    def _write(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        fresh = self._folder / f"{self._slot}.{os.getpid()}"
        fresh.write_text(json.dumps(self.standing))
        fresh.replace(self._folder / f"{self._slot}.json")

    def _ring(self, found: Drift) -> None:
        """One message a period over all workers of the state directory: the first of them sends it."""
        if self._alerts is None:
            return
        now = self._clock()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with open(self._folder / _TOLD, "a+", encoding="ascii") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            turn.seek(0)
            last = _number(turn.read())
            if last is not None and last <= now < last + self._every:
                return
            turn.seek(0)
            turn.truncate()
            turn.write(str(now))
        data = {name: value for name, value in self.standing.items() if name not in ("alarm", "at")}
        self._alerts.tell(
            Notice(
                id=f"complexity.drift|{self._origin.made}|{self._origin.calibrated_on}|{int(now)}", at=int(now),
                type="complexity.drift", about="the alarm of complexity's drift",
                data={**data, "worker": self._slot, "text": words(self.standing)},
            )
        )  # fmt: skip


def standings(state: Path, made: str | None = None, *, now: float | None = None) -> dict[str, dict[str, Any]]:
    """Where each worker stood when it last looked, by its slot; `made`: only of the scorer of that day.  What is `STALE` is
    left out."""
    now = time.time() if now is None else now
    found = {}
    for path in sorted((state / FOLDER).glob("slot-*.json")):
        try:
            row = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if not isinstance(row, dict) or not isinstance(row.get("at"), int) or now - row["at"] > STALE:
            continue
        if made is None or row.get("made") == made:
            found[path.stem] = row
    return found


def words(row: dict[str, Any]) -> str:
    """A standing, for people."""
    if row.get("index") is None:
        return f"too few prompts to say ({row.get('seen', 0)})"
    share = row.get("strong_share")
    now = f"; {100 * share:.0f} % of it would ask the strong model now" if isinstance(share, (int, float)) else ""
    figures = f"index {row['index']:.2f} over the last {row['seen']:,} prompts{now}"
    if row.get("alarm"):
        return f"complexity's traffic is no longer like its calibration of {row.get('calibrated_on')}: {figures}; calibrate anew"
    return f"like the calibration of {row.get('calibrated_on')}: {figures}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
