"""Law 3 over a real Redis whose answers get lost, whose commands come late, and which forgets what it had acknowledged.

The machine does what workers do around the store: it asks, spends, settles, gives back, is killed and recovers, each
call rightly put straight where no answer came.  The server meanwhile is flushed, promoted, or set back to an earlier
state.  What was spent and what can still be spent stays within the limit at every step; and when all is quiet, the
counters are what the journals and the memories say, to the pico-dollar.
"""

from __future__ import annotations

import contextlib
import datetime
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis_server import RedisServer, redis_server

from policies.budgets import Account, Ask, StoreFailed, StoreLost, StoreUnsure
from proxy.state.redis import RedisBudgets, connect

YEAR = datetime.date.today().year + 1
MONTH: Account = ("org", f"{YEAR}-11")
DAY: Account = ("team/radiology", f"{YEAR}-11-24")
LIMITS = {MONTH: (1 << 53) + 1_001, DAY: 700}
SCALE = {MONTH: 1 << 43, DAY: 1}  # a thousand of them are the limit, in steps that doubles could not tell apart
SLOTS = ("one/slot-0", "one/slot-1", "two/slot-0")
FAULTS = st.sampled_from(["", "", "", "", "unheard", "lost", "late"])


class Faulty:
    """A client whose next script goes wrong: done but unheard, never sent, or done only after what comes next."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.fault = ""
        self.late: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def evalsha(self, *words: Any) -> Any:
        fault, self.fault = self.fault, ""
        if fault == "unheard":
            with contextlib.suppress(redis.exceptions.NoScriptError):
                self._client.evalsha(*words)
        if fault == "late":
            self.late.append(words)
        if fault:
            raise redis.exceptions.TimeoutError("no answer")
        return self._client.evalsha(*words)

    def deliver(self) -> None:
        for words in self.late:
            with contextlib.suppress(redis.RedisError):
                self._client.evalsha(*words)
        self.late.clear()


class Slot:
    """One worker: what it may spend, its journal, and which calls nobody answered."""

    def __init__(self, name: str, url: str, memory: Path) -> None:
        self.name = name
        self.client = Faulty(connect(url))
        self.store = RedisBudgets(self.client, grace=0, memory=memory)  # type: ignore[arg-type]
        self.journal: list[tuple[Account, int]] = []
        self.forget()
        self.up = False

    def forget(self) -> None:
        self.free = dict.fromkeys(LIMITS, 0)
        self.accounted = 0  # records that the store has settled, as far as is known here
        self.asked: tuple[int, dict[Account, int]] | None = None  # a settlement without an answer
        self.unsure = False

    def spent(self, start: int = 0, stop: int | None = None) -> dict[Account, int]:
        sums: dict[Account, int] = {}
        for account, amount in self.journal[start:stop]:
            sums[account] = sums.get(account, 0) + amount
        return sums

    def owed(self) -> dict[Account, int]:
        unsettled = self.spent(self.accounted)
        return {account: self.free[account] + unsettled.get(account, 0) for account in LIMITS}


class Redis(RuleBasedStateMachine):
    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.admin = redis.Redis(port=self.server.port)
        self.admin.flushall()
        self.copy: dict[bytes, tuple[bytes, int]] = {}
        self.slots = {name: Slot(name, self.server.url, Path(self.root.name, name[:3])) for name in SLOTS}
        for slot in self.slots.values():
            self.start(slot)

    def teardown(self) -> None:
        for slot in self.slots.values():
            slot.store.close()
        self.admin.close()
        self.root.cleanup()

    def calling(self, slot: Slot, fault: str, call: Callable[[], None]) -> None:
        """A call as the store's thread makes it; it repeats and restores what went before, first."""
        slot.client.fault = fault
        slot.store._again_at = 0.0
        try:
            if slot.asked is not None:
                slot.store.account(slot.name, *slot.asked)
                slot.accounted, slot.asked = slot.asked[0] + 1, None
            if slot.unsure:
                slot.store.hold(slot.name, slot.owed())
                slot.unsure = False
            call()
        except StoreLost:
            slot.client.fault = ""
            slot.store._again_at = 0.0
            self.restore(slot)
        except StoreUnsure:
            slot.unsure = True
        except StoreFailed:
            pass
        slot.client.fault = ""

    def restore(self, slot: Slot) -> None:
        slot.store.restore(slot.name, len(slot.journal) - 1, slot.spent(), slot.free)
        slot.accounted, slot.asked, slot.unsure = len(slot.journal), None, False

    def start(self, slot: Slot) -> None:
        slot.store._again_at = 0.0
        with contextlib.suppress(StoreFailed):  # tried again later
            done = slot.store.accounted(slot.name) + 1
            slot.store.account(slot.name, len(slot.journal) - 1, slot.spent(done))
            slot.store.release(slot.name)
            slot.forget()
            slot.accounted = len(slot.journal)
            slot.up = True

    # --- what workers do ------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(SLOTS), account=st.sampled_from(list(LIMITS)), want=st.integers(1, 600), least=st.integers(1, 400),
          odd=st.integers(0, 3), fault=FAULTS)  # fmt: skip
    def grant(self, name: str, account: Account, want: int, least: int, odd: int, fault: str) -> None:
        slot = self.slots[name]
        least = least * SCALE[account] + odd
        want = max(least, want * SCALE[account])

        def call() -> None:
            (row,) = slot.store.grant(name, [Ask(account, LIMITS[account], want, least)])
            assert row.settled + row.held <= LIMITS[account]
            slot.free[account] += row.amount

        if slot.up:
            self.calling(slot, fault, call)

    @rule(name=st.sampled_from(SLOTS), account=st.sampled_from(list(LIMITS)), amount=st.integers(1, 100), part=st.integers(1, 100),
          fault=FAULTS)  # fmt: skip
    def work(self, name: str, account: Account, amount: int, part: int, fault: str) -> None:
        self.grant(name, account, amount, amount, 1, "")
        self.spend(name, part)
        self.settle(name, fault)

    @rule(name=st.sampled_from(SLOTS), part=st.integers(1, 100))
    def spend(self, name: str, part: int) -> None:
        slot = self.slots[name]
        for account, free in slot.free.items() if slot.up else ():
            if amount := free * part // 100:
                slot.free[account] -= amount
                slot.journal.append((account, amount))

    def settle(self, name: str, fault: str) -> None:
        slot = self.slots[name]

        def call() -> None:
            slot.asked = (len(slot.journal) - 1, slot.spent(slot.accounted))
            assert slot.store.account(name, *slot.asked) == {}
            slot.accounted, slot.asked = len(slot.journal), None

        if slot.up:
            self.calling(slot, fault, call)

    @rule(name=st.sampled_from(SLOTS), account=st.sampled_from(list(LIMITS)), part=st.integers(1, 100), fault=FAULTS)
    def give_back(self, name: str, account: Account, part: int, fault: str) -> None:
        slot = self.slots[name]
        amount = slot.free[account] * part // 100

        def call() -> None:
            slot.free[account] -= amount
            slot.unsure = True
            slot.store.give_back(name, {account: amount})
            slot.unsure = False

        if slot.up:
            self.calling(slot, fault, call)

    @rule(name=st.sampled_from(SLOTS))
    def kill(self, name: str) -> None:
        slot = self.slots[name]
        slot.up = False
        slot.client.late.clear()
        slot.store.close()
        slot.store = RedisBudgets(slot.client, grace=0, memory=slot.store._memory)  # type: ignore[arg-type]

    @rule(name=st.sampled_from(SLOTS))
    def start_again(self, name: str) -> None:
        if not self.slots[name].up:
            self.start(self.slots[name])

    def heartbeat(self, name: str) -> None:
        if self.slots[name].up:
            self.calling(self.slots[name], "", lambda: self.slots[name].store.overrides() and None)

    @rule(name=st.sampled_from(SLOTS))
    def late_commands_arrive(self, name: str) -> None:
        self.slots[name].client.deliver()

    # --- what happens to the server -------------------------------------------------------------------------

    @rule()
    def copied(self) -> None:
        """What a replica would have."""
        self.copy = {key: (self.admin.dump(key), self.admin.expiretime(key)) for key in self.admin.scan_iter()}

    @rule(back=st.sampled_from(["all", "copy", "nothing"]), really=st.integers(0, 3))
    def failed_over(self, back: str, really: int) -> None:
        if really:
            return
        if back != "all":
            self.admin.flushall()
        if back == "copy":
            for key, (value, until) in self.copy.items():
                self.admin.restore(key, until * 1000 if until > 0 else 0, value, absttl=until > 0)
        self.admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        self.admin.execute_command("REPLICAOF", "NO", "ONE")

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def law_03_what_is_spent_and_what_can_be_stays_within_the_limit(self) -> None:
        for account, limit in LIMITS.items():
            spent = sum(slot.spent().get(account, 0) for slot in self.slots.values())
            assert spent + sum(slot.free[account] for slot in self.slots.values()) <= limit

    @rule()
    def law_03_when_all_is_quiet_the_counters_are_the_journals_and_the_memories(self) -> None:
        for _ in range(3):  # one restores, which another waits for
            for slot in self.slots.values():
                self.settle(slot.name, "") if slot.up else self.start(slot)
                self.heartbeat(slot.name)
                slot.client.deliver()
        assert all(slot.up for slot in self.slots.values())
        for account, limit in LIMITS.items():
            spent = sum(slot.spent().get(account, 0) for slot in self.slots.values())
            free = sum(slot.free[account] for slot in self.slots.values())
            last = self.slots[SLOTS[2]]
            assert last.store.usage([account]) == [(spent, free)]
            assert limit >= spent + free
            if left := limit - spent - free:  # no refusal is for ever
                (row,) = last.store.grant(last.name, [Ask(account, limit, left, left)])
                assert row.amount == left
                assert last.store.grant(last.name, [Ask(account, limit, 1, 1)])[0].amount == 0
                last.store.give_back(last.name, {account: left})


def test_law_03_over_redis_that_loses_answers_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.state.redis.TIMEOUT", 10.0)  # a busy machine is no fault
    with redis_server(tmp_path, fsync=None) as server:
        monkeypatch.setattr(Redis, "server", server, raising=False)
        run_state_machine_as_test(Redis, settings=settings(stateful_step_count=50))
