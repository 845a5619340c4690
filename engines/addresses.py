"""Where an engine listens: its URL taken apart, once."""

from __future__ import annotations

import base64
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from engines.errors import ConnectFailed


class Address(Struct, frozen=True):
    """An origin taken apart."""

    host: str
    port: int
    tls: bool
    prefix: bytes  # the path before every request's path
    header: bytes  # the Host header
    authority: bytes  # host and port, for CONNECT
    credentials: bytes  # of an egress proxy: the value of Proxy-Authorization, or empty

    def __repr__(self) -> str:  # the default one would print the credentials
        return f"Address({self.host!r}, {self.port})"


@lru_cache(maxsize=1024)
def address_of(origin: str) -> Address:
    """`https://host:port/prefix`; raises `ConnectFailed` for what is no such URL."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        raise ConnectFailed("the engine's address is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConnectFailed("the engine's address is not an http or https URL")
    tls = parts.scheme == "https"
    usual = 443 if tls else 80
    port = port or usual
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = f"{host}:{port}".encode()
    header = host.encode() if port == usual else authority
    credentials = b""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = b"Basic " + base64.b64encode(pair.encode())
    return Address(parts.hostname, port, tls, parts.path.rstrip("/").encode(), header, authority, credentials)
