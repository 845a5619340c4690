"""`decisions:` and `routing:`: every mistake at once, names that follow, and what a configuration means."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from policies import semantic
from proxy import decision_checks
from proxy.app import _scan_when_needed, build_catalog, build_steering
from proxy.config import Settings, load
from proxy.config_errors import ConfigInvalid
from proxy.explaining import Explainer
from proxy.meaning import decision_words, meaning

ENGINES = {
    "cpu": {"kind": "llama.cpp", "replicas": ["http://127.0.0.1:1"], "models": {"s": {}}},
    "gpu": {"kind": "vllm", "replicas": ["http://127.0.0.1:2"], "models": {"l": {}}},
    "sky": {"kind": "openai", "key": {"env": "K"}, "models": {"gpt-4o": {}, "gpt-4o-mini": {}}},
}
ROUTES = [
    {
        "name": "coding",
        "description": "programs",
        "utterances": ["write a function", "fix this bug", "why does it crash"],
    },
    {
        "name": "cards",
        "description": "bank cards",
        "utterances": ["I lost my card", "block my card", "a new card please"],
    },
]
MODELS = {"auto": {"route": True}, "gpt-4o": ["gpu/l", "sky/gpt-4o"]}


def settings(decisions: list[dict[str, Any]], **more: Any) -> Settings:
    whole = {"engines": ENGINES, "models": MODELS, "routes": ROUTES, "decisions": decisions, **more}
    return load(yaml.safe_dump(whole), {"K": "x"})


def mistakes(decisions: list[dict[str, Any]], **more: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigInvalid) as invalid:
        settings(decisions, **more)
    return [(mistake.path, mistake.wrong, mistake.hint) for mistake in invalid.value.mistakes]


CODE = {"name": "code", "when": {"route": "coding"}, "use": ["gpu/l"]}


@pytest.mark.parametrize(
    ("decisions", "more", "path", "wrong", "hint"),
    [
        ([CODE | {"when": {"route": "codin"}}], {}, "decisions[0].when", "'codin' is no route", "did you mean 'coding'?"),
        ([CODE], {"routes": []}, "decisions[0].when", "no routes are declared", "declare routes"),
        ([CODE | {"use": ["gpu/x"]}], {}, "decisions[0].use[0]", "'gpu/x' is no engine/model, and no model", "gpu/l"),
        ([CODE | {"use": ["gpt-4"]}], {}, "decisions[0].use[0]", "and no model", "did you mean 'gpt-4o'?"),
        ([CODE | {"use": ["auto"]}], {}, "decisions[0].use[0]", "is itself decided here", "name targets"),
        ([CODE | {"use": []}], {}, "decisions[0].use", "names no target", "such as use:"),
        ([CODE | {"models": ["gtp-4o"]}], {}, "decisions[0].models[0]", "no model is called", "did you mean 'gpt-4o'?"),
        ([CODE | {"models": ["auto:best"]}], {}, "decisions[0].models[0]", "is an order in itself", "write auto"),
        ([CODE], {"models": {"gpt-4o": ["gpu/l"]}}, "decisions[0]", "is for no model", "auto: {route: true}"),
        ([CODE | {"when": {"found": "snn"}}], {}, "decisions[0].when", "'snn' is nothing that is found", "ssn"),
        ([CODE | {"when": {"tokens": {"abov": 4}}}], {}, "decisions[0].when.tokens", "is no comparison", "over"),
        ([CODE | {"otherwise": "queue"}], {}, "decisions[0].otherwise", "", ""),
        ([CODE | {"when": {"stream": True, "not": {"stream": True}}}], {}, "decisions[0].when", "contradicts itself", ""),
        ([CODE, CODE | {"name": "b", "when": {"route": "coding", "tokens": {"over": 4}}}], {}, "decisions[1]",
         "decision 'b' is never reached: 'code' takes all of its requests", "put it first"),
        ([CODE, CODE], {}, "decisions[1].name", "'code' stands twice", ""),
        ([CODE], {"routing": {"default": ["gpu/z"]}}, "routing.default[0]", "'gpu/z' is no engine/model", ""),
        ([CODE], {"routing": {"deadline": "0s"}}, "routing.deadline", "must be more than nothing", ""),
        ([CODE], {"routes": ROUTES[:1]}, "routes", "holds one route", "declare a second"),
        ([CODE], {"routes": [*ROUTES, ROUTES[0]]}, "routes[2].name", "'coding' stands twice", ""),
        ([CODE], {"routes": [*ROUTES, ROUTES[0] | {"name": "none"}]}, "routes[2].name", "belongs to no route", ""),
        ([CODE], {"models": {"auto": {"route": "yes"}}}, "models.auto.route", "must be true, or small and large", ""),
        ([CODE], {"models": {"auto": {"route": True, "best": ["sky/x"]}}}, "models.auto.best[0]", "'sky/x' is no engine/model", ""),
    ],
)  # fmt: skip
def test_a_mistake_has_its_place_and_what_would_be_right(
    decisions: list[dict[str, Any]], more: dict[str, Any], path: str, wrong: str, hint: str
) -> None:
    found = mistakes(decisions, **more)
    assert any([place == path and wrong in words and hint in what for place, words, what in found]), found


def test_the_most_utterances_are_as_many_as_the_classifier_takes() -> None:
    assert decision_checks.MOST_EXAMPLES == semantic.MOST_EXAMPLES


def test_priority_decides_what_is_reached() -> None:
    narrow = {"name": "b", "priority": 5, "when": {"route": "coding", "tokens": {"over": 4}}, "use": ["cpu/s"]}
    assert settings([CODE, narrow]).decisions[1].name == "b"


def test_names_that_follow_from_a_routed_model() -> None:
    found = settings([CODE | {"use": ["gpu/l", "sky/gpt-4o"]}, {"name": "rest", "use": ["sky/gpt-4o-mini"]}])
    catalog = build_catalog(found)
    assert [entry.name for entry in catalog.entries] == ["auto", "gpt-4o", "auto:cheap", "auto:best", "coding", "cards"]
    steerers = build_steering(found)

    def order(name: str) -> list[str]:
        return [target.name for target in steerers[name].unmatched.entry.targets]

    assert order("auto:cheap") == ["gpu/l", "sky/gpt-4o-mini", "sky/gpt-4o"]  # by the shipped prices
    assert order("auto:best") == ["sky/gpt-4o", "sky/gpt-4o-mini", "gpu/l"]


def test_a_declared_name_wins_over_one_that_follows() -> None:
    found = settings([CODE], models={**MODELS, "coding": ["cpu/s"]})
    entry = build_catalog(found).find("coding")
    assert entry is not None and [target.name for target in entry.targets] == ["cpu/s"]
    assert "coding" not in build_steering(found)


def test_the_orders_can_be_declared() -> None:
    found = settings([CODE], models={"auto": {"route": True, "cheap": ["cpu/s"], "best": ["gpu/l", "sky/gpt-4o"]}})
    steerers = build_steering(found)
    assert [target.name for target in steerers["auto:best"].unmatched.entry.targets][:2] == ["gpu/l", "sky/gpt-4o"]
    assert steerers["auto:cheap"].unmatched.entry.targets[0].name == "cpu/s"


def test_a_routed_model_without_decisions_is_served_by_everything_local_first() -> None:
    entry = build_catalog(settings([])).find("auto")
    assert entry is not None
    assert [target.name for target in entry.targets] == ["cpu/s", "gpu/l", "sky/gpt-4o", "sky/gpt-4o-mini"]


def test_a_model_that_decisions_widen_is_scanned_though_its_own_candidates_are_local() -> None:
    found = settings([CODE | {"models": ["home"], "use": ["sky/gpt-4o"]}], models={"home": ["gpu/l"]})
    entry = build_catalog(found).find("home")
    assert entry is not None and not entry.local_only
    unmatched = build_steering(found)["home"].unmatched
    assert [target.name for target in unmatched.entry.targets] == ["gpu/l"]  # and no more where none matches


def test_decisions_about_findings_need_the_scan() -> None:
    lenient = {"compliance": {"scan": "needed", "answers": {"scan": False, "found": "pass"}}}
    assert _scan_when_needed(settings([CODE], **lenient))
    assert not _scan_when_needed(settings([CODE | {"when": {"found": "phi"}}], **lenient))


def test_decisions_are_part_of_the_policy() -> None:
    assert settings([CODE]).policy_hash != settings([CODE | {"use": ["cpu/s"]}]).policy_hash


def test_what_it_means_is_said_in_words() -> None:
    lines = meaning(
        settings([CODE | {"priority": 1, "otherwise": "wait"}, {"name": "rest", "use": ["cpu/s", "gpu/l"]}])
    )
    assert "decision code: every routed model, route coding: gpu/l; waiting for a place" in lines
    assert "decision rest: every routed model, every request: cpu/s, then gpu/l; then the model's others" in lines


class Loop:
    def time(self) -> float:
        return 0.0


def explained(found: Settings, model: str, text: str) -> dict[str, Any]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()
    return Explainer(found, Loop()).explain("openai.chat", body)  # type: ignore[arg-type]


def test_explain_says_what_matched_what_was_read_and_what_was_rejected() -> None:
    found = settings([CODE | {"otherwise": "refuse"}, {"name": "rest", "use": ["cpu/s", "sky/gpt-4o"]}])
    row = explained(found, "auto", "write a function that sorts")
    decided = row["decided"]
    assert (decided["matched"], decided["route"], row["ranked"]) == ("code", "coding", ["gpu/l"])
    assert decided["signals"]["route"] == "coding"
    assert [one["route"] for one in decided["about"]["best"]] == ["coding", "cards"]
    assert decided["about"]["nearest"]["utterance"] == 1
    assert {(veto["target"], veto["reason"]) for veto in row["vetoes"]} == {
        ("cpu/s", "decision"),
        ("sky/gpt-4o", "decision"),
    }
    words = decision_words(row)
    assert "decision  code" in words
    assert "like    coding, utterance 1" in words
    assert found.config_hash in words


def test_a_route_can_be_asked_for_by_its_name() -> None:
    row = explained(settings([CODE, {"name": "rest", "use": ["cpu/s"]}]), "coding", "hello there")
    assert (row["decided"]["matched"], row["decided"]["route"], row["decided"]["about"]) == ("code", "coding", None)


def test_an_alias_keeps_its_own_candidates_where_none_matches() -> None:
    found = settings([CODE | {"models": ["gpt-4o"], "use": ["cpu/s"]}])
    assert explained(found, "gpt-4o", "write a function")["ranked"] == ["cpu/s", "gpu/l", "sky/gpt-4o"]
    assert explained(found, "gpt-4o", "I lost my card")["ranked"] == ["gpu/l", "sky/gpt-4o"]


def test_a_prompt_that_must_stay_stays_whatever_is_decided() -> None:
    found = settings([{"name": "all to the cloud", "use": ["sky/gpt-4o"], "otherwise": "refuse"}])
    row = explained(found, "auto", "my ssn is 123-45-6789")
    assert row["ranked"] == []
    assert ("sky/gpt-4o", "boundary") in {(veto["target"], veto["reason"]) for veto in row["vetoes"]}
