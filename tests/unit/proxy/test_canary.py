"""Canaries: identifiers that are nobody's, promises that come from the rules, and what breaks one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result as Done
from scanners import shared_scanner
from typer.testing import CliRunner

from compliance.identifiers import NAMES
from compliance.scan import NOTHING, Scanner
from engines.field_kinds import REQUESTS
from proxy.app import DIALECTS
from proxy.canary import OTHER_RULE, Dry, canaries, models_of
from proxy.cli import app
from proxy.config import load
from proxy.explaining import Explainer
from proxy.surfaces import BY_NAME
from proxy.synthetic import KINDS, synthetic

CONFIG = """\
engines:
  home: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {m: {}}}
  sky: {kind: openai, key: {env: NONE}, models: {gpt-4o: {}}}
  far: {kind: anthropic, key: {env: NONE}, models: {claude: {}}, contract: {baa: {until: 2099-01-01}}}
models: {m: [home/m, sky/gpt-4o, far/claude], near: [home/m]}
unpriced: {input: $1/M, output: $1/M}
compliance:
  tier: fast
  tenants: {clinic: {context: health}}
  detectors: {badge: {pattern: "[A-Z]{2}[0-9]{6}", label: badge, matches: ["badge: QX123456"]}}
  rules:
    - {name: agreed, when: {found: [phi], tenant: clinic, target: {contract: baa}}, action: allow}
    - {name: no embeddings, when: {surface: openai.embeddings, application: triage}, action: block}
    - {name: pictures, when: {found: [opaque], health: false}, action: block}
    - {name: odd, when: {cel: "1 == 2"}, action: block}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("proxy.explaining.build_scanner", shared_scanner)
    (tmp_path / "spillway.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def canary(*arguments: str) -> Done:
    return CliRunner().invoke(app, ["canary", *arguments], catch_exceptions=False)


def test_every_kind_of_identifier_has_a_synthetic_one() -> None:
    assert set(KINDS) == set(NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_synthetic_identifier_is_found_and_is_the_same_for_its_seed(kind: str) -> None:
    scanner = shared_scanner(load("compliance: {tier: fast}", {}))
    for seed in range(6):
        made = synthetic(kind, seed)
        assert made == synthetic(kind, seed) and made.value in made.text
        seen = scanner.inspect({"messages": [{"role": "user", "content": made.text}]})
        assert kind in {finding.type for finding in seen.findings}, made.text
    assert len({synthetic(kind, seed).value for seed in range(40)}) > 3


def test_synthetic_identifiers_are_of_ranges_that_nobody_has() -> None:
    for seed in range(50):
        value = {kind: synthetic(kind, seed).value for kind in KINDS}
        assert value["ssn"][0] == "9" and not 50 <= int(value["ssn"][4:6]) <= 99  # neither SSN nor ITIN
        assert value["card"].startswith("4242 4242") and re.fullmatch(r"\(202\) 555-01\d\d", value["phone"])
        assert value["email"].endswith("@example.org") and value["ip"].startswith("203.0.113.")
        assert value["secret"].endswith("EXAMPLE") and value["url"].startswith("https://example.org/")


def test_every_surface_field_kind_and_rule_has_its_canary_and_each_promise_holds(
    loop: asyncio.AbstractEventLoop,
) -> None:
    settings = load(CONFIG, {}, secrets=False)
    chosen = list(canaries(settings, seed=3))
    assert chosen == list(canaries(settings, seed=3)) != list(canaries(settings, seed=4))
    assert {one.model for one in chosen} == {"m"}, "nothing can leave from `near`"
    for surface in BY_NAME.values():
        if surface.operation is not None:
            fields = {f.name for f in REQUESTS[surface.dialect, surface.operation]} - {"model"}
            assert {c.name for c in chosen if c.surface == surface.name and c.part == "field"} == fields
            kinds = {c.name for c in chosen if c.surface == surface.name and c.part == "kind"}
            assert kinds == {*NAMES, "badge"}
            for one in chosen:
                if one.surface == surface.name:
                    DIALECTS[surface.dialect].parse(surface.operation, msgspec.json.encode(one.body), {})
    assert {c.name for c in chosen if c.part == "rule"} == {"agreed", "no embeddings", "pictures", "odd"}
    results = [Dry(Explainer(settings, loop)).run(one) for one in chosen[-12:]]
    results += [Dry(Explainer(settings, loop)).run(one) for one in chosen[:4]]
    assert [result.wrong for result in results if result.wrong] == []
    agreed = [result for result in results if result.name == "agreed"]
    assert all(result.forbidden == ("sky/gpt-4o",) and "far/claude" in result.answered for result in agreed)
    assert {result.name for result in results if result.note == OTHER_RULE} >= {"odd"}


def test_the_command_says_that_all_is_well(here: Path) -> None:
    done = canary("--seed", "5")
    assert done.exit_code == 0, done.output
    assert re.search(r"openai\.chat, every field +36 +36 +-", done.stdout)
    assert "rule 'odd' decided over none of its canaries" in done.stdout
    assert re.search(r"\d+ canaries, 0 broken promises \(seed 5\)", done.stdout)
    row = json.loads(canary("--seed", "5", "--json").stdout)
    assert (row["seed"], row["broken"], row["unreached_rules"]) == (5, 0, ["odd"])
    assert json.loads(canary("--seed", "5", "--json").stdout) == row
    assert len(row["canaries"]) == row["held"] > 250


def test_a_scanner_that_finds_nothing_breaks_every_promise(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scanner, "inspect", lambda self, body, health=False: NOTHING)
    done = canary("--seed", "1")
    assert done.exit_code == 1
    assert (
        "card was not found" in done.stdout
        and "sky/gpt-4o would be asked, where the rules say keep_local" in done.stdout
    )


def test_a_choice_that_looks_at_no_verdict_is_caught(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explain = Explainer.explain

    def careless(self: Explainer, *arguments: Any) -> Any:
        return {**explain(self, *arguments), "ranked": ["sky/gpt-4o"]}

    monkeypatch.setattr(Explainer, "explain", careless)
    done = canary("--seed", "1")
    assert done.exit_code == 1 and "was not found" not in done.stdout
    assert "sky/gpt-4o would be asked" in done.stdout


def test_where_nothing_can_leave_it_says_so(here: Path) -> None:
    (here / "spillway.yaml").write_text(
        "engines: {home: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {m: {}}}}"
    )
    done = canary()
    assert (done.exit_code, "nothing can leave" in done.stderr) == (0, True)
    assert canary("--model", "m").exit_code == 0
    wrong = canary("--model", "mm")
    assert (wrong.exit_code, "did you mean 'm'?" in wrong.stderr) == (1, True)
    wild = load("engines: {sky: {kind: openai, key: {env: NONE}, models: {'*': {}}}}", {}, secrets=False)
    assert models_of(wild) == ["canary"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--live", "127.0.0.1:1"), "start it with `spillway serve`"),
        (("--live", "ftp://x"), "no http or https URL"),
    ],
)
def test_nobody_at_the_address_is_said_in_one_line(here: Path, arguments: tuple[str, ...], words: str) -> None:
    done = canary(*arguments)
    assert done.exit_code == 1 and words in done.stderr and done.stderr.count("\n") == 1
    (here / "spillway.yaml").write_text(CONFIG + f"keys: {{k: {{hash: 'sha256:{'0' * 64}'}}}}\n")
    assert "no key in force has this token" in canary("--live", "127.0.0.1:1", "--key", "spw_x").stderr


def test_a_label_that_speaks_of_health_makes_phi_as_in_the_readme(here: Path) -> None:
    """`MRN 0001` is health context by itself: what a rule redacts under an agreement is no broken promise."""
    (here / "spillway.yaml").write_text(
        CONFIG.partition("compliance:")[0]
        + """\
compliance:
  tier: fast
  rules:
    - {name: secrets go nowhere, when: {found: [secret]}, action: block}
    - {name: numbers of the state stay, when: {found: [ssn, passport, card]}, action: keep_local}
    - {name: pseudonyms under the agreement, when: {found: [phi], target: {contract: [baa]}}, action: redact}
"""
    )
    done = CliRunner().invoke(app, ["canary", "--seed", "7", "--model", "m"], catch_exceptions=False)
    assert done.exit_code == 0 and "BROKEN" not in done.stdout, done.stdout
