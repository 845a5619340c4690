"""AWS Signature Version 4: the headers that say who sends a request, and that nobody changed it.

Source: "Signature Version 4 signing process" in the AWS General Reference, and "Authenticating requests: using the
Authorization header" in the S3 API reference.  Pure: the time comes in.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from msgspec import Struct

ALGORITHM = "AWS4-HMAC-SHA256"


class Credentials(Struct, frozen=True):
    """Of whoever signs; never printed."""

    access_key: str
    secret_key: str
    session_token: str | None = None  # of temporary ones

    def __repr__(self) -> str:  # the default one would print the secret
        return "Credentials(...)"


class Scope(Struct, frozen=True):
    """What a signature is good for: one second's requests to one service of one region."""

    at: str  # as in x-amz-date: 20150830T123600Z
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.at[:8]}/{self.region}/{self.service}/aws4_request"


def signed_headers(
    method: str,
    path: str,
    headers: Mapping[str, str],
    payload_hash: str,
    credentials: Credentials,
    scope: Scope,
    query: Sequence[tuple[str, str]] = (),
) -> dict[str, str]:
    """`headers` (which must name the host) with the date, the token of temporary credentials, and the authorization.

    `path` is as it goes on the wire (percent-encoded once, as S3 wants it); `payload_hash` is SHA-256 of the body in
    hex.  S3 wants the payload's hash as a header, too: the caller gives `x-amz-content-sha256`.
    """
    signed = {**headers, "x-amz-date": scope.at}
    if credentials.session_token is not None:
        signed["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(name.lower() for name in signed))
    request = canonical_request(method, path, query, signed, payload_hash)
    signature = sign(request, credentials.secret_key, scope)
    credential = f"{credentials.access_key}/{scope}"
    authorization = f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return {**signed, "authorization": authorization}


def canonical_request(
    method: str, path: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str], payload_hash: str
) -> str:
    """Step 1: the request in the one form that both sides hash."""
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query)
    lines = sorted((name.lower(), " ".join(value.split())) for name, value in headers.items())
    return "\n".join(
        [
            method,
            path or "/",
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{value}" for name, value in lines),
            "",
            ";".join(name for name, _ in lines),
            payload_hash,
        ]
    )


def sign(request: str, secret_key: str, scope: Scope) -> str:
    """Steps 2 to 4: the string to sign, the key of the day, region and service, the signature in hex."""
    text = "\n".join([ALGORITHM, scope.at, str(scope), hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{secret_key}".encode()
    for part in (scope.at[:8], scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
