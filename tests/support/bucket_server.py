"""An S3-compatible bucket with object lock, as far as PUT goes, on a real socket; it checks what S3 would check.

The signature is computed here on its own, from the bytes that came, after the S3 API reference ("Authenticating
requests: using the Authorization header").
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import hmac
import time
from urllib.parse import unquote

from scripted import Play, Received, ScriptedEngine


class Bucket:
    """One bucket: `objects` by key, each with its lock's mode and end."""

    def __init__(self, name: str, access_key: str, secret_key: str, *, region: str = "eu-central-1") -> None:
        self.name = name
        self.region = region
        self.objects: dict[str, bytes] = {}
        self.locks: dict[str, tuple[str, str]] = {}
        self.answers: list[tuple[int, str]] = []
        self.out_of_order = ""  # an error code that every request gets
        self.knows_conditions = True
        self._access_key = access_key
        self._secret_key = secret_key

    def engine(self) -> ScriptedEngine:
        return ScriptedEngine(self._serve)

    async def _serve(self, received: Received, play: Play) -> None:
        status, code = self._put(received)
        self.answers.append((status, code))
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>" if code else ""
        await play.send(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())

    def _put(self, received: Received) -> tuple[int, str]:
        if self.out_of_order:
            return 503, self.out_of_order
        if received.method != "PUT":
            return 405, "MethodNotAllowed"
        if problem := self._unsigned(received):
            return 403, problem
        bucket, _, key = unquote(received.path).lstrip("/").partition("/")
        if bucket != self.name:
            return 404, "NoSuchBucket"
        headers = received.headers
        digest = hashlib.sha256(received.body)
        if headers.get("x-amz-checksum-sha256") != base64.b64encode(digest.digest()).decode():
            return 400, "InvalidRequest"  # a PUT with a lock must carry a checksum
        if headers.get("content-md5") != base64.b64encode(hashlib.md5(received.body).digest()).decode():
            return 400, "BadDigest"
        if "if-none-match" in headers:
            if not self.knows_conditions:
                return 501, "NotImplemented"
            if key in self.objects:
                return 412, "PreconditionFailed"
        mode, until = headers.get("x-amz-object-lock-mode", ""), headers.get("x-amz-object-lock-retain-until-date", "")
        if (mode or until) and (mode not in ("COMPLIANCE", "GOVERNANCE") or _seconds(until) <= time.time()):
            return 400, "InvalidArgument"
        self.objects[key] = received.body
        self.locks[key] = (mode, until)
        return 200, ""

    def _unsigned(self, received: Received) -> str:
        headers = received.headers
        algorithm, _, rest = headers.get("authorization", "").partition(" ")
        fields = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
        at = headers.get("x-amz-date", "")
        scope = f"{at[:8]}/{self.region}/s3/aws4_request"
        if algorithm != "AWS4-HMAC-SHA256" or fields.get("Credential") != f"{self._access_key}/{scope}":
            return "InvalidAccessKeyId"
        if abs(calendar.timegm(time.strptime(at, "%Y%m%dT%H%M%SZ")) - time.time()) > 900:
            return "RequestTimeTooSkewed"
        names = fields["SignedHeaders"].split(";")
        must = {"host", *(name for name in headers if name.startswith("x-amz-"))}
        if not must <= set(names) or headers.get("x-amz-content-sha256") != hashlib.sha256(received.body).hexdigest():
            return "SignatureDoesNotMatch"
        path, _, query = received.path.partition("?")
        lines = "".join(f"{name}:{headers[name]}\n" for name in names)
        request = "\n".join([received.method, path, query, lines, ";".join(names), headers["x-amz-content-sha256"]])
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = ("AWS4" + self._secret_key).encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return "" if fields.get("Signature") == signature else "SignatureDoesNotMatch"


def _seconds(until: str) -> float:
    try:
        return calendar.timegm(time.strptime(until, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return 0.0
