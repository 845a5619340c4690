"""The parts of a configuration, each a frozen structure with its defaults; amounts are read by their units."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from compliance.detectors.custom import CHECKSUMS
from compliance.expressions import Cel, ExpressionInvalid
from proxy import config_budgets, config_redis, quantities
from proxy.auth import PREFIX
from proxy.quantities import Wrong
from proxy.secrets import reference


def _quantity(parse: Any, pattern: str, example: str) -> Any:
    return (BeforeValidator(parse), WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]}))


Duration = Annotated[float, *_quantity(quantities.duration, r"^[0-9.]+ ?(ms|s|m|h|d)$", "2s")]
Age = Annotated[float, *_quantity(quantities.age, r"^[0-9.]+ ?(d|y)$", "6y")]
Bytes = Annotated[int, *_quantity(quantities.size, r"^[0-9.]+ ?([KMG]i?B)$", "64MB")]
Share = Annotated[float, *_quantity(quantities.share, r"^[0-9.]+ ?%$", "5%")]
Money = Annotated[int, *_quantity(quantities.money, r"^\$ ?[0-9._]+$", "$20000")]
Monthly = Annotated[int, *_quantity(quantities.monthly, r"^\$ ?[0-9._]+/month$", "$500/month")]
TokenPrice = Annotated[int, *_quantity(quantities.token_price, r"^\$ ?[0-9.]+/M$", "$2.50/M")]


def shaped(wrong: str, hint: str, *shapes: type | str | None) -> Any:
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


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


class Secret(Part):
    """A secret by reference.  The value is filled in at load and never shown."""

    env: str | None = Field(None, description="name of an environment variable")
    file: str | None = Field(None, description="path of a file")


Reference = Annotated[Secret, BeforeValidator(reference)]


class Listen(Part):
    host: str = "127.0.0.1"
    port: int = Field(8800, ge=0, le=65535)
    workers: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | Literal["auto"],
        shaped("must be auto, or a whole number of processes", "such as 2", "auto", int),
    ] = Field("auto", description="processes; auto: one per core but one")
    drain: Duration = Field(30.0, description="how long a stopping worker lets its requests end")

    @property
    def worker_count(self) -> int:
        import os

        return max(1, (os.cpu_count() or 2) - 1) if self.workers == "auto" else max(1, self.workers)


class RedisPart(Part):
    """How budgets in Redis are reached: a user and a password, files for TLS in PEM."""

    user: str | None = Field(None, min_length=1)
    password: Reference | None = None
    ca: str | None = Field(None, description="whose certificates are believed; default: those of this host")
    cert: str | None = Field(None, description="certificate that Redis asks for")
    key: str | None = Field(None, description="its key")
    prefix: Annotated[str, BeforeValidator(config_redis.prefix)] = Field(
        "spillway", description="of all keys: one for each deployment that a Redis serves"
    )
    grace: Duration = Field(
        5.0, description="after Redis was changed, workers that it does not know have so long to make themselves known"
    )


class State(Part):
    dir: str = "./state"
    store: Annotated[str, BeforeValidator(config_redis.store)] = Field(
        "sqlite",
        description="where budgets are kept: sqlite, in the state directory, or redis://HOST:PORT/DB (rediss:// over TLS) "
        "for replicas on several hosts",
    )
    redis: RedisPart = RedisPart()
    on_failure: Literal["stop", "go_on"] = Field(
        "stop",
        description="what becomes of cloud attempts where budgets cannot be asked; stop: only local engines answer; go_on: they "
        "go on, and are charged later, past the limit if it comes to that",
    )


class EngineModel(Part):
    id: str | None = Field(None, description="the engine's own name for it; default: the name here")
    context: int | None = Field(None, gt=0, description="tokens")
    max_output: int | None = Field(
        None,
        gt=0,
        description="tokens; bounds what a request can cost. With budgets it is asked of the engine where a request states no limit",
    )
    tools: bool | None = None
    vision: bool | None = None
    embeddings: bool | None = None
    json_schema: bool | None = None
    fine_tuned: bool = Field(False, description="a model of one's own; the scorecard counts them")


class Managed(Part):
    model: str = Field(description="a GGUF file, or smoke-test")
    slots: int = Field(4, ge=1, le=64)
    context: int = Field(2048, ge=128, description="tokens of each slot")
    threads: int = Field(0, ge=0)


class TimeoutsPart(Part):
    connect: Duration = 2.0
    first_event: Duration = 60.0
    idle: Duration = 60.0
    total: Duration = 600.0


class Agreement(Part):
    until: Day


class Contract(Part):
    """What the operator has agreed with who runs an engine: data that rules speak of."""

    baa: Agreement | None = Field(None, description="business associate agreement (45 CFR 164.504(e)), with its end")
    zero_retention: bool = False
    region: str = ""


class Watts(Part):
    idle: int = Field(0, ge=0, le=10_000_000)
    load: int = Field(0, ge=0, le=10_000_000)


class Cost(Part):
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
    prefill_weight: float = Field(
        1.0,
        ge=0.01,
        le=100,
        allow_inf_nan=False,
        description="what a second of reading a prompt costs, where one of writing costs 1",
    )
    prompt_speed: int = Field(
        20,
        ge=1,
        le=100_000,
        description="tokens read in the time in which one is written, of answers where neither was measured",
    )


class Engine(Part):
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


class Route(Part):
    small: tuple[str, ...]
    large: tuple[str, ...]
    long_at: int = Field(1000, gt=0, description="tokens of prompt from which a request counts as large")


class Routed(Part):
    route: Annotated[
        Route | Literal[True],
        shaped(
            "must be true, or small and large targets",
            "true, where decisions choose; or {small: [...], large: [...]}, where length and structure do",
            dict,
            bool,
        ),
    ]
    cheap: tuple[str, ...] | None = Field(
        None, description="with route: true, what NAME:cheap tries in order; default: local first, then by price"
    )
    best: tuple[str, ...] | None = Field(
        None, description="with route: true, what NAME:best tries in order; default: the dearest first"
    )


def _one_or_more(what: str, example: str) -> Any:
    """A name, or a list of names."""

    def take(value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, (list, tuple)):
            raise Wrong(f"must be {what}, or a list of them", f"such as {example}")
        return value

    return BeforeValidator(take, json_schema_input_type=str | tuple[str, ...])


class TargetWhen(Part):
    boundary: Annotated[tuple[str, ...], _one_or_more("a boundary", "cloud")] = ()
    provider: Annotated[tuple[str, ...], _one_or_more("an engine kind", "openai")] = ()
    region: Annotated[tuple[str, ...], _one_or_more("a region", "eu")] = ()
    contract: Annotated[tuple[str, ...], _one_or_more("baa or zero_retention", "baa")] = Field(
        (), description="all of these are in force today"
    )


class When(Part):
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


class RulePart(Part):
    name: str = Field(min_length=1, max_length=100)
    when: When = When()
    action: Literal["allow", "redact", "keep_local", "block"]


class Tenant(Part):
    context: Literal["health"] | None = Field(
        None, description="health: every identifier in its requests counts as under health context"
    )
    purpose: str = Field(
        "",
        max_length=200,
        description="what its requests are for, in words: stands in its records and in reports of disclosures",
    )


class Answers(Part):
    scan: bool = True
    found: Literal["pass", "mask", "stop"] = Field(
        "pass",
        description="what becomes of an identifier in an answer; pass: it is recorded and nothing else; mask: its kind stands "
        "in its place (`[SSN]`); stop: the answer ends in an error",
    )


class Pseudonyms(Part):
    """The way back from what redaction put in the place of identifiers, kept encrypted in the state directory."""

    keep: Duration = Field(30 * 86_400.0, description="after the scope was last used")
    values: int = Field(10_000, ge=100, le=100_000, description="of one scope; past it, its requests stay local")


class DetectorPart(Part):
    """A kind of identifier of the operator's own: it stays local whatever surrounds it, and is tested when it is read."""

    pattern: str = Field(description="RE2 syntax, ASCII")
    label: str | None = Field(None, description="plain words right before it")
    checksum: str | None = Field(None, description="of unlabelled ones: " + ", ".join(CHECKSUMS))
    matches: tuple[str, ...] = Field(description="examples that are found")
    rejects: tuple[str, ...] = Field((), description="examples that are not")


class Compliance(Part):
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


class Downgrade(Part):
    downgrade: tuple[str, ...] = Field(description="cheaper targets, tried in this order")


class BudgetPart(Part):
    """A limit for a scope in each window; `limit`, `tokens` and `requests` may stand together."""

    scope: Annotated[str, BeforeValidator(config_budgets.scope)] = Field(
        "org", description="org (the whole deployment), such as team/oncology, or for each of a level: each key"
    )
    window: Annotated[str, BeforeValidator(config_budgets.window)] = Field(
        "month", description="month, week, day, hour or minute of the calendar, or rolling and a duration: rolling 24h"
    )
    limit: Money | None = Field(None, description="in money; counts cloud attempts")
    tokens: int | None = Field(None, gt=0, le=10**15, description="in and out, cached ones too")
    requests: int | None = Field(None, gt=0, le=10**12)
    count: Literal["cloud", "all"] | None = Field(
        None, description="which attempts count as tokens and requests; default: all"
    )
    at_limit: Annotated[
        Literal["refuse", "local_only"] | Downgrade,
        shaped(
            "must be refuse, local_only, or a downgrade",
            "such as {downgrade: [openai/gpt-4o-mini]}",
            "refuse",
            "local_only",
            dict,
        ),
    ] = Field("refuse", description="what becomes of an attempt that could pass the limit")
    soft: tuple[Annotated[int | Literal["forecast"], BeforeValidator(config_budgets.percent)], ...] = Field(
        (), description="when alerts are sent: shares of the limit, and forecast"
    )
    zone: str = Field("UTC", description="the time zone of the calendar, such as Europe/Berlin")


class Alerts(Part):
    """Where thresholds of budgets are told: a webhook, signed where there is a secret (standardwebhooks.com)."""

    url: Annotated[
        Reference | str,
        shaped("must be a URL, or a secret", "such as https://hooks.example/spillway, or {env: NAME}", str, dict),
    ]
    secret: Reference | None = Field(None, description="signs each message with HMAC-SHA256")


class RatePart(Part):
    """What tokens cost; an input meter that is left out costs what input does, audio output what output does."""

    input: TokenPrice
    output: TokenPrice
    cached: TokenPrice | None = None
    cache_write: TokenPrice | None = None
    cache_write_1h: TokenPrice | None = None
    audio: TokenPrice | None = None
    audio_output: TokenPrice | None = None


class LongPart(RatePart):
    above: int = Field(gt=0, description="tokens of a prompt above which these count for the whole request")


class PricePart(RatePart):
    since: str = Field("", alias="from", description="ISO date; the first day on which it holds")
    batch: RatePart | None = Field(None, description="of the service tier of this name, as the two below")
    flex: RatePart | None = None
    priority: RatePart | None = None
    long: LongPart | None = None
    max_output: int | None = Field(None, gt=0, description="tokens that the model writes at most")


class Bucket(Part):
    """An S3-compatible bucket with object lock."""

    endpoint: str = Field(description="such as https://s3.eu-central-1.amazonaws.com")
    bucket: str
    region: str = "us-east-1"
    prefix: str = "spillway"
    access_key: Reference
    secret_key: Reference
    session_token: Reference | None = None
    lock: Literal["compliance", "governance", "none"] = Field(
        "compliance", description="of each object; none: the bucket has a default of its own"
    )
    retain: Duration = Field(6 * 365 * 86_400.0, description="how long no object can be deleted or overwritten")


class Webhook(Part):
    """Signed checkpoints as the bodies of POST requests."""

    url: str
    secret: Reference = Field(description="of the HMAC over each request")


class WitnessPart(Part):
    """A place outside that is handed the signed checkpoints: what it has, nobody can take back."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    directory: str | None = Field(None, description="on another disk; it must be there already")
    s3: Bucket | None = None
    webhook: Webhook | None = None
    every: Duration = Field(60.0, description="between two checkpoints of a log")
    boundary: Literal["cloud", "local"] = Field(
        "cloud", description="local: its address must be private, and no egress proxy is used"
    )


class Transit(Part):
    """A key of HashiCorp Vault's Transit engine, or of what speaks like it."""

    url: str = Field(description="its mount, such as https://vault.example:8200/v1/transit")
    key: str = Field("spillway", pattern=r"^[A-Za-z0-9._-]{1,128}$")
    token: Reference


class Kms(Part):
    """Who keeps the master key instead of a file: one of the two."""

    command: tuple[str, ...] = Field(
        (), description="gets wrap or unwrap as its last argument and bytes on standard input, and prints bytes"
    )
    transit: Transit | None = None


class Captures(Part):
    """Prompts and answers, kept encrypted; reading one takes two operators and leaves records."""

    tenants: tuple[str, ...] | None = Field(None, description="whose requests; default: everybody's")
    rules: tuple[str, ...] | None = Field(None, description="where one of these rules decided; default: any, or none")
    parts: tuple[Literal["original", "sent", "answered"], ...] = Field(
        ("original", "sent", "answered"),
        description="what is kept; []: commitments alone, which always stand for all three",
    )
    limit: Bytes = Field(
        1_000_000, ge=1, le=64_000_000, description="of each part; the rest is cut off, and the record says so"
    )
    keep: Duration = Field(
        90 * 86_400.0, description="then captures and their keys are removed, but for those under a hold"
    )
    lost: Literal["record", "refuse"] = Field(
        "record",
        description="where captures cannot be written; record: the log says which are lost; refuse: nothing is sent",
    )
    key: Reference | None = Field(
        None,
        description="the master key's file; default: vault.key in the state directory, made by `spillway vault init`",
    )
    kms: Kms | None = None


class Audit(Part):
    dir: str = "./audit"
    captures: Captures | None = Field(None, description="off by default; {}: everything is captured")
    on_failure: Literal["refuse", "keep_local"] = Field(
        "refuse",
        description="when the log cannot be written; keep_local: what would leave is served by local engines where it can be",
    )
    lag: Duration | None = Field(
        None,
        description="how far local requests may run ahead of their records; past it they wait for them. Default: 1s, and 1h "
        "with on_failure: keep_local",
    )
    witness: tuple[WitnessPart, ...] = ()
    retention: Age | None = Field(
        None, description="how long records are kept: `spillway audit retain` removes older ones. Default: for ever"
    )
    key: Reference | None = Field(
        None, description="the signing key's file; default: key in the directory, made at first start"
    )
    local: Literal["deferred", "durable"] = Field(
        "deferred", description="durable: local requests wait for their record, too"
    )

    @property
    def may_lag(self) -> float:
        """Seconds that local requests may run ahead of their records."""
        if self.lag is not None:
            return self.lag
        return 3600.0 if self.on_failure == "keep_local" else 1.0


class Prometheus(Part):
    host: str = "127.0.0.1"
    port: int = Field(8801, ge=1, le=65535)


class TelemetryPart(Part):
    otlp: str | None = Field(None, description="an OpenTelemetry collector, e.g. http://collector:4318")
    sample: Share = Field(0.05)
    prometheus: Annotated[
        Prometheus | bool,
        shaped("must be true, false, or a mapping", "such as {host: 127.0.0.1, port: 8801}", dict, bool),
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


class KeyPart(Part):
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


class Queue(Part):
    max_wait: Duration = 2.0
    length: int = Field(64, ge=0)


class LimitsPart(Part):
    body: Bytes = 64_000_000
    answer: Bytes = 64_000_000
    header_timeout: Duration = 10.0
    body_timeout: Duration = 30.0
    attempts: int = Field(3, ge=1, le=10)
    queue: Queue = Queue()
    tokenizer: Literal["first_need", "start", "off"] = Field(
        "first_need",
        description="counts the tokens of a cloud's answers that ended without saying how many, in a process of its own that takes "
        "80 MB: at first need, and as long as it is asked; or from the start. vLLM and llama.cpp count theirs themselves. off: "
        "neither; a token a byte of a cloud's answer, the most that it can have been, and for four of a local one's",
    )
