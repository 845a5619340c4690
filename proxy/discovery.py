"""What `spillway serve` finds when nobody configured anything: engines that already run on this host.

Each well-known port of this host is asked, with a short timeout, who is there.  Where nobody is, the
built-in CPU engine is configured: llama.cpp on the given GGUF file, or on the smoke-test model.  The cloud
is used only where it is explicitly allowed, with keys from the environment.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from engines.kinds import Kind, kind
from proxy.config_checks import SMOKE_MODEL

TIMEOUT = 0.4  # seconds an unknown port may take to say who it is
LOCAL_KINDS = ("vllm", "llama.cpp", "ollama", "lmstudio")
CLOUD_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}

# No environment proxies: a probe of this host must not travel.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Found(NamedTuple):
    """An engine that answered: its models by id, each with its context in tokens where it says so."""

    kind: str
    url: str
    models: dict[str, int | None]


def quickstart(
    *, allow_cloud: bool, model: Path | None, environ: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """A configuration (as the YAML file would hold it) and notes in words on how it came about."""
    engines: dict[str, Any] = {}
    notes: list[str] = []
    found = [] if model is not None else find_engines()
    for engine in found:
        engines[engine.kind.replace(".", "")] = _engine(engine)
        notes.append(f"found {engine.kind} at {engine.url} with {', '.join(engine.models) or 'no model loaded'}")
    if not any(engine.models for engine in found):
        engines["cpu"], note = _built_in(model)
        notes.append(note)
    if allow_cloud:
        notes += _add_clouds(engines, environ)
    elif any(environ.get(name) for name in CLOUD_KEYS.values()):
        notes.append("cloud keys in the environment are not used; --allow-cloud lets traffic overflow to them")
    return {"engines": engines}, notes


def find_engines(host: str = "127.0.0.1", ports: Mapping[str, int] | None = None) -> list[Found]:
    """Every known engine that answers on its well-known port of `host`; all ports are asked at once."""
    rows = [(name, (ports or {}).get(name) or kind(name).port) for name in LOCAL_KINDS]
    with ThreadPoolExecutor(len(rows)) as pool:
        answers = pool.map(lambda row: _ask(row[0], f"http://{host}:{row[1]}"), rows)
        return [found for found in answers if found is not None]


def _ask(name: str, url: str) -> Found | None:
    """The engine at `url`, if it says that it is of this kind; a stranger on the port is left alone."""
    row = kind(name)
    listed = _get(url + row.models_path)
    if listed is None or not isinstance(listed.get("data"), list) or not _recognised(row, url, listed["data"]):
        return None
    models = {}
    for item in listed["data"]:
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            context = item.get("max_model_len") or (item.get("meta") or {}).get("n_ctx")
            models[item["id"]] = context if isinstance(context, int) and context > 0 else None
    return Found(name, url, models)


def _recognised(row: Kind, url: str, listed: list[Any]) -> bool:
    owners = {str(item.get("owned_by", "")) for item in listed if isinstance(item, dict)}
    if row.name == "vllm":
        return "vllm" in owners
    if row.name == "llama.cpp":
        return "llamacpp" in owners or _get(url + "/props") is not None
    if row.name == "ollama":
        return "version" in (_get(url + "/api/version") or {})
    return True  # LM Studio: its port and its list are all it shows


def _get(url: str) -> dict[str, Any] | None:
    try:
        with _opener.open(url, timeout=TIMEOUT) as answer:
            value = json.loads(answer.read(1_000_000))
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return value if isinstance(value, dict) else None


def _engine(found: Found) -> dict[str, Any]:
    models: dict[str, Any] = {}
    for name, context in found.models.items():
        models[name] = {"id": name, **({"context": context} if context else {})}
    return {"kind": found.kind, "replicas": [found.url], "models": models}


def _built_in(model: Path | None) -> tuple[dict[str, Any], str]:
    if model is None:
        managed: dict[str, Any] = {"model": SMOKE_MODEL}
        return (
            {"kind": "llama.cpp", "managed": managed, "models": {SMOKE_MODEL: {"context": 2048}}},
            f"found no engine on this host; starting llama.cpp on {SMOKE_MODEL}, a tiny model of random words, no language model",
        )
    name = model.stem
    return (
        {"kind": "llama.cpp", "managed": {"model": str(model)}, "models": {name: {}}},
        f"starting llama.cpp on {model.name}",
    )


def _add_clouds(engines: dict[str, Any], environ: Mapping[str, str]) -> list[str]:
    notes = []
    for name, variable in CLOUD_KEYS.items():
        if environ.get(variable):
            engines[name] = {"kind": name, "key": {"env": variable}, "models": {"*": {}}}
            notes.append(f"{name} may answer for its own model names (key from {variable})")
        else:
            notes.append(f"{name} is left out: {variable} is not set")
    return notes
