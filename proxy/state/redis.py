"""The budget store over Redis: one set of counters for the workers of several hosts.

Keys, all under one hash tag, so that a whole deployment (and with it every chain of scopes) lies in one cluster slot
and each call is one script (`redis_scripts`).  With the prefix "spillway":

    {spillway}:account:NAME|WINDOW   settled, held, and s:SLOT (what that slot's journal spent); expires with its window
    {spillway}:slices:SLOT           what is set aside for a slot: key of the account -> amount
    {spillway}:slot:SLOT             session, epoch, next (first record not settled), reply (of the last settlement)
    {spillway}:roster                slots by when they were last heard of (ms)
    {spillway}:missing               slots that a rebuild waits for
    {spillway}:meta                  master (which server), epoch, since (of the rebuild, ms), retired:SLOT
    {spillway}:overrides, {spillway}:claim:WHAT, {spillway}:confirm

**When Redis changes.**  Replication is asynchronous and a file may be synced late, so a promoted replica or a restarted
server may lack writes that were acknowledged: grants, which somebody is spending, and settlements.  Each script
compares the server's `run_id` and `master_replid` with those that the counters were made under.  Where they differ, all
slots that may have lost something are `missing`, and nothing is granted before each has given its part again
(`restore`, from its journal and its memory) or was retired by the operator.  What a slot had done that was silent by
then is in the copy already, where the copy is fresh, and it is not waited for.  Workers remember the other slots' names
(in memory and in a file), so that a server that lost everything is told for whom to wait.

**When a command is lost.**  A command whose answer did not come may still be acted on later.  So a lost connection ends
the slot's session: the next call begins another, and what the old one left behind is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from policies.budgets import Account, Ask, Granted, StoreFailed, StoreLost, StoreUnsure
from policies.windows import expires
from proxy.state import redis_scripts as scripts

try:
    import redis
except ImportError:
    raise ImportError("budgets in Redis need its client: pip install 'spillway[redis]'") from None

log = logging.getLogger("spillway")

TIMEOUT = 0.5
"""Seconds for a connection, and for an answer."""
PAUSE = 0.2
"""Seconds after a failure in which nothing is tried: what waits in the thread's queue is refused at once."""
GRACE = 5.0
"""Seconds after a change of server in which slots that it does not know may make themselves known."""
LAPSE = 86_400.0
"""Seconds of silence after which a slot counts as dead and what was set aside for it is free."""
FORGET = 40 * 86_400.0
"""Seconds of silence after which a slot is not waited for any more: longer than any window counts."""
_CONFIRM_MS = 250
_LIMIT = 1 << 63


class SlotState(msgspec.Struct, frozen=True):
    """What the store knows of a slot."""

    slot: str
    silent: float  # seconds since it was last heard of; a rebuild may wait for one that was never heard of: inf
    missing: bool  # nothing is granted until it has given its part again, or is retired
    held: dict[Account, int]


def connect(
    url: str, *, user: str | None = None, password: str | None = None, ca: str | None = None, cert: str | None = None,
    key: str | None = None,
) -> redis.Redis:  # fmt: skip
    """A client of redis://HOST:PORT/DB, or rediss:// over TLS.  It connects at the first call and never tries twice."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {"ssl_ca_certs": ca, "ssl_certfile": cert, "ssl_keyfile": key}
    return redis.Redis.from_url(
        url, username=user, password=password, protocol=2, decode_responses=True, max_connections=1,
        socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, socket_keepalive=True, retry=Retry(NoBackoff(), 0),
        retry_on_error=[], client_name="spillway", **(options if url.startswith("rediss:") else {}),
    )  # fmt: skip


class RedisBudgets:
    """See `policies.budgets.BudgetStore`.  One thread at a time may use an object.

    `memory` names a file that keeps the names of the slots seen, `grace` is in seconds.
    """

    def __init__(
        self, client: redis.Redis, prefix: str = "spillway", *, memory: Path | None = None, grace: float = GRACE,
        lapse: float = LAPSE,
    ) -> None:  # fmt: skip
        self._client = client
        self._prefix = f"{{{prefix}}}:"
        self._grace = str(int(grace * 1000))
        self._lapse = str(int(lapse * 1000))
        self._memory = memory
        self._known = _remembered(memory)
        configured = client.connection_pool.connection_kwargs
        self._home: tuple[str, int] = (configured["host"], configured["port"])
        self._sessions: dict[str, str] = {}
        self._unconfirmed: dict[
            str, int
        ] = {}  # by slot: replicas, one of which must have it before anything is granted
        self._fresh: set[str] = set()  # slots whose next settlement is their whole journal
        self._again_at = 0.0

    # --- what a slot does -----------------------------------------------------------------------------------

    def grant(self, slot: str, asks: Sequence[Ask]) -> list[Granted]:
        keys: list[str] = []
        arguments: list[str] = [self._grace]
        for ask in asks:
            keys += [self._account(account) for account in (ask.account, *ask.also)]
            arguments += [*_amounts(ask.limit, ask.want, ask.least), str(len(ask.also)), str(expires(ask.account[1]))]
        self._open(slot)
        self._confirm(slot)
        rows = self._call(slot, scripts.GRANT, keys, arguments)
        return [Granted(*(int(figure) for figure in row)) for row in rows]

    def give_back(self, slot: str, amounts: Mapping[Account, int]) -> None:
        self._call(slot, scripts.GIVE_BACK, map(self._account, amounts), _amounts(*amounts.values()))

    def hold(self, slot: str, outstanding: Mapping[Account, int]) -> None:
        self._call(slot, scripts.HOLD, map(self._account, outstanding), _amounts(*outstanding.values()))

    def release(self, slot: str) -> None:
        self._call(slot, scripts.RELEASE)

    def account(self, slot: str, upto: int, spent: Mapping[Account, int]) -> dict[Account, int]:
        if slot in self._fresh:
            self.restore(slot, upto, spent, {})
            return {}
        arguments = _amounts(upto + 1)
        for account, amount in spent.items():
            arguments += [*_amounts(amount), str(expires(account[1]))]
        accounts = list(spent)
        (reply,) = self._call(slot, scripts.ACCOUNT, map(self._account, accounts), arguments) or [""]
        unpaid = (part.split() for part in reply.split(",") if part)
        return {accounts[int(index)]: int(amount) for index, amount in unpaid}

    def accounted(self, slot: str) -> int:
        (following,) = self._call(slot, scripts.ACCOUNTED)
        if following == "0":
            self._fresh.add(slot)
        return int(following) - 1

    def restore(self, slot: str, upto: int, spent: Mapping[Account, int], outstanding: Mapping[Account, int]) -> None:
        accounts = [account for account in {**spent, **outstanding} if expires(account[1]) > time.time()]
        known = sorted(self._known - {slot})
        arguments = [*_amounts(upto + 1), str(len(known))]
        for account in accounts:
            parts = (_amounts(part[account])[0] if account in part else "" for part in (spent, outstanding))
            arguments += [*parts, str(expires(account[1]))]
        (replicas,) = self._call(slot, scripts.RESTORE, map(self._account, accounts), [*arguments, *known])
        self._unconfirmed[slot] = int(replicas)
        self._fresh.discard(slot)

    def _confirm(self, slot: str) -> None:
        """A server that is promoted must know every slot that may hold something: a replica has what there is now."""
        if not self._unconfirmed.get(slot):
            return
        with self._guard():
            pipeline = self._client.pipeline(transaction=False)  # WAIT is about the writes of its own connection
            pipeline.set(f"{self._prefix}confirm", slot)
            pipeline.wait(self._unconfirmed[slot], _CONFIRM_MS)
            _, confirmed = pipeline.execute()
        if not confirmed:
            raise StoreFailed("no replica of the budget store has confirmed this worker")
        del self._unconfirmed[slot]

    # --- for all slots --------------------------------------------------------------------------------------

    def usage(self, accounts: Sequence[Account]) -> list[tuple[int, int]]:
        with self._guard():
            pipeline = self._client.pipeline(transaction=False)
            for account in accounts:
                pipeline.hmget(self._account(account), "settled", "held")
            rows = pipeline.execute()
        return [(int(settled or 0), int(held or 0)) for settled, held in rows]

    def claim(self, what: str, until: int) -> bool:
        with self._guard(sent=True):
            return bool(self._client.set(f"{self._prefix}claim:{what}", "1", nx=True, exat=max(1, until)))

    def overrides(self) -> dict[str, int]:
        """Also the sign of life of the slots that this object serves."""
        for slot in list(self._sessions):
            (roster,) = self._call(slot, scripts.BEAT)
            self._remember(set(roster))  # what this one knew is in it: `restore` said so
        with self._guard():
            rows: dict[str, str] = self._client.hgetall(f"{self._prefix}overrides")  # type: ignore[assignment]
        return {what: int(limit) for what, limit in rows.items()}

    def override(self, what: str, limit: int | None) -> None:
        with self._guard(sent=True):
            if limit is None:
                self._client.hdel(f"{self._prefix}overrides", what)
            else:
                self._client.hset(f"{self._prefix}overrides", what, _amounts(limit)[0])

    def current(self, windows: Collection[str]) -> dict[Account, tuple[int, int]]:
        with self._guard():
            found = {
                self._named(key)
                for window in windows
                for key in self._client.scan_iter(f"{self._prefix}account:*|{window}", count=1000)
            }
        accounts = sorted(found)
        return dict(zip(accounts, self.usage(accounts), strict=True))

    def purge(self, now: int) -> None:
        """Slots silent for a day give back what was set aside for them.  Accounts expire by themselves."""
        with self._guard(sent=True):
            self._run(scripts.SWEEP, "", [], [self._prefix, self._lapse, str(int(FORGET * 1000))])

    def close(self) -> None:
        with contextlib.suppress(redis.RedisError, OSError):
            self._client.close()

    # --- for operators --------------------------------------------------------------------------------------

    def slots(self) -> list[SlotState]:
        """Every slot that the store knows, and whether a rebuild waits for it."""
        with self._guard():
            seconds, micros = self._client.time()
            now = seconds + micros / 1e6
            roster: Any = self._client.zrange(f"{self._prefix}roster", 0, -1, withscores=True)
            missing = self._client.smembers(f"{self._prefix}missing")
            return [
                SlotState(slot, now - seen / 1000 if seen else float("inf"), slot in missing, self._slices(slot))
                for slot, seen in roster
            ]

    def _slices(self, slot: str) -> dict[Account, int]:
        rows: dict[str, str] = self._client.hgetall(f"{self._prefix}slices:{slot}")  # type: ignore[assignment]
        return {self._named(key): int(amount) for key, amount in rows.items()}

    def retire(self, slot: str) -> bool:
        """The operator's word that a slot has stopped for good: its slices are free, it is not waited for.

        What it has settled, as far as this server knows, stays.  False: there is no such slot.
        """
        with self._guard(sent=True):
            (found,) = self._run(scripts.RETIRE, slot, [], [])[1:]
        self._remember(self._known - {slot})
        return bool(found)

    # --- sessions and failures ------------------------------------------------------------------------------

    def _account(self, account: Account) -> str:
        return f"{self._prefix}account:{account[0]}|{account[1]}"

    def _named(self, key: str) -> Account:
        name, _, window = key[len(self._prefix) + len("account:") :].partition("|")
        return name, window

    def _call(self, slot: str, script: str, keys: Iterable[str] = (), arguments: Sequence[str] = ()) -> list[Any]:
        """Run a slot's script in its session; what it answers after its first word."""
        listed = list(keys)
        for _ in range(2):  # a second time where the session had ended, in which case nothing was done
            self._open(slot)
            with self._guard(sent=True):
                word, *answer = self._run(script, slot, listed, arguments)
            if word == "ok":
                return answer
            if word != "fenced":
                raise self._refused(word, answer)
            self._sessions.pop(slot, None)
        raise StoreFailed(
            f"another process acts as {slot} in the budget store: each replica needs its own audit directory"
        )

    def _refused(self, word: str, answer: list[Any]) -> StoreFailed:
        if word == "lost":
            return StoreLost("the budget store was changed or restarted; its counters are rebuilt from the ledger")
        if answer[0]:
            return StoreFailed(
                f"the budget store waits for what {', '.join(answer[0])} spent; start it, or retire it if it is gone"
            )
        return StoreFailed("the budget store was changed or restarted, and waits for workers to make themselves known")

    def _open(self, slot: str) -> None:
        if slot in self._sessions:
            return
        session = secrets.token_hex(8)
        with self._guard():
            _, policy, replicas = self._run(scripts.OPEN, slot, [], [], session=session)
        if policy != "noeviction":
            raise StoreFailed(f"the budget store may drop keys ({policy}): set its maxmemory-policy to noeviction")
        self._sessions[slot] = session
        self._unconfirmed[slot] = int(replicas)

    def _run(
        self, script: str, slot: str, keys: list[str], arguments: Sequence[str], *, session: str | None = None
    ) -> list[Any]:
        fixed = ["meta", "roster", "missing", f"slot:{slot}", f"slices:{slot}"]
        given = [
            *(f"{self._prefix}{name}" for name in fixed), *keys,
            slot, session or self._sessions.get(slot, ""), secrets.token_hex(8), *arguments,
        ]  # fmt: skip
        count = len(fixed) + len(keys)
        try:
            found = self._client.evalsha(_sha(script), count, *given)
        except redis.exceptions.NoScriptError:
            found = self._client.eval(script, count, *given)
        answer: list[Any] = found
        return answer

    @contextlib.contextmanager
    def _guard(self, *, sent: bool = False) -> Iterator[None]:
        """`sent`: where no answer comes, what was asked for may have been done."""
        if time.monotonic() < self._again_at:
            raise StoreFailed("the budget store could not be reached a moment ago")
        try:
            yield
        except redis.exceptions.MovedError as error:  # a cluster; one node has all the keys
            self._lose()
            self._go_to(error.host, error.port)
            raise StoreFailed("the budget store lies on another node of its cluster, which is asked next") from None
        except redis.exceptions.ResponseError as error:  # it answered: no
            if isinstance(error, redis.exceptions.ReadOnlyError):  # a replica now: find the master anew
                self._lose()
            raise StoreFailed(f"the budget store refused: {_words(error)}") from None
        except (redis.exceptions.RedisError, OSError) as error:
            self._lose()
            self._go_to(*self._home)
            raise (StoreUnsure if sent else StoreFailed)(f"the budget store failed: {_words(error)}") from None

    def _lose(self) -> None:
        """Nothing of the old connection counts any more."""
        self._sessions.clear()
        self._again_at = time.monotonic() + PAUSE
        with contextlib.suppress(redis.RedisError, OSError):
            self._client.connection_pool.disconnect()

    def _go_to(self, host: str, port: int) -> None:
        """Where the next connection goes: at first, and after a failure, to the configured address."""
        pool = self._client.connection_pool
        if (host, port) != (pool.connection_kwargs["host"], pool.connection_kwargs["port"]):
            pool.connection_kwargs.update(host=host, port=port)
            pool.reset()

    # --- the other slots' names -----------------------------------------------------------------------------

    def _remember(self, slots: set[str]) -> None:
        if slots == self._known:
            return
        self._known = slots
        if self._memory is None:
            return
        fresh = self._memory.with_name(f"{self._memory.name}.{os.getpid()}")
        try:
            fresh.write_bytes(msgspec.json.encode(sorted(self._known)))
            fresh.replace(self._memory)
        except OSError as error:
            log.warning("cannot remember the slots of the budget store: %s", error.strerror)


def _remembered(memory: Path | None) -> set[str]:
    try:
        return msgspec.json.decode(memory.read_bytes(), type=set[str]) if memory is not None else set()
    except (OSError, msgspec.DecodeError):
        return set()


_SHAS: dict[str, str] = {}


def _sha(script: str) -> str:
    """The name that Redis gives a script; no secret depends on it."""
    if script not in _SHAS:
        _SHAS[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    return _SHAS[script]


def _amounts(*amounts: int) -> list[str]:
    if any(not 0 <= amount < _LIMIT for amount in amounts):
        raise StoreFailed("an amount does not fit into 64 bits")
    return [str(amount) for amount in amounts]


def _words(error: Exception) -> str:
    """The error's kind, and of an answer its first word: never an address or a value."""
    said = str(error).split(" ", 1)[0] if isinstance(error, redis.exceptions.ResponseError) else ""
    return f"{type(error).__name__} {said}".strip()
