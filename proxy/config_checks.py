"""What a schema cannot say: names that must resolve, boundaries that must hold, prices that must exist."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from compliance.rules import TYPES
from engines.kinds import KINDS, UnknownKind, kind
from engines.transport import peer_allowed
from proxy.config_errors import Lines, Location, Mistake, dotted, line_of, nearest

if TYPE_CHECKING:
    from proxy.config import Engine, Settings

BOUNDARIES = ("local", "cloud")


def check(settings: Settings, lines: Lines) -> list[Mistake]:
    """Every mistake in what the parts say of each other."""
    found = [*_engines(settings), *_models(settings), *_rules(settings), *_prices(settings)]
    return [Mistake(line_of(path, lines), dotted(path), wrong, hint) for path, wrong, hint in found]


Found = Iterator[tuple[Location, str, str]]


def _engines(settings: Settings) -> Found:
    for name, engine in settings.engines.items():
        path: Location = ("engines", name)
        if "/" in name:
            yield path, "an engine's name cannot hold a slash", "it stands before the slash of engine/model"
        try:
            row = kind(engine.kind)
        except UnknownKind:
            yield (*path, "kind"), f"{engine.kind!r} is no engine kind", nearest(engine.kind, KINDS)
            continue
        if not engine.replicas and not engine.managed and row.url is None:
            yield path, "has no address", "give replicas: [http://host:port]"
        if engine.managed and engine.kind != "llama.cpp":
            yield (
                (*path, "managed"),
                f"Spillway does not run {row.title} itself",
                "start it yourself and give replicas, or use kind: llama.cpp",
            )
        if not engine.models:
            yield path, "has no models", 'list them, or write models: {"*": {}} to pass any name through'
        if engine.boundary is not None and engine.boundary not in BOUNDARIES:
            yield (*path, "boundary"), f"{engine.boundary!r} is no boundary", nearest(engine.boundary, BOUNDARIES)
        yield from _addresses(path, engine, engine.boundary or row.boundary)


def _addresses(path: Location, engine: Engine, boundary: str) -> Found:
    for index, network in enumerate(engine.peers):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            yield (*path, "peers", index), f"{network!r} is no network", "in CIDR, such as 100.64.0.0/10"
            return
    for index, url in enumerate(engine.replicas):
        parts = urlsplit(url)
        where = (*path, "replicas", index)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            yield where, f"{url!r} is no http or https URL", "such as http://gpu-a:8000"
            continue
        try:
            ipaddress.ip_address(parts.hostname)
        except ValueError:
            continue  # a name: its address is checked at each connect
        if not peer_allowed(parts.hostname, boundary, engine.peers):
            yield (
                where,
                f"{parts.hostname} is neither loopback nor private, so it is not local",
                "declare boundary: cloud, or list its network under peers",
            )


def _models(settings: Settings) -> Found:
    targets = {f"{name}/{model}" for name, engine in settings.engines.items() for model in engine.models}
    wild = {name for name, engine in settings.engines.items() if "*" in engine.models}
    for name, entry in settings.models.items():
        path: Location = ("models", name)
        lists: list[tuple[Location, tuple[str, ...]]]
        if isinstance(entry, tuple):
            lists = [(path, entry)]
        else:
            lists = [((*path, "route", "small"), entry.route.small), ((*path, "route", "large"), entry.route.large)]
        for where, names in lists:
            if not names:
                yield where, "names no target", "such as [gpu/llama-70b, openai/gpt-4o]"
            for index, target in enumerate(names):
                if target not in targets and target.partition("/")[0] not in wild:
                    yield (*where, index), f"{target!r} is no engine/model", nearest(target, sorted(targets))


def _rules(settings: Settings) -> Found:
    for index, rule in enumerate(settings.compliance.rules):
        for position, found in enumerate(rule.when.found):
            if found not in TYPES:
                yield (
                    ("compliance", "rules", index, "when", "found", position),
                    f"{found!r} is nothing that is found",
                    nearest(found, TYPES),
                )
    scopes = [(budget.scope, budget.window) for budget in settings.budgets]
    if len(scopes) > 1:
        yield ("budgets", 1), "only one budget is there yet in this version", "leave the others out"


def _prices(settings: Settings) -> Found:
    for name in settings.prices:
        engine, _, model = name.partition("/")
        if engine not in settings.engines or not model:
            yield ("prices", name), f"{name!r} is no engine/model", nearest(name, [f"{e}/" for e in settings.engines])
