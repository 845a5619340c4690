"""Law 3 over whole workers: their threads, a store that fails in every way, and time that passes.

Two workers on one SQLite file.  Each call of the store may fail before it is carried out, or after (no answer came); in the
end it works again, and then everything must add up to the pico-dollar.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from outcomes import outcome

from policies.budgets import REQUESTS, TOKENS, Account, StoreFailed, StoreUnsure
from policies.scopes import Budget
from policies.slices import Hold
from policies.windows import expires, window_at
from proxy.auth import Principal
from proxy.state.charges import scope_labels, spent_by
from proxy.state.leases import BudgetExceeded, BudgetUnavailable, Leases
from proxy.state.sqlite import SQLiteBudgets

BUDGETS = (
    Budget("org", "month", 4_000),
    Budget("team/heart", "day", 1_500),
    Budget("each team", "r3600", 1_200),
    Budget("each key", "hour", 2_000, TOKENS, everywhere=True),
    Budget("each user", "minute", 6, REQUESTS, everywhere=True),
)
CALLERS = [Principal("k1", "a", team="heart"), Principal("k2", "b", team="heart"), Principal("k3", "c", team="eyes")]
MUTATING = ("grant", "give_back", "account", "hold", "release")
CALM = st.just("")
FATES = st.lists(st.one_of(CALM, CALM, CALM, st.sampled_from(["before", "unsure", "after"])), max_size=60)


class Store(SQLiteBudgets):
    """Fails as its fates say, one for each call that changes something; after the last it works."""

    def __init__(self, path: Path, fates: Iterator[str]) -> None:
        super().__init__(path)
        self._db.execute("PRAGMA synchronous=OFF")
        for name in MUTATING:
            setattr(self, name, self._fated(getattr(self, name), fates))

    def _fated(self, call: Callable[..., Any], fates: Iterator[str]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            fate = next(fates, "")
            if fate in ("before", "unsure"):
                raise (StoreFailed if fate == "before" else StoreUnsure)("no")
            found = call(*arguments)
            if fate == "after":
                raise StoreUnsure("no answer")
            return found

        return run


class Worker:
    def __init__(self, path: Path, name: str, fates: Iterator[str]) -> None:
        self.log: list[Any] = []
        self.told = 0
        self.open: list[Hold] = []
        self.leases = Leases(
            Store(path, fates), name, BUDGETS, asyncio.get_running_loop(),
            history=lambda start: [one for one in self.log[: self.told] if one.seq >= start],
        )  # fmt: skip
        self.leases.start()

    async def reserve(self, who: Principal, amount: int, local: bool) -> None:
        try:
            self.open.append(await self.leases.reserve(who, "u1", (0 if local else amount, amount, 1), local=local))
        except (BudgetExceeded, BudgetUnavailable):
            pass

    def end(self, part: int) -> None:
        if not self.open:
            return
        hold = self.open.pop(0)
        seq = len(self.log)
        cost, tokens = (amount * part // 100 for amount in hold.amounts[:2])
        self.leases.settle(hold, (cost, tokens, 1), outcome=("r", seq))
        self.log.append(outcome("r", seq, seq=seq, cost=cost, output=tokens, scopes=tuple(scope_labels(hold))))

    async def durable(self) -> None:
        fresh, self.told = self.log[self.told :], len(self.log)
        if fresh:
            await asyncio.to_thread(self.leases.on_durable, fresh)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 1), st.sampled_from(CALLERS), st.integers(1, 700), st.booleans()),
        st.tuples(st.just("end"), st.integers(0, 1), st.integers(0, 100)),
        st.tuples(st.just("durable"), st.integers(0, 1)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.02])),
        st.tuples(st.just("time"), st.sampled_from([30, 600, 3_600, 90_000])),
    ),
    min_size=5, max_size=40,
)  # fmt: skip


@given(STEPS, FATES)
@settings(max_examples=25)
def test_law_03_whole_workers_over_a_store_that_fails(steps: list[tuple[Any, ...]], fates: list[str]) -> None:
    asyncio.run(run(steps, iter(fates)))


async def run(steps: list[tuple[Any, ...]], fates: Iterator[str]) -> None:
    real, passed = time.time, [0.0]
    with (
        tempfile.TemporaryDirectory() as directory,
        patch("time.time", lambda: 1_793_000_000.0 + passed[0] + real() % 1),
        patch("proxy.state.clerk.SETTLE_INTERVAL", 0.005),
        patch("proxy.state.clerk.LOOK_INTERVAL", 0.01),
        patch("proxy.state.clerk.RETRY_PAUSE", 0.001),
        patch("proxy.state.leases.REFUSED_SECONDS", 0.0),
        patch("proxy.state.leases.WAIT_SECONDS", 30.0),
        patch("proxy.state.clerk.log.warning", lambda *_: None),
    ):
        path = Path(directory) / "budgets.db"
        watch = SQLiteBudgets(path)
        workers = [Worker(path, f"slot-{number}", fates) for number in range(2)]
        for step in steps:
            if step[0] == "reserve":
                await workers[step[1]].reserve(*step[2:])
            elif step[0] == "end":
                workers[step[1]].end(step[2])
            elif step[0] == "durable":
                await workers[step[1]].durable()
            elif step[0] == "wait":
                await asyncio.sleep(step[1])
            else:
                passed[0] += step[1]
            check(watch)
        for worker in workers:
            while worker.open:
                worker.end(0)
            await worker.durable()
        for _ in fates:  # the store is well again
            pass
        spent = spent_by([record for worker in workers for record in worker.log])
        async with asyncio.timeout(60):
            while any(watch.usage([account])[0][0] != amount for account, amount in spent.items()):
                await asyncio.sleep(0.01)
            while not in_step(watch, workers):  # what the store has set aside is what the workers have
                await asyncio.sleep(0.01)
        for worker in workers:
            await asyncio.to_thread(worker.leases.close)
        check(watch)
        rows = watch._db.execute(
            "SELECT scope, window, sum(settled), sum(outstanding) FROM shares GROUP BY 1, 2"
        ).fetchall()
        assert {(scope, window): settled for scope, window, settled, _ in rows if settled} == {
            a: n for a, n in spent.items() if n
        }
        assert all(held == 0 for *_, held in rows)  # no hold is leaked
        watch.close()


def in_step(watch: SQLiteBudgets, workers: list[Worker]) -> bool:
    """Of accounts that are about to expire, and whose attempts are still open, workers know nothing any more."""
    owed: dict[Account, int] = {}
    for worker in workers:
        for account, amount in worker.leases.book.owed().items():
            owed[account] = owed.get(account, 0) + amount
    rows = watch._db.execute("SELECT scope, window, sum(outstanding) FROM shares GROUP BY 1, 2").fetchall()
    live = [row for row in rows if expires(row[1]) - 140_000 > time.time()]
    return all(held == owed.get((scope, window), 0) for scope, window, held in live)


def check(watch: SQLiteBudgets) -> None:
    """Settled and held are within every limit, a rolling one over each of its windows.

    A local attempt goes on where the store cannot be asked: its tokens and requests are charged past the limit then.
    """
    rows = watch._db.execute(
        "SELECT scope, window, sum(settled), sum(outstanding) FROM shares GROUP BY 1, 2"
    ).fetchall()
    figures = {(scope, window): (settled, held) for scope, window, settled, held in rows}
    limits = {"org": 4_000, "team/heart": 1_500}
    for (scope, window), (settled, held) in figures.items():
        if "#" in scope:
            assert held <= 2_000
        elif window.startswith("r"):
            length, number = 3_600, int(window.partition("@")[2])
            found = window_at(f"r{length}", number * length / 30 + 1)
            assert found.id == window
            assert sum(sum(figures.get((scope, one), (0, 0))) for one in (window, *found.earlier)) <= 1_200
        else:
            assert settled + held <= limits[scope]
