"""What can be wrong with the way to a Redis that keeps budgets."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from proxy.config_errors import Location
from proxy.quantities import Wrong

if TYPE_CHECKING:
    from proxy.config import Settings

SQLITE = "sqlite"
EXAMPLE = "such as redis://redis.internal:6379/0, or rediss:// for TLS"
_DATABASE = re.compile(r"/?|/[0-9]{1,4}")

Found = Iterator[tuple[Location, str, str]]


def store(value: Any) -> str:
    """`sqlite`, or a Redis URL without a secret in it; raises `Wrong`."""
    text = value.strip() if isinstance(value, str) else ""
    if text == SQLITE:
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise Wrong("must be sqlite, or a Redis URL", EXAMPLE) from None
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or port == 0:
        raise Wrong("must be sqlite, or a Redis URL", EXAMPLE)
    if "@" in parts.netloc:
        hint = "write redis: {user: NAME, password: {env: NAME}} beside store"
        raise Wrong("holds a name or a password, and a secret never stands in the file", hint)
    if parts.query or parts.fragment or not _DATABASE.fullmatch(parts.path):
        raise Wrong("holds more than an address and the number of a database", EXAMPLE)
    return text


def prefix(value: Any) -> str:
    """What all keys of a deployment begin with; raises `Wrong`."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
        raise Wrong("must be letters, digits, dots, dashes and underscores", "such as spillway")
    return value


def problems(settings: Settings, there: Callable[..., bool]) -> Found:
    """What the parts of `state` say against each other.  `there`: nothing of this place is missing."""
    state = settings.state
    path: Location = ("state", "redis")
    if state.store == SQLITE:
        if state.redis.model_fields_set and there("state", "store"):
            yield path, "says how to reach Redis, and nothing is kept there", f"give store, {EXAMPLE}"
        return
    if importlib.util.find_spec("redis") is None:
        yield ("state", "store"), "needs Redis's client, which is not installed", "pip install 'spillway[redis]'"
    redis = state.redis
    if not state.store.startswith("rediss:"):
        for name in ("ca", "cert", "key"):
            if getattr(redis, name) is not None:
                yield (*path, name), "is for TLS", "write rediss:// in store"
    if (redis.cert is None) != (redis.key is None):
        missing = "key" if redis.key is None else "cert"
        yield path, f"has no {missing}", "a certificate goes with its key"
    if redis.user is not None and redis.password is None and there("state", "redis", "password"):
        yield path, "has a user without a password", "give password: {env: NAME} or {file: PATH}"


def missing_files(settings: Settings) -> Found:
    """Files for TLS that cannot be read here."""
    for name in ("ca", "cert", "key"):
        file = getattr(settings.state.redis, name)
        if file is not None and not _readable(Path(file)):
            yield ("state", "redis", name), "cannot be read", "the path of a file in PEM"


def _readable(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(file.read(1))
    except (OSError, ValueError):
        return False
