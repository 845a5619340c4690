"""What is known of the engines: who is up, who is busy.  Kept by attempts and probes, read by decisions.

Each origin (replica) has a circuit breaker: after `THRESHOLD` failures in a row it is left out for a pause
that doubles up to `LONGEST_PAUSE`; then one attempt or probe may try it (half open).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engines.model import Target

THRESHOLD = 3
FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 30.0


class Origin:
    """One replica's state."""

    __slots__ = ("_pause", "failures", "in_flight", "open_until", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = 0
        self.failures = 0
        self.open_until = 0.0
        self._pause = FIRST_PAUSE

    def usable(self, now: float) -> bool:
        return self.failures < THRESHOLD or now >= self.open_until

    def succeeded(self) -> None:
        self.failures = 0
        self._pause = FIRST_PAUSE

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.failures >= THRESHOLD:
            self.open_until = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)


class EngineState:
    """One engine: its replicas and how much it is doing for this worker."""

    __slots__ = ("concurrency", "in_flight", "name", "origins")

    def __init__(self, name: str, origins: Iterable[str], concurrency: int | None) -> None:
        self.name = name
        self.origins = tuple(Origin(url) for url in origins)
        self.concurrency = concurrency
        self.in_flight = 0

    def healthy(self, now: float) -> bool:
        for origin in self.origins:  # noqa: SIM110  a generator costs twice as much
            if origin.failures < THRESHOLD or now >= origin.open_until:
                return True
        return False

    def saturated(self) -> bool:
        return self.concurrency is not None and self.in_flight >= self.concurrency

    def pick(self, now: float) -> Origin | None:
        """The usable replica with the least in flight."""
        origins = self.origins
        if len(origins) == 1:
            return origins[0] if origins[0].usable(now) else None
        usable = [origin for origin in origins if origin.usable(now)]
        return min(usable, key=lambda origin: origin.in_flight) if usable else None


class Fleet:
    """Every engine's state, by name."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._engines: dict[str, EngineState] = {}
        for target in targets:
            if target.engine not in self._engines:
                self._engines[target.engine] = EngineState(target.engine, target.origins, target.concurrency)

    def __getitem__(self, engine: str) -> EngineState:
        return self._engines[engine]

    def __iter__(self) -> Iterator[EngineState]:
        return iter(self._engines.values())
