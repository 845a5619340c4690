"""The configuration: one YAML file, every mistake at once, each with its line, its path and what would be right.

`load` gives frozen `Settings`.  Everything has a default; an empty file is valid.  Secrets come from the
environment or from files, never from the file itself, and are never printed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError

from compliance.rules import policy_hash
from proxy.config_complexity import ComplexityPart, file_hashes, missing_files
from proxy.config_decisions import DecisionPart, RoutingPart
from proxy.config_errors import ConfigInvalid, Location, Mistake, dotted, from_validation, line_of, without
from proxy.config_experiments import ExperimentPart
from proxy.config_parts import (
    Alerts,
    Audit,
    BudgetPart,
    Compliance,
    Engine,
    KeyPart,
    LimitsPart,
    Listen,
    Part,
    PricePart,
    Reference,
    Routed,
    State,
    TelemetryPart,
    shaped,
)
from proxy.config_routes import RoutePart
from proxy.routing_names import in_force, missing_model
from proxy.secrets import resolve_secrets


class Settings(Part):
    """The whole configuration, frozen.  The values of secrets are kept apart and never shown."""

    listen: Listen = Listen()
    state: State = State()
    engines: dict[str, Engine] = Field({})
    models: dict[
        str,
        Annotated[
            tuple[str, ...] | Routed,
            shaped(
                "must be a list of targets, or a route",
                "such as [gpu/llama-70b, openai/gpt-4o], or {route: {small: [...], large: [...]}}",
                list,
                tuple,
                dict,
            ),
        ],
    ] = Field({})
    routes: tuple[RoutePart, ...] = Field((), description="what prompts are about, learnt from examples")
    decisions: tuple[DecisionPart, ...] = Field((), description="which targets serve which requests")
    routing: RoutingPart = Field(RoutingPart(), description="what holds where no decision does")
    complexity: ComplexityPart = ComplexityPart()
    experiments: tuple[ExperimentPart, ...] = Field(
        (), description="traffic that is copied or split, to compare targets"
    )
    compliance: Compliance = Compliance()
    budgets: tuple[BudgetPart, ...] = ()
    alerts: Alerts | None = None
    prices: dict[
        str,
        Annotated[
            PricePart | tuple[PricePart, ...],
            shaped(
                "must be a price, or a list of prices with their first days",
                "such as {input: $2.50/M, output: $10/M}, or [{from: 2026-01-01, input: ...}, ...]",
                dict,
                list,
                tuple,
            ),
        ],
    ] = Field({})
    unpriced: Annotated[
        Literal["refuse"] | PricePart,
        shaped("must be refuse, or a price", "such as {input: $2.50/M, output: $10/M}", "refuse", dict),
    ] = "refuse"
    audit: Audit = Audit()
    telemetry: TelemetryPart = TelemetryPart()
    keys: dict[str, KeyPart] = Field({})
    limits: LimitsPart = LimitsPart()
    egress: Annotated[
        Reference | str | None,
        shaped("must be a URL, or a secret", "such as http://proxy:3128, or {env: NAME}", str, dict, None),
    ] = Field(
        None,
        alias="egress_proxy",
        description="an HTTP proxy for cloud engines, e.g. http://proxy:3128; {env: NAME} where it holds a password",
    )
    _secrets: dict[str, str] = PrivateAttr(default_factory=dict)  # by the path of their reference
    _source: dict[str, Any] = PrivateAttr(default_factory=dict)  # as the file held it
    _scorers: dict[str, str] | None = PrivateAttr(None)

    @property
    def policy_hash(self) -> str:
        """Names the policy in force."""
        return policy_hash(self.policy_material)

    @property
    def policy_material(self) -> bytes:
        """What the policy's hash is taken over: all that decides where a prompt may and should go; no secret."""
        parts = self.model_dump(
            include={
                "engines",
                "models",
                "routes",
                "decisions",
                "routing",
                "complexity",
                "experiments",
                "compliance",
                "budgets",
                "prices",
                "unpriced",
            },
            exclude={"engines": {"__all__": {"cost"}}, "complexity": {"remember", "drift_every"}},
            mode="json",
        )
        if self.scorers:
            parts["complexity"]["files"] = self.scorers
        if classifiers := in_force(self):
            parts["classifiers"] = classifiers
        for engine in parts["engines"].values():
            if engine[
                "managed"
            ]:  # where Spillway itself runs an engine its port is new with each start, and decides nothing
                engine["replicas"] = []
        return json.dumps(parts, sort_keys=True).encode()

    @property
    def config_hash(self) -> str:
        """Names the whole configuration."""
        return policy_hash(self.config_material)

    @property
    def config_material(self) -> bytes:
        """The whole configuration as it may be kept: without secrets, hashes of keys, and where a proxy is reached."""
        parts = self.model_dump(exclude={"egress": True, "keys": {"__all__": {"hash"}}}, mode="json")
        if self.scorers:
            parts["complexity"]["files"] = self.scorers
        for engine in parts["engines"].values():
            if engine["managed"]:
                engine["replicas"] = []
        return json.dumps(parts, sort_keys=True).encode()

    @property
    def scorers(self) -> dict[str, str]:
        """Hashes of the scorers' files, as they were when this was asked first: another scorer is another policy."""
        if self._scorers is None:
            self._scorers = file_hashes(self.complexity)
        return self._scorers

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
    from proxy.config_yaml import parse_yaml  # a worker gets its settings read and checked: it needs neither

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
    from proxy.config_checks import check, check_files

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
            missing_parts = (*missing_files(settings), *missing_model(settings))
            mistakes += [Mistake(line_of(path, lines), dotted(path), *rest) for path, *rest in missing_parts]
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
