"""Request bodies that come compressed: decoded with a bound on what comes out, or refused.  Pure."""

from __future__ import annotations

import zlib

from proxy.errors import Refusal

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def decode_body(encoding: str, body: bytes, limit: int) -> bytes:
    """`body` without its Content-Encoding; at most `limit` bytes (a decompression bomb is a 413)."""
    names = [name for name in (part.strip().lower() for part in encoding.split(",")) if name and name != "identity"]
    for name in reversed(names):
        window = _WINDOWS.get(name)
        if window is None:
            raise Refusal(
                "unsupported_encoding", f"Content-Encoding {name[:20]!r} is not supported. Send gzip, deflate or none."
            )
        try:
            body = _inflate(body, window, limit)
        except zlib.error:
            if name != "deflate":
                raise Refusal("invalid_request", f"The body is not valid {name}.") from None
            body = _raw_deflate(body, limit)  # RFC 9110 8.4.1.2: some senders leave out the zlib wrapper
    return body


def _raw_deflate(body: bytes, limit: int) -> bytes:
    try:
        return _inflate(body, -zlib.MAX_WBITS, limit)
    except zlib.error:
        raise Refusal("invalid_request", "The body is not valid deflate.") from None


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    decoder = zlib.decompressobj(window)
    out = decoder.decompress(body, limit + 1)
    if len(out) > limit:
        raise Refusal("request_too_large", f"The decompressed body is larger than {limit} bytes.")
    if not decoder.eof:
        raise Refusal("invalid_request", "The compressed body is cut short.")
    return out
