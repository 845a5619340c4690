"""The configuration: one YAML file, every mistake at once, each with its line, its path and what would be right.

`load` gives frozen `Settings`.  Everything has a default; an empty file is valid.  Secrets come from the
environment or from files, never from the file itself, and are never printed.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, WithJsonSchema

from compliance.detectors.custom import CHECKSUMS
from compliance.expressions import Cel, ExpressionInvalid
from compliance.rules import policy_hash
from proxy import quantities
from proxy.auth import PREFIX
from proxy.config_checks import check, check_files
from proxy.config_errors import ConfigInvalid, Location, Mistake, from_validation, parse_yaml, without
from proxy.quantities import Wrong
from proxy.secrets import reference, resolve_secrets


def _quantity(parse: Any, pattern: str, example: str) -> Any:
    return (BeforeValidator(parse), WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]}))


Duration = Annotated[float, *_quantity(quantities.duration, r"^[0-9.]+ ?(ms|s|m|h|d)$", "2s")]
Bytes = Annotated[int, *_quantity(quantities.size, r"^[0-9.]+ ?([KMG]i?B)$", "64MB")]
Share = Annotated[float, *_quantity(quantities.share, r"^[0-9.]+ ?%$", "5%")]
Money = Annotated[int, *_quantity(quantities.money, r"^\$ ?[0-9._]+$", "$20000")]
Monthly = Annotated[int, *_quantity(quantities.monthly, r"^\$ ?[0-9._]+/month$", "$500/month")]
TokenPrice = Annotated[int, *_quantity(quantities.token_price, r"^\$ ?[0-9.]+/M$", "$2.50/M")]


def _is(wrong: str, hint: str, *shapes: type | str | None) -> Any:
    """Which shapes a union takes, said once and in words; pydantic would report each branch of its own."""
    classes = tuple(shape for shape in shapes if isinstance(shape, type))

    def take(value: Any) -> Any:
        fits = isinstance(value, (BaseModel, *classes)) or (isinstance(value, str | None) and value in shapes)
        if not fits or (isinstance(value, bool) and bool not in classes):
            raise Wrong(wrong, hint)
        return value

    return BeforeValidator(take)


def _day(value: Any) -> Any:
    """An ISO day as days since the epoch."""
    text = value.isoformat() if isinstance(value, datetime.date) else value
    try:
        return datetime.date.fromisoformat(text).toordinal() - EPOCH
    except (TypeError, ValueError):
        raise Wrong("must be a day", "such as 2027-03-31") from None


EPOCH = datetime.date(1970, 1, 1).toordinal()
Day = Annotated[
    int, BeforeValidator(_day, json_schema_input_type=str), WithJsonSchema({"type": "string", "format": "date"})
]


def _expression(value: Any) -> Any:
    if not isinstance(value, str):
        raise Wrong("must be an expression in CEL", 'such as "ssn" in found')
    try:
        Cel(value)
    except ExpressionInvalid as invalid:
        raise Wrong(str(invalid), invalid.hint) from None
    return value


Expression = Annotated[str, BeforeValidator(_expression)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Secret(_Part):
    """A secret by reference.  The value is filled in at load and never shown."""

    env: str | None = Field(None, description="name of an environment variable")
    file: str | None = Field(None, description="path of a file")


Reference = Annotated[Secret, BeforeValidator(reference)]


class Listen(_Part):
    host: str = "127.0.0.1"
    port: int = Field(8800, ge=0, le=65535)
    workers: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | Literal["auto"],
        _is("must be auto, or a whole number of processes", "such as 2", "auto", int),
    ] = Field("auto", description="processes; auto: one per core but one")
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


class Agreement(_Part):
    until: Day


class Contract(_Part):
    """What the operator has agreed with who runs an engine: data that rules speak of."""

    baa: Agreement | None = Field(None, description="business associate agreement (45 CFR 164.504(e)), with its end")
    zero_retention: bool = False
    region: str = ""


class Watts(_Part):
    idle: int = Field(0, ge=0, le=10_000_000)
    load: int = Field(0, ge=0, le=10_000_000)


class Cost(_Part):
    """The rate card of a pool of one's own: what all of its replicas cost together."""

    purchase: Money = 0
    life_years: float = Field(4.0, ge=0.25, le=50, allow_inf_nan=False)
    residual: Share = Field(0.0, description="what it is sold for at the end of its life, of the purchase")
    financing: Share = Field(0.0, description="interest a year, on the average that is bound")
    watts: Watts = Field(Watts(), description="what it draws idle, and while it answers")
    pue: float = Field(
        1.0, ge=1, le=10, allow_inf_nan=False, description="power usage effectiveness of where it stands"
    )
    kwh: Money = Field(0, description="price of a kilowatt-hour")
    rent: Monthly = 0
    staff: Monthly = 0


class Engine(_Part):
    kind: str
    replicas: tuple[str, ...] = ()
    models: dict[str, EngineModel | None] = {}
    key: Reference | None = None
    boundary: str | None = Field(None, description="local or cloud; default: as its kind is")
    contract: Contract = Contract()
    peers: tuple[str, ...] = Field(
        (), description="networks in CIDR that count as local beside loopback and private ones"
    )
    concurrency: int | None = Field(None, ge=1, description="requests at once, over all workers")
    managed: Managed | None = None
    cost: Cost | None = Field(None, description="what it costs; for local engines, cloud engines have prices")
    timeouts: TimeoutsPart = TimeoutsPart()


class Route(_Part):
    small: tuple[str, ...]
    large: tuple[str, ...]
    long_at: int = Field(1000, gt=0, description="tokens of prompt from which a request counts as large")


class Routed(_Part):
    route: Route


def _one_or_more(what: str, example: str) -> Any:
    """A name, or a list of names."""

    def take(value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, (list, tuple)):
            raise Wrong(f"must be {what}, or a list of them", f"such as {example}")
        return value

    return BeforeValidator(take, json_schema_input_type=str | tuple[str, ...])


class TargetWhen(_Part):
    boundary: Annotated[tuple[str, ...], _one_or_more("a boundary", "cloud")] = ()
    provider: Annotated[tuple[str, ...], _one_or_more("an engine kind", "openai")] = ()
    region: Annotated[tuple[str, ...], _one_or_more("a region", "eu")] = ()
    contract: Annotated[tuple[str, ...], _one_or_more("baa or zero_retention", "baa")] = Field(
        (), description="all of these are in force today"
    )


class When(_Part):
    """Conditions; a rule matches where all that are given hold."""

    found: Annotated[tuple[str, ...], _one_or_more("a kind of identifier", "[card, secret]")] = Field(
        (), description="any of these was found; left out: the rule speaks of the whole request"
    )
    tenant: Annotated[tuple[str, ...], _one_or_more("a tenant", "[clinic]")] = ()
    application: Annotated[tuple[str, ...], _one_or_more("a project", "[triage]")] = ()
    key: Annotated[tuple[str, ...], _one_or_more("a key's name", "[nightly]")] = ()
    surface: Annotated[tuple[str, ...], _one_or_more("a surface", "openai.embeddings")] = ()
    model: Annotated[tuple[str, ...], _one_or_more("a model", "gpt-4o")] = Field((), description="as asked for")
    health: bool | None = Field(None, description="the request has health context, or has not")
    target: TargetWhen = TargetWhen()
    cel: Expression | None = Field(
        None,
        description="an expression in CEL over found, tenant, application, key, surface, model, health and target",
    )


class RulePart(_Part):
    name: str = Field(min_length=1, max_length=100)
    when: When = When()
    action: Literal["allow", "redact", "keep_local", "block"]


class Tenant(_Part):
    context: Literal["health"] | None = Field(
        None, description="health: every identifier in its requests counts as under health context"
    )


class Answers(_Part):
    scan: bool = True
    found: Literal["pass", "mask", "stop"] = Field(
        "pass",
        description="what becomes of an identifier in an answer; pass: it is recorded and nothing else; mask: its kind stands "
        "in its place (`[SSN]`); stop: the answer ends in an error",
    )


class Pseudonyms(_Part):
    """The way back from what redaction put in the place of identifiers, kept encrypted in the state directory."""

    keep: Duration = Field(30 * 86_400.0, description="after the scope was last used")
    values: int = Field(10_000, ge=100, le=100_000, description="of one scope; past it, its requests stay local")


class DetectorPart(_Part):
    """A kind of identifier of the operator's own: it stays local whatever surrounds it, and is tested when it is read."""

    pattern: str = Field(description="RE2 syntax, ASCII")
    label: str | None = Field(None, description="plain words right before it")
    checksum: str | None = Field(None, description="of unlabelled ones: " + ", ".join(CHECKSUMS))
    matches: tuple[str, ...] = Field(description="examples that are found")
    rejects: tuple[str, ...] = Field((), description="examples that are not")


class Compliance(_Part):
    tier: Literal["fast", "full"] = Field(
        "full", description="full: names and places are looked for by the learned model, too"
    )
    detectors: dict[str, DetectorPart] = {}
    plugins: tuple[str, ...] = Field(
        (),
        description="detectors from elsewhere, such as presidio, or those of installed packages (spillway.detectors)",
    )
    scan: Literal["always", "needed"] = Field(
        "always", description="needed: requests whose every candidate is local are not scanned, and stay local"
    )
    tenants: dict[str, Tenant] = {}
    rules: tuple[RulePart, ...] = ()
    answers: Answers = Answers()
    pseudonyms: Pseudonyms = Pseudonyms()
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
    key: Reference | None = Field(
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
    prometheus: Annotated[
        Prometheus | bool, _is("must be true, false, or a mapping", "such as {host: 127.0.0.1, port: 8801}", dict, bool)
    ] = False


def _hash(value: Any) -> Any:
    text = value if isinstance(value, str) else ""
    if text.startswith(PREFIX):
        raise Wrong(
            "holds the key itself; a secret never stands in the file",
            "write its hash (sha256:...), and make a new key, since this one was written down",
        )
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        if re.fullmatch(r"(?i:sha256:)?[0-9A-Fa-f]{64}", text):
            raise Wrong("must be sha256: and 64 characters of hex, in small letters", "write sha256: before the hash")
        raise Wrong("must be sha256: and 64 characters of hex", "printf %s KEY | sha256sum prints them")
    return text


class KeyPart(_Part):
    hash: Annotated[str, BeforeValidator(_hash)] = Field(
        pattern=r"^sha256:[0-9a-f]{64}$", description="SHA-256 of the key, in hex"
    )
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
    models: dict[
        str,
        Annotated[
            tuple[str, ...] | Routed,
            _is(
                "must be a list of targets, or a route",
                "such as [gpu/llama-70b, openai/gpt-4o], or {route: {small: [...], large: [...]}}",
                list,
                tuple,
                dict,
            ),
        ],
    ] = {}
    compliance: Compliance = Compliance()
    budgets: tuple[Budget, ...] = ()
    prices: dict[str, PricePart] = {}
    unpriced: Annotated[
        Literal["refuse"] | PricePart,
        _is("must be refuse, or a price", "such as {input: $2.50/M, output: $10/M}", "refuse", dict),
    ] = "refuse"
    audit: Audit = Audit()
    telemetry: TelemetryPart = TelemetryPart()
    keys: dict[str, KeyPart] = {}
    limits: LimitsPart = LimitsPart()
    egress: Annotated[
        Reference | str | None,
        _is("must be a URL, or a secret", "such as http://proxy:3128, or {env: NAME}", str, dict, None),
    ] = Field(
        None,
        alias="egress_proxy",
        description="an HTTP proxy for cloud engines, e.g. http://proxy:3128; {env: NAME} where it holds a password",
    )
    _secrets: dict[str, str] = PrivateAttr(default_factory=dict)  # by the path of their reference
    _source: dict[str, Any] = PrivateAttr(default_factory=dict)  # as the file held it

    @property
    def policy_hash(self) -> str:
        """Names the policy in force."""
        return policy_hash(self.policy_material)

    @property
    def policy_material(self) -> bytes:
        """What the policy's hash is taken over: all that decides where a prompt may and should go; no secret."""
        parts = self.model_dump(
            include={"engines", "models", "compliance", "budgets", "prices", "unpriced"},
            exclude={"engines": {"__all__": {"cost"}}},
            mode="json",
        )
        for engine in parts["engines"].values():
            if engine[
                "managed"
            ]:  # where Spillway itself runs an engine its port is new with each start, and decides nothing
                engine["replicas"] = []
        return json.dumps(parts, sort_keys=True).encode()

    @property
    def egress_proxy(self) -> str | None:
        """The URL of the proxy that cloud engines are reached through; it may hold a password."""
        return self.egress if isinstance(self.egress, str) else self.secret("egress_proxy")

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
            wrong = from_validation(error, Settings, source, {})
            raise ConfigInvalid("the command line", [mistake for _, mistake in wrong]) from None

    @classmethod
    def _of(cls, source: dict[str, Any], secrets: dict[str, str]) -> Settings:
        settings = cls.model_validate(source)
        settings._source, settings._secrets = source, secrets
        return settings


def load(
    source: Path | str, environ: Mapping[str, str], *, name: str = "the configuration", secrets: bool = True
) -> Settings:
    """Settings of a file (a Path) or of YAML text; raises `ConfigInvalid` with every mistake.

    Without `secrets` none is looked up, and no engine's file: for commands that reach no engine, which may run where
    neither is at hand.
    """
    text = _read(source) if isinstance(source, Path) else source
    name = str(source) if isinstance(source, Path) else name
    value, lines = parse_yaml(text, name)
    return build(value, environ, lines=lines, name=name, secrets=secrets, files=secrets)


def build(
    value: dict[str, Any],
    environ: Mapping[str, str],
    *,
    lines: Mapping[Location, int] | None = None,
    name: str = "the configuration",
    secrets: bool = True,
    files: bool = False,
) -> Settings:
    """Settings of a parsed configuration.  What does not fit is set aside, so that the rest is checked, too."""
    lines = lines or {}
    mistakes: list[Mistake] = []
    cut: set[Location] = set()
    settings: Settings | None
    try:
        settings = Settings._of(value, {})
    except ValidationError as error:
        wrong = from_validation(error, Settings, value, lines)
        mistakes += [mistake for _, mistake in wrong]
        settings, cut = _what_fits(value, [place for place, _ in wrong])
    values: dict[str, str] = {}
    if settings is not None:
        mistakes += check(settings, lines, cut)
        if secrets:
            values, missing = resolve_secrets(settings, environ, lines)
            mistakes += missing
        if files:
            mistakes += check_files(settings, lines)
    if mistakes:
        raise ConfigInvalid(name, sorted(mistakes))
    return Settings._of(value, values)


def _what_fits(value: dict[str, Any], places: list[Location]) -> tuple[Settings | None, set[Location]]:
    """(settings of all but what stands at these places, what was cut); None where nothing can be told."""
    cut: set[Location] = set()
    while True:
        value, gone = without(value, places)
        cut |= gone
        if not gone:
            return None, cut
        try:
            return Settings._of(value, {}), cut
        except ValidationError as error:  # what was cut is missed elsewhere: cut there as well, and say nothing
            places = [place for place, _ in from_validation(error, Settings, value, {})]


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
    _without_numbers(value)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Spillway configuration",
        **{k: v for k, v in value.items() if k != "title"},
    }


def _without_numbers(part: Any) -> None:
    """Where text with a unit is asked for, the default in seconds or bytes would mislead an editor."""
    if isinstance(part, dict):
        if part.get("type") == "string" and not isinstance(part.get("default", ""), str):
            del part["default"]
        for inner in part.values():
            _without_numbers(inner)
    elif isinstance(part, list):
        for inner in part:
            _without_numbers(inner)
