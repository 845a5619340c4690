"""What a schema cannot say: names that must resolve, boundaries that must hold, days that must exist."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from compliance.conflicts import conflicts
from compliance.detectors.custom import MAX_DETECTORS, CustomError, custom_patterns
from compliance.rules import CONTRACTS, TYPES
from engines.kinds import KINDS, Kind, UnknownKind, kind
from engines.peers import peer_allowed
from proxy import config_budgets, config_redis, decision_checks, escalation_checks, experiment_checks
from proxy.config_errors import EXAMPLES, Lines, Location, Mistake, dotted, line_of, nearest
from proxy.config_rules import detector_of, rule_of
from proxy.surfaces import BY_NAME

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_parts import Cost, Engine, PricePart, WitnessPart

BOUNDARIES = ("local", "cloud")
SMOKE_MODEL = "smoke-test"
_ENGINE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MODEL_NAME = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")

Found = Iterator[tuple[Location, str, str]]


def check(settings: Settings, lines: Lines, cut: set[Location] | frozenset[Location] = frozenset()) -> list[Mistake]:
    """Every mistake in what the parts say of each other.

    `cut` are the places that did not even have the right form and are missing here: what depends on them is not judged.
    """
    names = _Names(settings, cut)
    parts = (
        _engines,
        _models,
        _decisions,
        _experiments,
        _detectors,
        _plugins,
        _rules,
        _answers,
        _budgets,
        _prices,
        _keys,
        _doors,
        _waits,
        _audit,
        _captures,
    )
    found = [row for part in parts for row in part(settings, names)]
    return [Mistake(line_of(path, lines), dotted(path), wrong, hint) for path, wrong, hint in found]


def check_files(settings: Settings, lines: Lines) -> list[Mistake]:
    """Files that must be there before Spillway can serve: the models that it runs itself."""
    found = [Mistake(line_of(path, lines), dotted(path), *rest) for path, *rest in config_redis.missing_files(settings)]
    for name, engine in settings.engines.items():
        path: Location = ("engines", name, "managed", "model")
        if engine.managed is None or engine.managed.model == SMOKE_MODEL or is_gguf(Path(engine.managed.model)):
            continue
        found.append(
            Mistake(line_of(path, lines), dotted(path), "is no GGUF file", f"the path of one, or {SMOKE_MODEL}")
        )
    return found


def is_gguf(path: Path) -> bool:
    """Does the file begin as GGUF files do?"""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"
    except (OSError, ValueError):
        return False


def public_models(settings: Settings) -> tuple[str, ...]:
    """The names that applications can ask for; empty where any name is passed through, or none is known."""
    names = _Names(settings, frozenset())
    return () if names.wild else tuple(names.public)


class _Names:
    """The names that a configuration declares, and what is known of them."""

    def __init__(self, settings: Settings, cut: set[Location] | frozenset[Location]) -> None:
        self._cut = cut
        self.engines = tuple(settings.engines)
        self.targets = {
            f"{name}/{model}": None
            for name, engine in settings.engines.items()
            for model in engine.models
            if model != "*"
        }
        self.wild = {name for name, engine in settings.engines.items() if "*" in engine.models}
        declared = settings.models or [target.partition("/")[2] for target in self.targets]
        self.public = dict.fromkeys(decision_checks.derived(settings, declared))

    def whole(self, section: str) -> bool:
        """Is nothing of this section missing?"""
        return not any(place[:1] == (section,) for place in self._cut)

    def there(self, *path: str) -> bool:
        """Is what the file has at this place here, too?"""
        return not any(path[: len(place)] == place for place in self._cut)

    def target(self, name: str) -> tuple[str, str] | None:
        """What is wrong with a target's name, and what would be right; None: nothing, or it cannot be told."""
        engine, slash, model = name.partition("/")
        if name in self.targets or (engine in self.wild and model and model != "*"):
            return None
        if not self.there("engines", engine, "models", model):
            return None
        if slash and engine in self.engines:
            if model in ("", "*"):
                return f"{name!r} names no model", f"such as {engine}/MODEL"
            return f"{name!r} is no engine/model", nearest(
                name, [t for t in self.targets if t.startswith(f"{engine}/")]
            )
        if not slash:
            having = [target for target in self.targets if target.partition("/")[2] == name]
            having += [target for target in self.targets if target.partition("/")[0] == name]
            if having:
                return f"{name!r} is no engine/model", f"did you mean {having[0]!r}?"
        return f"{name!r} is no engine/model", nearest(
            name, [*self.targets, *(f"{wild}/MODEL" for wild in sorted(self.wild))]
        )


def _engines(settings: Settings, names: _Names) -> Found:
    for name, engine in settings.engines.items():
        path: Location = ("engines", name)
        if "/" in name:
            yield path, "an engine's name cannot hold a slash", "it stands before the slash of engine/model"
        elif not _ENGINE_NAME.fullmatch(name):
            yield path, "an engine's name is letters, digits, dots, dashes and underscores", "such as gpu-a"
        for model in engine.models:
            if not _MODEL_NAME.fullmatch(model):
                yield (*path, "models", model), "a model's name is printable ASCII, up to 256 characters", ""
        try:
            row = kind(engine.kind)
        except UnknownKind:
            yield (*path, "kind"), f"{engine.kind!r} is no engine kind", nearest(engine.kind, KINDS)
            continue
        yield from _engine(path, engine, row, names)


def _engine(path: Location, engine: Engine, row: Kind, names: _Names) -> Found:
    boundary = engine.boundary or row.boundary
    there = all(names.there(*path, part) for part in ("replicas", "managed"))
    if there and not engine.replicas and not engine.managed and row.url is None:
        yield path, "has no address", f"give replicas: [http://127.0.0.1:{row.port or 8000}]"
    if row.url is not None and not engine.replicas and names.there(*path, "replicas"):
        if engine.key is None and names.there(*path, "key"):
            yield path, f"has no key, and {row.title} answers nobody without one", "give key: {env: NAME}"
        if boundary == "local" and names.there(*path, "boundary"):
            yield (*path, "boundary"), f"{row.title} is in the cloud, not local", "leave boundary out"
    if engine.managed is not None:
        yield from _managed(path, engine, row)
    if not engine.models and names.there(*path, "models"):
        yield path, "has no models", 'list them, or write models: {"*": {}} to pass any name through'
    if engine.boundary is not None and engine.boundary not in BOUNDARIES:
        yield (*path, "boundary"), f"{engine.boundary!r} is no boundary", nearest(engine.boundary, BOUNDARIES)
        return
    yield from _addresses(path, engine, boundary)
    if engine.cost is not None:
        yield from _cost((*path, "cost"), engine.cost, boundary, names)


def _cost(path: Location, cost: Cost, boundary: str, names: _Names) -> Found:
    """A rate card that charges nothing would make a pool look free."""
    watts = cost.watts
    if boundary != "local":
        yield (
            path,
            "is for a local engine; what a cloud engine costs is said by its prices",
            "leave it out, or see prices",
        )
    if watts.load < watts.idle:
        yield (*path, "watts"), "draws less under load than idle", f"such as watts: {EXAMPLES['watts']}"
    if watts.load and not cost.kwh and names.there(*path, "kwh"):
        yield path, "has watts, and no price for them", "give kwh: $0.12"
    if cost.kwh and not watts.load and names.there(*path, "watts"):
        yield path, "has a price for power, and no watts", f"give watts: {EXAMPLES['watts']}"
    whole = all(names.there(*path, part) for part in ("purchase", "watts", "kwh", "rent", "staff"))
    if whole and not any((cost.purchase, watts.load, cost.kwh, cost.rent, cost.staff)):
        yield path, "names no cost", f"such as {EXAMPLES['cost']}"


def _managed(path: Location, engine: Engine, row: Kind) -> Found:
    assert engine.managed is not None
    if row.name != "llama.cpp":
        hint = "start it yourself and give replicas, or use kind: llama.cpp"
        yield (*path, "managed"), f"Spillway does not run {row.title} itself", hint
    if engine.replicas:
        yield (
            (*path, "managed"),
            "stands beside replicas",
            "leave one of them out: Spillway runs it, or somebody else does",
        )


def _addresses(path: Location, engine: Engine, boundary: str) -> Found:
    sound = True
    for index, network in enumerate(engine.peers):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            sound = False
            yield (*path, "peers", index), f"{network!r} is no network", "in CIDR, such as 100.64.0.0/10"
    for index, url in enumerate(engine.replicas):
        where = (*path, "replicas", index)
        mistake = _url(url, "http://gpu-a:8000")
        if mistake is not None:
            yield (where, *mistake)
            continue
        if urlsplit(url).path.rstrip("/").endswith("/v1"):
            yield where, "ends in /v1, which is added to it", "leave /v1 out"
        if url.rstrip("/") in [other.rstrip("/") for other in engine.replicas[:index]]:
            yield where, "stands twice", "each replica has an address of its own"
        host = urlsplit(url).hostname or ""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            continue  # a name: its address is checked at each connect
        if sound and not peer_allowed(host, boundary, engine.peers):
            hint = "declare boundary: cloud, or list its network under peers"
            yield where, f"{host} is neither loopback nor private, so it is not local", hint


def _url(url: str, example: str) -> tuple[str, str] | None:
    """What is wrong with an http or https URL, which is repeated only where it can hold no password."""
    shown = "this" if "@" in url else repr(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"{shown} is no http or https URL", f"such as {example}"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return f"{shown} is no http or https URL", f"such as {example}"
    if "@" in parts.netloc:
        return (
            "holds a name or a password, and a secret never stands in the file",
            "write {env: NAME} or {file: PATH} where a key belongs",
        )
    if parts.query or parts.fragment:
        return "holds more than an address", f"such as {example}"
    return None


def _models(settings: Settings, names: _Names) -> Found:
    for name, entry in settings.models.items():
        path: Location = ("models", name)
        if name == "*" or not _MODEL_NAME.fullmatch(name):
            hint = (
                'any name is passed through by an engine with models: {"*": {}}' if name == "*" else "printable ASCII"
            )
            yield path, "is no name that an application can ask for", hint
        lists: list[tuple[Location, tuple[str, ...]]]
        if isinstance(entry, tuple):
            lists = [(path, entry)]
        elif entry.route is True:
            continue  # see `_decisions`
        else:
            lists = [((*path, "route", "small"), entry.route.small), ((*path, "route", "large"), entry.route.large)]
        for where, targets in lists:
            if not targets:
                yield where, "names no target", "such as [gpu/llama-70b, openai/gpt-4o]"
            for index, target in enumerate(targets):
                wrong = names.target(target)
                if wrong is not None:
                    yield ((*where, index), *wrong)
                elif target in targets[:index]:
                    yield (*where, index), f"{target!r} stands twice", "candidates are tried once, best first"


def _decisions(settings: Settings, names: _Names) -> Found:
    yield from decision_checks.problems(settings, names.target, names.public, names.whole, bool(names.wild))
    yield from escalation_checks.problems(settings, names.target, names.whole)


def _experiments(settings: Settings, names: _Names) -> Found:
    return experiment_checks.problems(settings, names.target, names.public, names.whole, bool(names.wild))


def _rules(settings: Settings, names: _Names) -> Found:
    tenants = {*settings.compliance.tenants, *(key.tenant for key in settings.keys.values() if key.tenant)}
    regions = {engine.contract.region for engine in settings.engines.values() if engine.contract.region}
    kinds = (*TYPES, *settings.compliance.detectors)
    for index, rule in enumerate(settings.compliance.rules):
        path: Location = ("compliance", "rules", index, "when")
        for position, found in enumerate(rule.when.found):
            if found not in kinds:
                yield (*path, "found", position), f"{found!r} is nothing that is found", nearest(found, kinds)
        for name, given, known in (
            ("surface", rule.when.surface, tuple(BY_NAME)),
            ("target.provider", rule.when.target.provider, tuple(KINDS)),
            ("target.boundary", rule.when.target.boundary, BOUNDARIES),
            ("target.contract", rule.when.target.contract, CONTRACTS),
        ):
            for value in given:
                if value not in known:
                    yield (*path, *name.split(".")), f"{value!r} is no {name.split('.')[-1]}", nearest(value, known)
        for tenant in rule.when.tenant:
            if tenants and tenant not in tenants:  # keys of the store may bring others, unless the file names some
                yield (*path, "tenant"), f"no key has the tenant {tenant!r}", nearest(tenant, sorted(tenants))
        if names.whole("engines"):
            for region in rule.when.target.region:
                if region not in regions:
                    wrong = f"no engine's contract has the region {region!r}"
                    yield (*path, "target", "region"), wrong, nearest(region, sorted(regions))
    yield from _conflicts(settings, names)


def _detectors(settings: Settings, names: _Names) -> Found:
    """Each is compiled and tried on its examples, one by one, so that every mistake is reported."""
    parts = settings.compliance.detectors
    for name, part in parts.items():
        try:
            custom_patterns([detector_of(name, part)])
        except CustomError as wrong:
            path: Location = ("compliance", "detectors", name)
            yield (path if wrong.field == "name" else (*path, wrong.field)), wrong.problem, ""
    if len(parts) > MAX_DETECTORS:
        yield ("compliance", "detectors"), f"has more than {MAX_DETECTORS}", "join their patterns with |"


def _plugins(settings: Settings, names: _Names) -> Found:
    """Each is there and can be imported; it is loaded when the scanner is made."""
    parts = settings.compliance.plugins
    if parts:
        from proxy import plugins
    for index, name in enumerate(parts):
        path: Location = ("compliance", "plugins", index)
        if name not in plugins.names():
            yield path, f"{name!r} is no plug-in that is installed", nearest(name, plugins.names())
        elif name in parts[:index]:
            yield path, f"{name!r} stands twice", "leave it out"
        elif wrong := plugins.problem(name):
            yield path, f"{name} {wrong}" if name in plugins.OWN else wrong, ""


def _answers(settings: Settings, names: _Names) -> Found:
    answers = settings.compliance.answers
    if not answers.scan and answers.found != "pass":
        yield ("compliance", "answers", "found"), "needs answers to be scanned", "leave scan: false out"


def _conflicts(settings: Settings, names: _Names) -> Found:
    """Rules that can never decide, and rules of one name, which a record could not tell apart."""
    parts = settings.compliance.rules
    seen: set[str] = set()
    for index, part in enumerate(parts):
        if part.name in seen:
            yield ("compliance", "rules", index, "name"), "stands twice", "records name the rule that decided"
        seen.add(part.name)
    if not names.there("compliance", "rules"):
        return
    for conflict in conflicts([rule_of(part) for part in parts]):
        where: Location = ("compliance", "rules", conflict.rule)
        if not conflict.because:
            yield where, f"rule {parts[conflict.rule].name!r} {conflict.why}", "leave it out"
            continue
        others = " and ".join(repr(parts[earlier].name) for earlier in conflict.because)
        yield (
            where,
            f"rule {parts[conflict.rule].name!r} {conflict.why} rule{'s' if len(conflict.because) > 1 else ''} {others}",
            "the first rule that matches decides: put this one first, or leave one out",
        )


def _budgets(settings: Settings, names: _Names) -> Found:
    yield from config_budgets.problems(settings, names.target)
    yield from config_redis.problems(settings, names.there)
    alerts = settings.alerts
    if alerts is not None and isinstance(alerts.url, str):
        wrong = _url(alerts.url, "https://hooks.example/spillway")
        if wrong is not None:
            yield (("alerts", "url"), *wrong)
    for index, part in enumerate(settings.budgets):
        if part.soft and alerts is None and names.there("alerts"):
            yield ("budgets", index, "soft"), "has nobody to tell", "give alerts: {url: https://hooks.example/spillway}"


def _prices(settings: Settings, names: _Names) -> Found:
    parts: list[tuple[Location, PricePart]] = []
    for name, rows in settings.prices.items():
        path: Location = ("prices", name)
        if not isinstance(rows, tuple):
            parts.append((path, rows))
            continue
        parts += [((*path, index), part) for index, part in enumerate(rows)]
        days = [part.since for part in rows]
        if not rows or len(set(days)) < len(days):
            yield path, "needs prices with different first days", "the newest that holds on a day counts"
    for name in settings.prices:
        wrong = names.target(name)
        if wrong is not None:
            yield (("prices", name), *wrong)
    if not isinstance(settings.unpriced, str):
        parts.append((("unpriced",), settings.unpriced))
    for path, part in parts:
        if part.since and _day(part.since) is None:
            yield (*path, "from"), "is no day", "written as 2026-01-31"


def _keys(settings: Settings, names: _Names) -> Found:
    seen: dict[str, str] = {}
    for name, key in settings.keys.items():
        path: Location = ("keys", name)
        if key.hash in seen:
            yield (*path, "hash"), f"is also that of {seen[key.hash]!r}", "each key has a hash of its own"
        seen.setdefault(key.hash, name)
        if key.expires is not None and _day(key.expires) is None:
            yield (*path, "expires"), "is no day", "written as 2026-01-31; the key ends with that day, in UTC"
        for index, boundary in enumerate(key.boundaries or ()):
            if boundary not in BOUNDARIES:
                yield (*path, "boundaries", index), f"{boundary!r} is no boundary", nearest(boundary, BOUNDARIES)
        if names.wild or not names.whole("models") or not names.whole("engines"):
            continue  # any name may be passed through, or it cannot be told
        for index, model in enumerate(key.models or ()):
            if model not in names.public:
                yield (*path, "models", index), f"no model is called {model!r}", nearest(model, names.public)


def _doors(settings: Settings, names: _Names) -> Found:
    host = settings.listen.host
    if not re.fullmatch(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%a-z]*", host):
        yield (
            ("listen", "host"),
            "is no name or address",
            "such as 127.0.0.1, or 0.0.0.0 for every interface; the port is listen.port",
        )
    prometheus = settings.telemetry.prometheus
    port = 8801 if prometheus is True else getattr(prometheus, "port", None)
    if port is not None and port == settings.listen.port:
        yield ("telemetry", "prometheus"), f"listens on {port}, as Spillway does", "such as {port: 8801}"
    if settings.telemetry.otlp is not None:
        wrong = _url(settings.telemetry.otlp, "http://collector:4318")
        if wrong is not None:
            yield (("telemetry", "otlp"), *wrong)
    if isinstance(settings.egress, str):
        wrong = _url(settings.egress, "http://proxy:3128")
        if wrong is not None:
            yield (("egress_proxy",), *wrong)
    if settings.audit.key is not None and settings.audit.key.file is None:
        yield ("audit", "key"), "the signing key is a file, made at the first start", "write {file: ./audit.key}"


def _waits(settings: Settings, names: _Names) -> Found:
    """Times and sizes that must not be nothing: with zero nothing would ever be served."""
    rows: list[tuple[Location, float]] = [
        (("engines", name, "timeouts", part), getattr(engine.timeouts, part))
        for name, engine in settings.engines.items()
        for part in ("connect", "first_event", "idle", "total")
    ]
    rows += [
        (("limits", part), getattr(settings.limits, part))
        for part in ("body", "answer", "header_timeout", "body_timeout")
    ]
    for path, amount in rows:
        if amount <= 0:
            yield path, "must be more than nothing", ""


def _audit(settings: Settings, names: _Names) -> Found:
    part = settings.audit
    if part.local == "durable" and part.on_failure == "keep_local":
        hint = (
            "leave one of them out: where local requests wait for their record, too, nothing can be served without it"
        )
        yield ("audit", "on_failure"), "keep_local contradicts local: durable", hint
    if part.local == "durable" and part.lag is not None:
        yield ("audit", "lag"), "has no meaning with local: durable", "leave it out"
    for index, witness in enumerate(part.witness):
        place: Location = ("audit", "witness", index)
        if witness.name in [other.name for other in part.witness[:index]]:
            yield (*place, "name"), f"{witness.name!r} stands twice", "each witness has a name of its own"
        if names.there("audit", "witness"):
            yield from _witness(place, witness, Path(part.dir))


def _captures(settings: Settings, names: _Names) -> Found:
    part = settings.audit.captures
    if part is None:
        return
    place: Location = ("audit", "captures")
    if part.key is not None and part.key.file is None:
        yield (*place, "key"), "a master key is a file's", "write {file: PATH}, or leave it out"
    if part.key is not None and part.kms is not None:
        yield (
            (*place, "kms"),
            "contradicts key",
            "the master key is in a file, or a service keeps it: leave one of them out",
        )
    if part.keep <= 0:
        yield (*place, "keep"), "must be more than nothing", "such as 90d"
    rules = [rule.name for rule in settings.compliance.rules]
    for index, name in enumerate(part.rules or ()):
        if name not in rules and names.whole("compliance"):
            yield (*place, "rules", index), f"no rule is called {name!r}", nearest(name, rules)
    if (kms := part.kms) is not None:
        if bool(kms.command) == (kms.transit is not None):
            yield (*place, "kms"), "is one of two things", "give command or transit"
        if kms.transit is not None and (wrong := _url(kms.transit.url, "https://vault.example:8200/v1/transit")):
            yield ((*place, "kms", "transit", "url"), *wrong)


def _witness(place: Location, witness: WitnessPart, logs: Path) -> Found:
    if sum(part is not None for part in (witness.directory, witness.s3, witness.webhook)) != 1:
        yield place, "is one of three things", "give directory, s3 or webhook"
    if witness.every < 1:
        yield (*place, "every"), "must be a second or more", "such as 1m"
    if witness.directory is not None and Path(witness.directory).resolve().is_relative_to(logs.resolve()):
        yield (*place, "directory"), "lies in the log's own directory", "a witness is on another disk"
    if (hook := witness.webhook) is not None and (wrong := _url(hook.url, "https://auditor.example/spillway")):
        yield ((*place, "webhook", "url"), *wrong)
    if (s3 := witness.s3) is not None:
        where = (*place, "s3")
        if wrong := _url(s3.endpoint, "https://s3.eu-central-1.amazonaws.com"):
            yield ((*where, "endpoint"), *wrong)
        elif urlsplit(s3.endpoint).path.strip("/"):
            yield (*where, "endpoint"), "holds more than an address", "the bucket has a line of its own"
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", s3.bucket):
            yield (*where, "bucket"), "is no bucket's name", "small letters, digits, dots and dashes"
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*|", s3.prefix):
            yield (*where, "prefix"), "is letters, digits, dots, dashes and slashes between", "such as clinic/spillway"
        if not re.fullmatch(r"[a-z0-9-]{1,64}", s3.region):
            yield (*where, "region"), "is no region", "such as eu-central-1"
        if s3.retain < 1 and s3.lock != "none":
            yield (*where, "retain"), "must be more than nothing", "such as 2190d"


def _day(text: str) -> datetime.date | None:
    """The day of `2026-01-31`, and of no other form."""
    try:
        return datetime.date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
    except ValueError:
        return None
