"""The configuration: one YAML file, every mistake at once, each with its line, its path and what would be right.

`load` gives frozen `Settings`.  Everything has a default; an empty file is valid.  Secrets come from the
environment or from files, never from the file itself, and are never printed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, WithJsonSchema

from compliance.rules import policy_hash
from proxy import quantities
from proxy.config_checks import check
from proxy.config_errors import ConfigInvalid, Mistake, from_validation, parse_yaml
from proxy.secrets import resolve_secrets


def _quantity(parse: Any, pattern: str, example: str) -> Any:
    return (BeforeValidator(parse), WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]}))


Duration = Annotated[float, *_quantity(quantities.duration, r"^[0-9.]+ ?(ms|s|m|h|d)$", "2s")]
Bytes = Annotated[int, *_quantity(quantities.size, r"^[0-9.]+ ?([KMG]i?B)$", "64MB")]
Share = Annotated[float, *_quantity(quantities.share, r"^[0-9.]+ ?%$", "5%")]
Money = Annotated[int, *_quantity(quantities.money, r"^\$ ?[0-9._]+$", "$20000")]
TokenPrice = Annotated[int, *_quantity(quantities.token_price, r"^\$ ?[0-9.]+/M$", "$2.50/M")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Secret(_Part):
    """A secret by reference.  The value is filled in at load and never shown."""

    env: str | None = Field(None, description="name of an environment variable")
    file: str | None = Field(None, description="path of a file")


class Listen(_Part):
    host: str = "127.0.0.1"
    port: int = Field(8800, ge=0, le=65535)
    workers: Literal["auto"] | int = Field("auto", description="processes; auto: one per core but one")
    drain: Duration = Field(30.0, description="how long a stopping worker lets its requests end")

    @property
    def worker_count(self) -> int:
        import os

        return max(1, (os.cpu_count() or 2) - 1) if self.workers == "auto" else max(1, self.workers)


class State(_Part):
    dir: str = "./state"
    store: Literal["sqlite"] = "sqlite"


class EngineModel(_Part):
    id: str | None = Field(None, description="the engine's own name for it; default: the name here")
    context: int | None = Field(None, gt=0, description="tokens")
    max_output: int | None = Field(None, gt=0, description="tokens; bounds what a request can cost")
    tools: bool | None = None
    vision: bool | None = None
    embeddings: bool | None = None
    json_schema: bool | None = None


class Managed(_Part):
    model: str = Field(description="a GGUF file, or smoke-test")
    slots: int = Field(4, ge=1, le=64)
    context: int = Field(2048, ge=128, description="tokens of each slot")
    threads: int = Field(0, ge=0)


class TimeoutsPart(_Part):
    connect: Duration = 2.0
    first_event: Duration = 60.0
    idle: Duration = 60.0
    total: Duration = 600.0


class Engine(_Part):
    kind: str
    replicas: tuple[str, ...] = ()
    models: dict[str, EngineModel | None] = {}
    key: Secret | None = None
    boundary: str | None = Field(None, description="local or cloud; default: as its kind is")
    peers: tuple[str, ...] = Field(
        (), description="networks in CIDR that count as local beside loopback and private ones"
    )
    concurrency: int | None = Field(None, ge=1, description="requests at once, over all workers")
    managed: Managed | None = None
    timeouts: TimeoutsPart = TimeoutsPart()


class Route(_Part):
    small: tuple[str, ...]
    large: tuple[str, ...]
    long_at: int = Field(1000, gt=0, description="tokens of prompt from which a request counts as large")


class Routed(_Part):
    route: Route


class When(_Part):
    found: tuple[str, ...] = ()
    tenant: tuple[str, ...] | str = ()


class RulePart(_Part):
    name: str
    when: When = When()
    action: Literal["allow", "keep_local", "block"]


class Answers(_Part):
    scan: bool = True


class Compliance(_Part):
    scan: Literal["always", "needed"] = Field(
        "always", description="needed: requests whose every candidate is local are not scanned, and stay local"
    )
    rules: tuple[RulePart, ...] = ()
    answers: Answers = Answers()
    opaque: Literal["keep_local", "allow", "block"] = "keep_local"
    deadline: Duration = Field(2.0, description="for scanning a large body; past it the request stays local")


class Budget(_Part):
    scope: Literal["org"] = "org"
    window: Literal["month", "day", "hour"] = "month"
    limit: Money


class PricePart(_Part):
    input: TokenPrice
    output: TokenPrice
    cached: TokenPrice | None = None
    cache_write: TokenPrice | None = None
    cache_write_1h: TokenPrice | None = None
    since: str = Field("", alias="from", description="ISO date")


class Audit(_Part):
    dir: str = "./audit"
    key: Secret | None = Field(
        None, description="the signing key's file; default: key in the directory, made at first start"
    )
    local: Literal["deferred", "durable"] = Field(
        "deferred", description="durable: local requests wait for their record, too"
    )


class Prometheus(_Part):
    host: str = "127.0.0.1"
    port: int = Field(8801, ge=1, le=65535)


class TelemetryPart(_Part):
    otlp: str | None = Field(None, description="an OpenTelemetry collector, e.g. http://collector:4318")
    sample: Share = Field(0.05)
    prometheus: Prometheus | bool = False


class KeyPart(_Part):
    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", description="of the key; `spillway keys create` prints it")
    organisation: str = "default"
    team: str = ""
    project: str = ""
    tenant: str | None = None
    models: tuple[str, ...] | None = None
    boundaries: tuple[str, ...] | None = None
    expires: str | None = Field(None, description="ISO date")


class Queue(_Part):
    max_wait: Duration = 2.0
    length: int = Field(64, ge=0)


class LimitsPart(_Part):
    body: Bytes = 64_000_000
    answer: Bytes = 64_000_000
    header_timeout: Duration = 10.0
    body_timeout: Duration = 30.0
    attempts: int = Field(3, ge=1, le=10)
    queue: Queue = Queue()


class Settings(_Part):
    """The whole configuration, frozen.  The values of secrets are kept apart and never shown."""

    listen: Listen = Listen()
    state: State = State()
    engines: dict[str, Engine] = {}
    models: dict[str, tuple[str, ...] | Routed] = {}
    compliance: Compliance = Compliance()
    budgets: tuple[Budget, ...] = ()
    prices: dict[str, PricePart] = {}
    unpriced: Literal["refuse"] | PricePart = "refuse"
    audit: Audit = Audit()
    telemetry: TelemetryPart = TelemetryPart()
    keys: dict[str, KeyPart] = {}
    limits: LimitsPart = LimitsPart()
    egress_proxy: str | None = Field(None, description="an HTTP proxy for cloud engines, e.g. http://proxy:3128")
    _secrets: dict[str, str] = PrivateAttr(default_factory=dict)  # by the path of their reference
    _source: dict[str, Any] = PrivateAttr(default_factory=dict)  # as the file held it

    @property
    def policy_hash(self) -> str:
        """Names the policy in force: all that decides where a prompt may and should go."""
        parts = self.model_dump(
            include={"engines", "models", "compliance", "budgets", "prices", "unpriced"}, mode="json"
        )
        return policy_hash(json.dumps(parts, sort_keys=True).encode())

    def secret(self, path: str) -> str | None:
        """The value behind a reference, e.g. `engines.openai.key`."""
        return self._secrets.get(path)

    def dump(self) -> bytes:
        """For a worker: with the secrets, so it goes through a pipe and nowhere else."""
        return json.dumps({"source": self._source, "secrets": self._secrets}).encode()

    @classmethod
    def undump(cls, data: bytes) -> Settings:
        whole = json.loads(data)
        return cls._of(whole["source"], whole["secrets"])

    def with_replicas(self, replicas: Mapping[str, tuple[str, ...]]) -> Settings:
        """A copy in which engines that Spillway runs itself have the addresses that they got."""
        source = json.loads(json.dumps(self._source))
        for name, urls in replicas.items():
            source["engines"][name]["replicas"] = list(urls)
        return self._of(source, self._secrets)

    def changed(self, *, listen: Mapping[str, Any], state_dir: Path | None) -> Settings:
        """A copy with what the command line says instead."""
        source = json.loads(json.dumps(self._source))
        source.setdefault("listen", {}).update(listen)
        if state_dir is not None:
            source.setdefault("state", {})["dir"] = str(state_dir)
            source.setdefault("audit", {}).setdefault("dir", str(state_dir / "audit"))
        try:
            return self._of(source, self._secrets)
        except ValidationError as error:
            raise ConfigInvalid("the command line", from_validation(error, Settings, {})) from None

    @classmethod
    def _of(cls, source: dict[str, Any], secrets: dict[str, str]) -> Settings:
        settings = cls.model_validate(source)
        settings._source, settings._secrets = source, secrets
        return settings


def load(source: Path | str, environ: Mapping[str, str], *, name: str = "the configuration") -> Settings:
    """Settings of a file (a Path) or of YAML text; raises `ConfigInvalid` with every mistake."""
    text = _read(source) if isinstance(source, Path) else source
    value, lines = parse_yaml(text, str(source) if isinstance(source, Path) else name)
    return build(value, environ, lines=lines, name=str(source) if isinstance(source, Path) else name)


def build(
    value: dict[str, Any],
    environ: Mapping[str, str],
    *,
    lines: Mapping[tuple[Any, ...], int] | None = None,
    name: str = "the configuration",
) -> Settings:
    """Settings of a parsed configuration."""
    mistakes: list[Mistake] = []
    try:
        settings = Settings._of(value, {})
    except ValidationError as error:
        raise ConfigInvalid(name, from_validation(error, Settings, lines or {})) from None
    mistakes += check(settings, lines or {})
    secrets, missing = resolve_secrets(settings, environ, lines or {})
    mistakes += missing
    if mistakes:
        raise ConfigInvalid(name, sorted(mistakes, key=lambda mistake: mistake.line))
    return Settings._of(value, secrets)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigInvalid(
            str(path), [Mistake(0, "", f"cannot be read: {error.strerror}", "pass the path with --config")]
        ) from None
    except UnicodeDecodeError:
        raise ConfigInvalid(str(path), [Mistake(0, "", "is not UTF-8 text", "")]) from None


def schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors."""
    value = Settings.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Spillway configuration",
        **{k: v for k, v in value.items() if k != "title"},
    }
