"""Which records of the logs a command is about: its options, declared once, and the index that answers.

`with_choice` gives a command the options below; it gets them as one `Choice`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import sqlite3
import tempfile
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.cli_log import now
from proxy.terminal import fail, say

if TYPE_CHECKING:
    from compliance.lookup import Query
    from proxy.config import Settings
    from proxy.projections.audit_index import AuditIndex

INDEX = "audit-index.db"
_SLOW = 50_000
"""Records that are not in the index yet from which a look says that it takes a while."""
_AGO = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LAST_DAY = datetime(9999, 12, 31, tzinfo=UTC)
_CLOSED = {
    "action": ("allow", "redact", "keep_local", "block"),
    "ending": ("completed", "failed", "abandoned", "interrupted", "refused", "open"),
}
"""Fields of which every value is known: any other is a slip of the pen, and no answer is given to it."""
_PSEUDONYM = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")

_Names = list[str] | None


def _from(*more: str) -> Any:
    words = "A day, a time (UTC unless it says otherwise), or 30m, 24h, 7d ago. Default: the first."
    return Annotated[str | None, typer.Option("--from", *more, help=words)]


def _to(*more: str) -> Any:
    words = "The same; a day is included whole, a time is not. Default: now."
    return Annotated[str | None, typer.Option("--to", *more, help=words)]


OPTIONS: dict[str, Any] = {
    "begin": _from(),
    "end": _to(),
    "tenant": Annotated[_Names, typer.Option(help="A key's label; repeat for more, here and below.")],
    "project": Annotated[_Names, typer.Option("--project", "--application", help="The application.")],
    "key": Annotated[_Names, typer.Option("--key", help="A virtual key's id.")],
    "actor": Annotated[
        _Names, typer.Option(help="Who asked, as the application names its users, or the pseudonym; or an account.")
    ],
    "subject": Annotated[
        _Names, typer.Option(help="Whose data it is, as x-spillway-subject names it, or the pseudonym.")
    ],
    "action": Annotated[_Names, typer.Option(help="allow, redact, keep_local or block.")],
    "rule": Annotated[_Names, typer.Option(help="The rule that decided.")],
    "finding": Annotated[_Names, typer.Option(help="A type found in the request or the answer, such as ssn.")],
    "target": Annotated[_Names, typer.Option(help="A target, or an engine for all of its models.")],
    "request": Annotated[_Names, typer.Option(help="An x-spillway-request-id.")],
    "ending": Annotated[_Names, typer.Option(help="completed, failed, abandoned, interrupted, refused or open.")],
    "kind": Annotated[
        _Names, typer.Option(help="attempt, refused, started, key_changed, policy_changed, log_access, ...")
    ],
}
"""Of commands that choose records."""
PERIOD: dict[str, Any] = {"begin": _from("--since"), "end": _to("--until")}
"""Of commands that are about a period."""
OF_A_SUBJECT = PERIOD | {"subject": OPTIONS["subject"]}


@dataclass(frozen=True)
class Choice:
    """What the options say."""

    begin: int  # microseconds since the epoch
    end: int  # not included
    names: dict[str, tuple[str, ...]]  # by field; as they were typed

    @property
    def filters(self) -> tuple[str, ...]:
        """The names of the fields that choose, for the record of the look."""
        return tuple(name for name, values in self.names.items() if values)

    def query(self, settings: Settings, index: AuditIndex) -> Query:
        """With users and subjects as their pseudonyms."""
        from compliance.lookup import Query

        names = dict(self.names)
        for field in ("actor", "subject"):
            if names.get(field):
                names[field] = tuple(_stored(settings, index, field, value) for value in names[field])
        return Query(begin=self.begin, end=self.end, **names)


def with_choice(options: dict[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare these options for a command that takes a `choice`."""

    def given_to(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(command, include_extras=True)
        own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()]
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in options.items()
        ]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            typed = {name: values.pop(name) for name in options}
            _check_typed(typed)
            begin, end = period(typed.pop("begin"), typed.pop("end"))
            command(choice=Choice(begin, end, {k: tuple(v or ()) for k, v in typed.items()}), **values)

        taken = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name != "choice"]
        run.__signature__ = inspect.Signature([*shared, *taken])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in (*shared, *taken)}
        return run

    return given_to


def _check_typed(typed: dict[str, Any]) -> None:
    """Nothing found for a word that no record can hold would read as if it had never happened."""
    for field, words in _CLOSED.items():
        for value in typed.get(field) or ():
            if value not in words:
                fail(f"--{field} is one of {', '.join(words)}; {value!r} is none", 2)
    for field, values in typed.items():
        if isinstance(values, list) and not all(map(str.strip, values)):
            fail(f"--{field} is empty", 2)


def unheard_of(choice: Choice, query: Query, index: AuditIndex) -> list[str]:
    """In words, what was asked for that no record of any time has: nothing can be found by it."""
    names = ("tenant", "project", "key", "actor", "subject", "rule", "finding", "target", "kind")
    return [
        f"no record of any time has {field} {typed!r}; names are written as records have them"
        for field in names
        for typed, stored in zip(choice.names.get(field, ()), getattr(query, field), strict=True)
        if not index.heard_of(field, stored)
    ]


# --- the index ----------------------------------------------------------------------------------------------


def logs_of(settings: Settings) -> list[Path]:
    """The slots' logs; without any, that is the end."""
    from compliance.journal import slots

    logs = slots(Path(settings.audit.dir))
    if not logs:
        fail(f"there is no log in {settings.audit.dir}; --state-dir or --config says where it is", 1)
    return logs


@contextlib.contextmanager
def index_of(settings: Settings, logs: Sequence[Path]) -> Iterator[AuditIndex]:
    """The index over these logs as they are now; where the state directory cannot keep it, for this once."""
    from compliance.verify import Broken
    from proxy.projections.audit_index import Unreadable

    with contextlib.ExitStack() as stack:
        try:
            index = _index(settings, stack)
            waiting = index.behind(logs)
            if waiting > _SLOW:
                say(f"about {waiting:,} records are new to the index; it takes a second for every 50,000", "dim")
            index.catch_up(logs)
        except (Broken, Unreadable) as error:
            fail(f"{settings.audit.dir}: {error}; `spillway audit verify` says more", 1)
        except (sqlite3.Error, OSError) as error:
            words = getattr(error, "strerror", None) or str(error)
            fail(f"the logs in {settings.audit.dir} cannot be read: {words}", 1)
        yield index


def _index(settings: Settings, stack: contextlib.ExitStack) -> AuditIndex:
    from proxy.projections.audit_index import AuditIndex

    path = Path(settings.state.dir) / INDEX
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            index = AuditIndex(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, or not writable
                raise
            path.unlink()  # no database any more: it is built again
            index = AuditIndex(path)
    except (sqlite3.OperationalError, OSError):
        say(f"the index cannot be kept in {path.parent}, so it is built for this once", "dim")
        index = AuditIndex(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spillway-"))) / INDEX)
    stack.callback(index.close)
    return index


def _stored(settings: Settings, index: AuditIndex, field: str, typed: str) -> str:
    """How records name a user or a subject that was typed; never what was typed, unless records say just that."""
    if index.knows(field, typed):
        return typed
    from compliance.journal import JournalError, load_or_create_key
    from proxy.app import signing_key_path
    from proxy.recording import pseudonym_key, subject_pseudonym, user_pseudonym

    path = signing_key_path(settings)
    try:
        if not path.exists():
            raise OSError("it is not there")
        key = pseudonym_key(load_or_create_key(path).private_bytes_raw())
    except (OSError, JournalError) as error:
        if _PSEUDONYM.fullmatch(typed):
            return typed
        fail(f"--{field} is looked for by its pseudonym, which takes the log's key: {path}: {error}", 1)
    return subject_pseudonym(key, typed) if field == "subject" else user_pseudonym(key, typed)


# --- times --------------------------------------------------------------------------------------------------


def period(begin: str | None, end: str | None) -> tuple[int, int]:
    """[begin, end) in microseconds since the epoch."""
    present = now()
    moment = datetime.fromtimestamp(present / 1e6, UTC)
    first = 0 if begin is None else _microseconds(_moment(begin, moment))
    if end is None:
        last = present
    else:
        until = _moment(end, moment)
        if len(end) == 10:  # a day
            until = min(until, _LAST_DAY - timedelta(days=1)) + timedelta(days=1)
        last = _microseconds(until)
    if last <= first:
        fail("the period is empty: --from must lie before --to", 2)
    return first, last


def _moment(text: str, present: datetime) -> datetime:
    ago = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    try:
        if ago is not None:
            return present - timedelta(**{_AGO[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        fail(f"{text!r} is no time; write 2026-11-30, 2026-11-30T14:00, 2026-11-30T14:00+01:00, 30m, 24h or 7d", 2)


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
