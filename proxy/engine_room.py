"""Engines that Spillway runs itself: from the configuration to launches, and back with their addresses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from engines.managed import Launch, llamacpp
from proxy.config import Settings
from proxy.config_checks import SMOKE_MODEL


def with_managed(settings: Settings, free_port: Callable[[], int]) -> tuple[Settings, list[Launch]]:
    """Settings in which managed engines have an address, and what to start for that."""
    launches: list[Launch] = []
    replicas: dict[str, tuple[str, ...]] = {}
    for name, engine in settings.engines.items():
        if engine.managed is None:
            continue
        model = engine.managed.model
        smoke = str(Path(settings.state.dir) / f"{SMOKE_MODEL}.gguf") if model == SMOKE_MODEL else None
        embeddings = any(row is not None and row.embeddings for row in engine.models.values())
        launch = llamacpp(
            f"engine {name}",
            model=smoke or model,
            alias=next(iter(engine.models)),
            port=free_port(),
            slots=engine.managed.slots,
            context=engine.managed.context,
            threads=engine.managed.threads,
            embeddings=embeddings,
        )
        launches.append(msgspec.structs.replace(launch, smoke_model=smoke))
        replicas[name] = (launch.url,)
    return (settings.with_replicas(replicas) if replicas else settings), launches
