"""`spillway serve`.  Apart from the other commands, so that it starts without loading them (see `proxy.__main__`)."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.terminal import ConfigOption, StateOption, fail, settings_of, source_of

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.workers import WorkerProcess


def register(app: typer.Typer) -> None:
    """Add the command to `spillway`."""
    app.command(
        epilog="**Examples**\n\n`spillway serve` serves what runs on this host, or a smoke-test model\n\n"
        "`spillway serve --model ./phi-3.gguf` runs llama.cpp on a GGUF file\n\n"
        "`OPENAI_API_KEY=... spillway serve --allow-cloud` lets traffic overflow to OpenAI\n\n`spillway serve -c spillway.yaml`"
    )(serve)


def main() -> None:
    """Entry point where the command line says `serve`."""
    app = typer.Typer(
        name="spillway", rich_markup_mode="markdown", add_completion=False, pretty_exceptions_show_locals=False
    )
    app.callback()(lambda: None)  # with one command and no callback there would be no name of a command to give
    register(app)
    app()


def serve(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    model: Annotated[Path | None, typer.Option(help="A GGUF file for the built-in llama.cpp engine.")] = None,
    allow_cloud: Annotated[
        bool, typer.Option("--allow-cloud", help="Without a configuration: use cloud keys from the environment.")
    ] = False,
    state_dir: StateOption = None,
) -> None:
    """Serve applications on 127.0.0.1:8800 until stopped."""
    import signal
    import threading

    from proxy.workers import WorkerProcess

    first = WorkerProcess(0)  # it loads its modules while this process loads its own

    def interrupted(*_: object) -> None:
        first.give_up()
        os._exit(130)  # an exception could be swallowed by an import

    try:
        if threading.current_thread() is threading.main_thread():  # only there may one be set
            signal.signal(signal.SIGINT, interrupted)  # until the supervisor takes it
        _serve(first, config, model, allow_cloud, state_dir, {"host": host, "port": port, "workers": workers})
    finally:
        if first.returncode is None:
            first.give_up()


def _serve(
    first: WorkerProcess, config: Path | None, model: Path | None, allow_cloud: bool, state_dir: Path | None, listen: dict[str, Any]
) -> None:  # fmt: skip
    gc.disable()  # what is loaded stays
    from proxy.config_checks import is_gguf
    from proxy.supervisor import CannotServe, run

    if model is not None and not is_gguf(model):
        fail(f"{model} {'is no GGUF file' if model.exists() else 'is not there'}; --model takes a GGUF file", 2)
    source, notes = source_of(config, model=model, allow_cloud=allow_cloud)
    settings = settings_of(source, listen=listen, state_dir=state_dir)
    gc.enable()
    try:
        raise typer.Exit(run(settings, first, notes=notes, announce=_announce))
    except CannotServe as cannot:
        fail(str(cannot), 1)


def _announce(settings: Settings) -> None:
    from proxy.meaning import welcome

    for line in welcome(settings):
        print(line, flush=True)
