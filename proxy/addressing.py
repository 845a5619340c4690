"""How a target is addressed: path, dialect, credentials and headers of each operation.  Built once a target."""

from __future__ import annotations

import re
from collections.abc import Mapping

from compliance.rules import Labels
from engines.base import Dialect
from engines.kinds import Kind, kind
from engines.model import Operation, Request, Target
from engines.transport import header_block
from proxy.exchange import Header

LOCAL = "local"
DEFAULT_MAX_OUTPUT = 4096
"""Tokens asked for where a dialect demands a limit and neither the client nor the configuration states one."""
ADDRESS_LIMIT = 8192
_CREDENTIALS = ("key=", "api_key=", "api-key=")
_FEATURE = re.compile(r"(?:([a-z][a-z0-9]{0,23}(?:-[a-z0-9]{1,24}){0,7})-)?20\d{2}-?\d{2}-?\d{2}", re.ASCII)
_FEATURE_DIGITS = 4  # in its name: `output-128k-2025-02-19` is a feature, and a number with a date behind it is none
_WORDS = re.compile(r"[,\s]+")
_FLAG = re.compile(r"beta=(?:true|false)|api-version=[0-9]{4}-[0-9]{2}-[0-9]{2}(?:-preview)?", re.ASCII)


class Timeouts:
    """Seconds."""

    __slots__ = ("connect", "first_event", "idle", "total")

    def __init__(
        self, connect: float = 2.0, first_event: float = 60.0, idle: float = 60.0, total: float = 600.0
    ) -> None:
        self.connect = connect
        self.first_event = first_event
        self.idle = idle
        self.total = total


def without_credentials(query: str) -> str:
    """What of a client's query may travel."""
    return "&".join([part for part in query.split("&") if part and not part.startswith(_CREDENTIALS)])


def beside_the_body(headers: Mapping[str, str], query: str) -> str:
    """What else of the client's own words travels, for the scanner: neither flags, nor names of features and versions."""
    if not query and not headers:
        return ""
    words = [part for part in without_credentials(query).split("&") if not _FLAG.fullmatch(part)]
    for value in headers.values():
        words += [word for word in _WORDS.split(value) if not _names_a_feature(word)]
    return "\n".join(words).strip()


def _names_a_feature(word: str) -> bool:
    """As the words of `anthropic-beta` and `anthropic-version` do."""
    found = _FEATURE.fullmatch(word)
    return found is not None and sum(map(str.isdigit, found[1] or "")) <= _FEATURE_DIGITS


def _features(value: str) -> str:
    return ",".join([word for word in _WORDS.split(value) if _names_a_feature(word)])


class Address:
    """One target for one operation."""

    __slots__ = (
        "_block",
        "_fixed",
        "_headers",
        "_path",
        "default_max_output",
        "dialect",
        "honours_usage_option",
        "labels",
        "limit_field",
        "reusable",
        "sampling_extensions",
        "target",
        "timeouts",
    )

    def __init__(
        self, target: Target, row: Kind, dialect: Dialect, path: str, version: str, labels: Labels, timeouts: Timeouts
    ) -> None:
        self.target = target
        self.dialect = dialect
        self.labels = labels  # what rules may know of it
        self.timeouts = timeouts
        self.honours_usage_option = row.honours_usage_option and dialect.name == "openai"
        self.reusable = row.reuse_after_stream
        self.default_max_output = DEFAULT_MAX_OUTPUT
        self.limit_field = row.limit_field
        self.sampling_extensions = row.sampling_extensions
        self._path = path.encode()
        headers: list[Header] = [
            (b"content-type", b"application/json"),
            (b"accept", b"*/*"),
            (b"accept-encoding", b"identity"),
            (b"user-agent", f"spillway/{version}".encode()),
        ]
        if target.key is not None:
            value = target.key if row.auth == "x-api-key" else f"Bearer {target.key}"
            headers.append((b"x-api-key" if row.auth == "x-api-key" else b"authorization", value.encode()))
        self._headers = headers
        self._block = header_block(headers)
        self._fixed = {name: (name.encode(), value.encode()) for name, value in row.headers}

    @property
    def headers(self) -> list[Header]:
        """What every request to the target has, its credential with it."""
        return list(self._headers)

    def line(self, request: Request, query: str, trace: str, *, plain: bool = False) -> tuple[bytes, bytes]:
        """(`path_with`, `headers_for`)."""
        if not (query or trace or request.headers or self._fixed):  # the usual case
            return self._path, self._block
        return self.path_with(query, plain=plain), self.headers_for(request, trace, plain=plain)

    def path_with(self, query: str, *, plain: bool = False) -> bytes:
        """The path, and the client's query but for a credential in it; `plain`: only its flags and dates."""
        if not query:
            return self._path
        if plain:
            query = "&".join([part for part in query.split("&") if _FLAG.fullmatch(part)])
        kept = without_credentials(query)
        return self._path + b"?" + kept.encode() if kept else self._path

    def headers_for(self, request: Request, trace: str, *, plain: bool = False) -> bytes:
        """What the engine gets: nothing of the client's but an allow-list; trace headers only inside the boundary.

        `plain`: of the client's own words only names of features and versions.
        """
        same = request.dialect == self.dialect.name
        if not self._fixed and not (same and request.headers) and not trace:
            return self._block
        headers = list(self._headers)
        own = request.headers if same else {}
        if plain:
            own = {name: kept for name, value in own.items() if (kept := _features(value))}
        headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in own.items()]
        headers += [header for name, header in self._fixed.items() if name not in own]
        if trace and self.target.boundary == LOCAL:
            headers.append((b"traceparent", trace.encode("ascii", "ignore")))
        return header_block(headers)


class Addresses:
    """Every target's addresses, made when first asked for."""

    def __init__(self, dialects: Mapping[str, Dialect], timeouts: Mapping[str, Timeouts], version: str) -> None:
        self.dialects = dialects
        self._timeouts = timeouts  # by engine
        self._version = version
        self._known: dict[tuple[str, Operation], Address] = {}
        self._labels: dict[str, Labels] = {}
        self._reachable: dict[tuple[str, str, str], bool] = {}  # by kind, operation and the client's dialect

    def find(self, target: Target, operation: Operation) -> Address:
        """The address; KeyError where the kind has no path for the operation (`reachable` says so before)."""
        address = self._known.get((target.name, operation))
        if address is None:
            row = kind(target.kind)
            address = Address(
                target, row, self.dialect(target, operation), row.paths[operation], self._version, self.labels(target),
                self._timeouts[target.engine],
            )  # fmt: skip
            if len(self._known) < ADDRESS_LIMIT:
                self._known[target.name, operation] = address
        return address

    def labels(self, target: Target) -> Labels:
        """What rules may know of a target."""
        labels = self._labels.get(target.name)
        if labels is None:
            labels = Labels(target.boundary, target.kind, target.region, target.baa_until, target.zero_retention)
            if len(self._labels) < ADDRESS_LIMIT:
                self._labels[target.name] = labels
        return labels

    def dialect(self, target: Target, operation: Operation) -> Dialect:
        """The dialect that the target speaks for this operation."""
        row = kind(target.kind)
        return self.dialects[row.foreign.get(operation, row.dialect)]

    def reachable(self, target: Target, request: Request) -> bool:
        """Can this operation be put to this target at all: as it is, or (for chats) translated?"""
        key = (target.kind, request.operation, request.dialect)
        found = self._reachable.get(key)
        if found is None:
            row, operation = kind(target.kind), request.operation
            found = operation in row.paths and (
                operation is Operation.CHAT or row.foreign.get(operation, row.dialect) == request.dialect
            )
            self._reachable[key] = found
        return found
