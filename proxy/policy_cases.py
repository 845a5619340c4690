"""An operator's cases: this prompt, from this tenant, for this target; this action is expected, by this rule.

A file of cases is YAML:

    cases:
      - name: a patient's name stays at home
        prompt: "Patient: Jane Roe, seen for asthma"     # or request: a whole body, as an application sends it
        tenant: care                                      # also: application, key, model, surface, day
        target: claude/claude-sonnet-4-6                  # or labels; default: a cloud without any contract
        expect: {action: keep_local, rule: ..., found: [name]}

`expect` may be the action alone.  Every mistake in the file is reported with its line, as `spillway check` does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from compliance.model import Action
from compliance.rules import CLOUD, TYPES, Facts, Labels
from engines.kinds import KINDS
from proxy.app import build_catalog, build_ruleset, build_scanner
from proxy.config import Settings
from proxy.config_checks import BOUNDARIES
from proxy.config_errors import (
    ConfigInvalid,
    Lines,
    Location,
    Mistake,
    dotted,
    from_validation,
    line_of,
    nearest,
)
from proxy.config_parts import Day
from proxy.config_rules import clinical_tenants
from proxy.config_yaml import parse_yaml
from proxy.quantities import Wrong
from proxy.surfaces import BY_NAME

_DAY = 86_400
SURFACES = tuple(name for name, row in BY_NAME.items() if row.operation is not None)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class TargetLabels(_Part):
    """What a rule may know of a target."""

    boundary: str = "cloud"
    provider: str = ""
    region: str = ""
    baa: Day | None = Field(None, description="the last day of the business associate agreement")
    zero_retention: bool = False


class Expected(_Part):
    """What should come out; what is left out is not looked at."""

    action: Action | None = None
    rule: str | None = Field(None, description="the rule that decides, as `explain` names it")
    found: tuple[str, ...] | None = Field(None, description="each of these kinds is found; []: nothing is")
    not_found: tuple[str, ...] = Field((), description="none of these kinds is found")

    @model_validator(mode="after")
    def _says_something(self) -> Expected:
        if not self.model_fields_set:
            raise Wrong("expects nothing", "such as {action: keep_local}")
        return self


def _expected(value: Any) -> Any:
    """An action alone, or a mapping."""
    return {"action": value} if isinstance(value, str) else value


def _target(value: Any) -> Any:
    if not isinstance(value, (str, dict, TargetLabels)):
        raise Wrong("must be a target, or its labels", "such as openai/gpt-4o, or {boundary: cloud, region: eu}")
    return value


class Case(_Part):
    """One case."""

    name: str = Field(min_length=1, max_length=200)
    prompt: str | None = None
    request: dict[str, Any] | None = None
    surface: str = "openai.chat"
    model: str = ""
    tenant: str | None = None
    application: str | None = None
    key: str = ""
    target: Annotated[str | TargetLabels, BeforeValidator(_target)] = TargetLabels()
    day: Day | None = Field(None, description="the day on which it is asked; default: today")
    expect: Annotated[Expected, BeforeValidator(_expected)]

    @model_validator(mode="after")
    def _says_one_thing(self) -> Case:
        if (self.prompt is None) == (self.request is None):
            raise Wrong("needs a prompt, or a request, and not both", "such as prompt: the text of a message")
        return self

    def body(self) -> dict[str, Any]:
        """The request's body: as given, or the prompt in the plainest request of its surface."""
        if self.request is not None:
            return self.request
        if self.surface.endswith(".embeddings"):
            return {"model": self.model, "input": self.prompt}
        return {"model": self.model, "messages": [{"role": "user", "content": self.prompt}]}


class Cases(_Part):
    """A file of cases."""

    cases: tuple[Case, ...]


class Result(NamedTuple):
    """What came out of one case; `wrong` is empty where all is as expected."""

    name: str
    line: int
    action: str
    rule: str
    found: tuple[str, ...]
    health_context: bool
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.wrong


class Bench:
    """A configuration's rules, for trying cases on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._scanner = build_scanner(settings)
        self._ruleset = build_ruleset(settings)
        self._clinical = clinical_tenants(settings)
        self._targets = {
            target.name: Labels(target.boundary, target.kind, target.region, target.baa_until, target.zero_retention)
            for target in build_catalog(settings).targets
        }

    def read(self, path: Path) -> list[tuple[Case, int]]:
        """The cases of a file, each with its line.  Raises `ConfigInvalid` with every mistake."""
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigInvalid(str(path), [Mistake(0, "", f"cannot be read: {error.strerror}", "")]) from None
        except UnicodeDecodeError:
            raise ConfigInvalid(str(path), [Mistake(0, "", "is not UTF-8 text", "")]) from None
        value, lines = parse_yaml(text, str(path))
        try:
            cases = Cases.model_validate(value).cases
        except ValidationError as error:
            found = [mistake for _, mistake in from_validation(error, Cases, value, lines)]
            raise ConfigInvalid(str(path), sorted(found)) from None
        mistakes = [mistake for index, case in enumerate(cases) for mistake in self._mistakes(case, index, lines)]
        if not cases:
            mistakes.append(Mistake(1, "cases", "holds no case", ""))
        if mistakes:
            raise ConfigInvalid(str(path), sorted(mistakes))
        return [(case, line_of(("cases", index), lines)) for index, case in enumerate(cases)]

    def _mistakes(self, case: Case, index: int, lines: Lines) -> list[Mistake]:
        """Names in a case that nothing has."""
        kinds = (*TYPES[:-2], *self._settings.compliance.detectors)
        rows: list[tuple[Location, str, tuple[str, ...]]] = [(("surface",), case.surface, SURFACES)]
        if isinstance(case.target, str):
            rows.append((("target",), case.target, tuple(self._targets)))
        else:
            rows.append((("target", "boundary"), case.target.boundary, BOUNDARIES))
            if case.target.provider:
                rows.append((("target", "provider"), case.target.provider, tuple(KINDS)))
        rows += [(("expect", "found", place), kind, kinds) for place, kind in enumerate(case.expect.found or ())]
        rows += [(("expect", "not_found", place), kind, kinds) for place, kind in enumerate(case.expect.not_found)]
        if case.key:
            rows.append((("key",), case.key, (*self._settings.keys, *(() if self._settings.keys else (case.key,)))))
        found = []
        for below, name, known in rows:
            if name not in known:
                path = ("cases", index, *below)
                wrong = f"{name!r} is nothing that there is" if known else f"{name!r} is not in the configuration"
                found.append(Mistake(line_of(path, lines), dotted(path), wrong, nearest(name, known)))
        return found

    def run(self, case: Case, line: int = 0) -> Result:
        """One case, through the scanner and the rules that `serve` would use."""
        key = self._settings.keys.get(case.key)
        tenant = case.tenant if case.tenant is not None else (key.tenant if key else None) or ""
        application = case.application if case.application is not None else key.project if key else ""
        seen = self._scanner.inspect(case.body(), health=tenant in self._clinical)
        today = case.day if case.day is not None else int(time.time()) // _DAY
        facts = Facts(
            tenant=tenant, application=application, key=case.key, surface=case.surface, model=case.model, health=seen.health,
            today=today,
        )  # fmt: skip
        verdict = self._ruleset.judge(seen.findings, facts).on(self._labels(case.target))
        found = tuple(dict.fromkeys(finding.type for finding in seen.findings))
        wrong = _differences(case.expect, verdict.action, verdict.rule, found)
        return Result(case.name, line, verdict.action, verdict.rule, found, seen.health, wrong)

    def _labels(self, target: str | TargetLabels) -> Labels:
        if isinstance(target, str):
            return self._targets[target]
        if target == TargetLabels():
            return CLOUD
        return Labels(target.boundary, target.provider, target.region, target.baa, target.zero_retention)


def _differences(expected: Expected, action: str, rule: str, found: tuple[str, ...]) -> tuple[str, ...]:
    wrong = []
    if expected.action is not None and expected.action != action:
        wrong.append(f"expected action {expected.action}")
    if expected.rule is not None and expected.rule != rule:
        wrong.append(f"expected rule {expected.rule!r}")
    if expected.found is not None:
        missed = [kind for kind in expected.found if kind not in found]
        if missed:
            wrong.append(f"expected to find {', '.join(missed)}")
        if not expected.found and found:
            wrong.append("expected to find nothing")
    unwanted = [kind for kind in expected.not_found if kind in found]
    if unwanted:
        wrong.append(f"expected not to find {', '.join(unwanted)}")
    return tuple(wrong)


def cases_table(results: list[Result]) -> str:
    """Results for people: a line each, and under a failed one what was expected."""
    from proxy.meaning import table

    lines = table(
        ("", "case", "action", "found", "rule"),
        [("ok" if r.passed else "FAILED", r.name, r.action, ", ".join(r.found) or "-", r.rule) for r in results],
        numbers=False,
    ).split("\n")
    out = [lines[0]]
    for result, line in zip(results, lines[1:], strict=True):
        out.append(line)
        out += [f"        line {result.line}: {wrong}" for wrong in result.wrong]
    failed = sum(not result.passed for result in results)
    out.append(f"{len(results)} cases, {failed} failed")
    return "\n".join(out)


def as_rows(results: list[Result]) -> Mapping[str, Any]:
    """Results for scripts."""
    return {
        "passed": sum(result.passed for result in results),
        "failed": sum(not result.passed for result in results),
        "cases": [{**result._asdict(), "passed": result.passed} for result in results],
    }
