"""What the commands over the ledger share: which period is asked for, against what, and the books opened for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from proxy.terminal import database, fail, say

if TYPE_CHECKING:
    from proxy.books import Books
    from proxy.config import Settings
    from proxy.finance import Against

SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", "--from", help="The first day, such as 2026-01-01, a moment (2026-01-01T12:00), or so long ago: 30d."
    ),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", "--to", help="The last day, included, or a moment. Default: now.")
]
WindowOption = Annotated[
    str | None, typer.Option(help="month, day or hour of the calendar, or a duration such as 30d, until now.")
]
ZoneOption = Annotated[
    str | None, typer.Option("--tz", help="Whose days and months: such as Europe/Vienna. Default: UTC.")
]
AgainstOption = Annotated[
    str | None, typer.Option(help="The API that local answers are compared with, such as openai/gpt-4o.")
]


class Asked(NamedTuple):
    """A period as it was typed."""

    window: str | None
    since: str | None
    until: str | None
    zone: str | None = None

    @property
    def stated(self) -> bool:
        return any((self.window, self.since, self.until))


@contextlib.contextmanager
def books(settings: Settings, asked: Asked, against: str | None) -> Iterator[tuple[Books, tuple[int, int]]]:
    """The ledger of a state directory, open, and the period that was asked for."""
    from proxy.books import Books
    from proxy.periods import zone_of
    from proxy.quantities import Wrong

    compared = price_against(settings, against) if against is not None else None
    path = Path(settings.state.dir) / "ledger.db"
    if not path.exists():
        fail(f"there is no ledger at {path}; nothing was served from this state directory yet", 1)
    with database(path):
        try:
            zone = zone_of(asked.zone)
            name = asked.zone or "UTC"
            opened = Books(
                path,
                settings,
                now=time.time_ns() // 1000,
                zone=zone,
                zone_name="UTC" if name.upper() == "UTC" else name,
                against=compared,
            )
        except Wrong as wrong:
            fail(f"{wrong}; {wrong.hint}", 2)
        try:
            yield opened, opened.span(asked.window, asked.since, asked.until)
        except Wrong as wrong:
            fail(f"{wrong}; {wrong.hint}", 2)
        finally:
            opened.close()


def rebuilt(settings: Settings) -> None:
    """The ledger made anew from every log of this host, of workers that run no more, too; not while it is in use."""
    import fcntl

    from compliance.journal import read, slots
    from proxy.instance import instance_name
    from proxy.projections.ledger import rebuild

    logs, state = Path(settings.audit.dir), Path(settings.state.dir)
    found = slots(logs)
    if not found:
        fail(f"there are no logs in {logs}", 1)
    state.mkdir(parents=True, exist_ok=True)
    with database(state / "ledger.db"), open(state / "lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(f"a Spillway uses the state directory {state}; stop it first: it writes to the ledger", 1)
        name = instance_name(logs)
        count = rebuild(state / "ledger.db", ((f"{name}/{log.name}", read(log)) for log in found))
    say(f"{count:,} lines from {len(found)} logs", "dim")


def price_against(settings: Settings, name: str) -> Against:
    """The counterfactual of that name; the end, where it has no price."""
    from proxy.books import counterfactual
    from proxy.config_errors import nearest
    from proxy.prices import known_names

    found = counterfactual(settings, name)
    if found is None:
        fail(f"{name!r} has no price; {nearest(name, known_names(settings))}", 2)
    return found


def written(path: Path, write: Callable[[Path], object], what: str) -> None:
    """A file beside what is printed; a line on standard error says so."""
    from proxy.parquet import NoDuckDB

    try:
        write(path)
    except NoDuckDB as missing:
        fail(str(missing), 1)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror or error}", 1)
    say(f"{what} in {path}", "dim")
