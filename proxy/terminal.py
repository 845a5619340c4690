"""What the commands share: options, where a configuration comes from, input, and words on standard error.

Results go to standard output and nothing else does; exit codes are 0, 1 (the answer is no) and 2 (wrong use).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn

import typer

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_errors import ConfigInvalid

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration file. Default: spillway.yaml, where there is one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
StateOption = Annotated[
    Path | None, typer.Option(help="Where keys, budgets and the ledger are kept. Default: as configured.")
]
DEFAULT_CONFIG = Path("spillway.yaml")


def source_of(config: Path | None, *, model: Path | None = None, allow_cloud: bool = False) -> tuple[Any, list[str]]:
    """A configuration file, or what is found on this host where there is none; and notes on it."""
    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    if path is not None:
        if model is not None or allow_cloud:
            fail(f"--model and --allow-cloud are for serving without a configuration; {path} says what may be used", 2)
        return path, [f"configuration {path}"]
    from proxy.discovery import quickstart

    return quickstart(allow_cloud=allow_cloud, model=model, environ=os.environ)


def settings_of(
    source: Any, *, listen: dict[str, Any] | None = None, state_dir: Path | None = None, secrets: bool = True
) -> Settings:
    """Settings of a source; where it is wrong, every mistake on standard error, and the end."""
    from proxy.config import build, load
    from proxy.config_errors import ConfigInvalid

    try:
        make = load if isinstance(source, Path) else build
        settings = make(source, os.environ, secrets=secrets)
        changes = {name: value for name, value in (listen or {}).items() if value is not None}
        return settings.changed(listen=changes, state_dir=state_dir) if changes or state_dir else settings
    except ConfigInvalid as invalid:
        print_mistakes(invalid)
        raise typer.Exit(1) from None


def located(config: Path | None, state_dir: Path | None) -> Settings:
    """Settings for what lies in directories: no engine is looked for, and no secret, so that it works in any shell."""
    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    return settings_of(path if path is not None else {}, state_dir=state_dir, secrets=False)


@contextlib.contextmanager
def database(path: Path) -> Iterator[None]:
    """What a file that is no database, or may not be written, does to a command: one line."""
    import sqlite3  # serving needs none of this

    try:
        yield
    except (sqlite3.Error, OSError) as error:
        words = getattr(error, "strerror", None) or str(error)
        fail(f"{path} cannot be used: {words}; --state-dir names another directory", 1)


def read_input(file: Path | None, what: str = "a request body") -> bytes:
    """What a file holds, or standard input."""
    if file is None:
        if sys.stdin.isatty():
            say(f"reading {what} from the terminal; end it with Ctrl-D", "dim")
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", 2)


def open_input(file: Path | None, what: str) -> BinaryIO:
    """A file to be read line by line, or standard input."""
    if file is None:
        if sys.stdin.isatty():
            say(f"reading {what} from the terminal; end it with Ctrl-D", "dim")
        return sys.stdin.buffer
    try:
        return open(file, "rb")
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", 2)


def print_mistakes(invalid: ConfigInvalid) -> None:
    """`spillway.yaml:7: engines.gpu.kind: what is wrong`, as editors and terminals make links of it; then what is right."""
    for mistake in invalid.mistakes:
        place = f"{invalid.name}:{mistake.line}:" if mistake.line else f"{invalid.name}:"
        path = f"{styled(mistake.path, bold=True)}: " if mistake.path else ""
        report(f"{styled(place, dim=True)} {path}{mistake.wrong}")
        if mistake.hint:
            report(f"    {styled(mistake.hint, fg='green')}")
    count = len(invalid.mistakes)
    report(f"{count} mistake{'s' if count != 1 else ''}")


def styled(text: str, **style: Any) -> str:
    """For standard error: in colour on a terminal only, and not where NO_COLOR is set (no-color.org)."""
    return typer.style(text, **style) if coloured(sys.stderr) else text


def coloured(stream: IO[str]) -> bool:
    """Does this stream take colours?"""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def report(text: str) -> None:
    """A line on standard error."""
    typer.echo(text, err=True)


def say(text: str, style: str) -> None:
    """A line on standard error, dim or in a colour."""
    report(styled(text, dim=True) if style == "dim" else styled(text, fg=style))


def fail(text: str, status: int) -> NoReturn:
    """The end of a command: why, on standard error, and its exit code."""
    report(f"{styled('spillway:', fg='red')} {text}")
    raise typer.Exit(status)
