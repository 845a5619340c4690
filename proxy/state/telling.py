"""A threshold that was reached -> a record in the log, and a message to whoever is to know."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from compliance.journal import JournalError
from compliance.records import BudgetAlert
from policies.scopes import UNITS
from proxy.alerts import Alert, Alerts

if TYPE_CHECKING:
    from proxy.state.leases import Share


class Log(Protocol):
    """Where records go."""

    def append(self, record: Any) -> int: ...


class Telling:
    """Called once for each threshold over all workers, from the clerk's thread (`proxy.state.clerk.OnAlert`)."""

    def __init__(self, log: Log, alerts: Alerts | None) -> None:
        self._log = log
        self._alerts = alerts
        if alerts is not None:
            alerts.start()

    def __call__(self, share: Share, percent: int | None, settled: int, ahead: int) -> None:
        name, window = share.account
        at = time.time_ns() // 1000
        threshold = "forecast" if percent is None else str(percent)
        record = BudgetAlert(
            at=at, forecast=ahead, limit=share.limit, scope=name, settled=settled, threshold=threshold, window=window
        )
        try:
            self._log.append(record)
        except JournalError:
            pass  # the journal has said so; who is to know is told all the same
        if self._alerts is not None:
            begins = share.start if not share.also else share.end - (share.end - share.start) * len(share.also)
            self._alerts.tell(
                Alert(
                    id=f"{name}|{window}|{threshold}|{share.limit}", at=at // 1_000_000, scope=name.partition("#")[0],
                    window=window, unit=UNITS[share.unit], threshold=threshold, limit=share.limit, spent=settled,
                    forecast=ahead, begins=int(begins), ends=int(share.end),
                )
            )  # fmt: skip

    def close(self) -> None:
        """What waits is tried once more."""
        if self._alerts is not None:
            self._alerts.close()
