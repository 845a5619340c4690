"""Virtual keys: a token in, a `Principal` out.

Keys are 256 random bits, stored as their SHA-256: with that much chance in them, a slow hash adds nothing.
Until the first key is made, whoever is on this host may ask; then a foreign Host or Origin header is refused,
so that no web page that a user visits can spend.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

PREFIX = "spw_"
_LOOPBACK = r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?"
_HOST = re.compile(_LOOPBACK, re.IGNORECASE | re.ASCII)
_ORIGIN = re.compile(f"https?://{_LOOPBACK}", re.IGNORECASE | re.ASCII)


class Principal(Struct, frozen=True):
    """Who is calling, and what the key may be used for.  None in `models` or `boundaries`: all."""

    key: str  # the key's id, never the key
    name: str
    organisation: str = "default"
    team: str = ""
    project: str = ""
    tenant: str | None = None
    models: frozenset[str] | None = None
    boundaries: frozenset[str] | None = None
    expires: int | None = None  # microseconds since the epoch

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    def may_reach(self, boundary: str) -> bool:
        return self.boundaries is None or boundary in self.boundaries


LOCAL_OPEN = Principal(key="", name="local, no key")


def new_token() -> str:
    """A new key: `spw_` and 43 characters of base64url."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """How a key is stored: hex SHA-256.  Looking it up by its hash leaks nothing by timing."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def credential(headers: Mapping[str, str], query: str) -> str | None:
    """The client's key, wherever its SDK puts it: Bearer, x-api-key, api-key."""
    bearer = headers.get("authorization")
    if bearer is not None and bearer[:7].lower() == "bearer ":
        return bearer[7:].strip()
    return headers.get("x-api-key") or headers.get("api-key") or _from_query(query)


@lru_cache(maxsize=256)  # a deployment is addressed by a few names
def host_allowed(host: str | None, origin: str | None) -> bool:
    """Is a request without a key addressed to this host itself, and not sent by a page from elsewhere?

    Both headers must have exactly the form that browsers send (RFC 9110, section 7.2; RFC 6454, section 7): what a URL
    parser would make of another form is not asked.  `null`, the origin of sandboxed pages and files, is foreign.
    """
    if host is None or _HOST.fullmatch(host) is None:
        return False
    return origin is None or _ORIGIN.fullmatch(origin) is not None


def _from_query(query: str) -> str | None:
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name in ("key", "api_key", "api-key") and value:
            return value
    return None
