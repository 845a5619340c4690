"""Command lines of engines that Spillway runs itself.  Pure: the supervisor starts and restarts them."""

from __future__ import annotations

import sys

from msgspec import Struct


class Launch(Struct, frozen=True):
    """One engine process.  `smoke_model` is a path to write the smoke-test model to before the start."""

    name: str  # engine cpu/0
    url: str
    command: tuple[str, ...]
    smoke_model: str | None = None


def llamacpp(
    name: str, *, model: str, alias: str, port: int, slots: int, context: int, threads: int, embeddings: bool
) -> Launch:
    """The llama.cpp server on a GGUF file, on loopback.  `context` is in tokens, for each of `slots`."""
    command = [
        sys.executable, "-m", "proxy.llamacpp", model, "--port", str(port), "--alias", alias,
        "--slots", str(slots), "--context", str(context), "--threads", str(threads),
    ]  # fmt: skip
    if embeddings:
        command.append("--embeddings")
    return Launch(name, f"http://127.0.0.1:{port}", tuple(command))
