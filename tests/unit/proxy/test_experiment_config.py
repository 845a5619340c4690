"""What a configuration may say of experiments, and what is said where it is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from proxy.config import load
from proxy.config_budgets import budgets_of
from proxy.config_errors import ConfigInvalid
from proxy.config_experiments import share_at
from proxy.meaning import meaning

BASE: dict[str, Any] = {
    "engines": {
        "gpu": {"kind": "vllm", "replicas": ["http://127.0.0.1:1"], "models": {"l": {}}},
        "sky": {"kind": "openai", "replicas": ["http://127.0.0.1:2"], "boundary": "cloud", "models": {"gpt-4o": {}}},
    },
    "models": {"gpt-4o": ["sky/gpt-4o"], "small": ["gpu/l"]},
}
SPLIT: dict[str, Any] = {"local": ["gpu/l"], "api": ["sky/gpt-4o"], "phases": ["0%", "50%"]}


def loaded(*experiments: dict[str, Any], **more: Any) -> Any:
    return load(yaml.safe_dump({**BASE, "experiments": list(experiments), **more}), {})


def mistakes(*experiments: dict[str, Any], **more: Any) -> list[str]:
    try:
        loaded(*experiments, **more)
    except ConfigInvalid as invalid:
        return [f"{mistake.path}: {mistake.wrong}" for mistake in invalid.mistakes]
    return []


def split(**changes: Any) -> dict[str, Any]:
    return {"name": "cutover", "models": ["gpt-4o"], "split": {**SPLIT, **changes}}


def shadow(**changes: Any) -> dict[str, Any]:
    return {"name": "up", "shadow": {"to": "sky/gpt-4o", "share": "2%", "cap": "$20", **changes}}


def test_what_is_right_is_taken_and_told() -> None:
    settings = loaded(
        {**split(phase=2, by="application"), "metric": "accepted", "margin": "3%", "when": {"tenant": "clinic"}},
        {**shadow(compare="json"), "models": ["small"]},
        {"name": "down", "shadow": {"to": "gpu/l", "share": "50%", "from": "sky"}},
    )
    told = [line for line in meaning(settings) if line.startswith("experiment ")]
    assert told == [
        "experiment cutover: gpt-4o, tenant clinic: phase 2 of 2, 50% of applications to gpu/l, the others to sky/gpt-4o; "
        "judged on accepted, within 3%",
        "experiment up: 2% of requests for small are copied to sky/gpt-4o as well, up to $20.00 a month; answers are compared as json",
        "experiment down: 50% of requests that sky answers are copied to gpu/l as well",
    ]
    (cap,) = budgets_of(settings)
    assert (cap.scope, cap.window, cap.limit) == ("project/experiment:up", "month", 20 * 10**12)


@pytest.mark.parametrize(
    ("experiment", "wrong"),
    [
        ({"name": "x"}, "experiments[0]: is either a shadow or a split"),
        ({**split(), "shadow": {"to": "gpu/l", "share": "1%"}}, "experiments[0]: is either a shadow or a split"),
        ({"name": "a b", "shadow": {"to": "gpu/l", "share": "1%"}}, "name"),
        (shadow(to="gpu/x"), "experiments[0].shadow.to: 'gpu/x' is no engine/model"),
        (shadow(share="6%"), "experiments[0].shadow.share: copies much to a target that is not local"),
        (shadow(share="0%"), "experiments[0].shadow.share: copies nothing"),
        (shadow(share=0.02), "experiments[0].shadow.share: a share is written in percent"),
        (shadow(cap=None), "experiments[0].shadow.cap: is missing"),
        ({"name": "x", "shadow": {"to": "gpu/l", "share": "1%", "cap": "$2"}}, "is for copies to a target that is not local"),
        (shadow(**{"from": "sky"}), "experiments[0].shadow.from: would compare a target with itself"),
        (shadow(**{"from": "gp"}), "experiments[0].shadow.from: 'gp' is no engine and no target"),
        (shadow(compare="feel"), "experiments[0].shadow.compare"),
        (shadow(compare="judge"), "experiments[0].shadow.judge: and compare: judge belong together"),
        (shadow(judge="gpu/l"), "experiments[0].shadow.judge: and compare: judge belong together"),
        (shadow(compare="judge", judge="sky/gpt-4o"), "experiments[0].shadow.judge: 'sky/gpt-4o' is not local"),
        (shadow(compare="judge", judge="gpu/x"), "experiments[0].shadow.judge: 'gpu/x' is no engine/model"),
        ({"name": "x", "shadow": {"to": "gpu/l", "share": "1%", "compare": "judge", "judge": "gpu/l"}}, "would judge itself"),
        ({"name": "x", "split": SPLIT}, "experiments[0]: is for no model"),
        ({**split(), "models": ["gpt-5"]}, "experiments[0].models[0]: no model is called 'gpt-5'"),
        (split(local=["sky/gpt-4o"]), "experiments[0].split.local[0]: 'sky/gpt-4o' is not local"),
        (split(api=["gpu/l"]), "experiments[0].split.api[0]: 'gpu/l' is local"),
        (split(api=[]), "experiments[0].split.api: names no target"),
        ({"name": "try-judge-1", "shadow": {"to": "gpu/l", "share": "2%"}}, "experiments[0].name: ends as what a judge is asked does"),
        (split(local=["gpu/l", "gpu/l"]), "experiments[0].split.local[1]: 'gpu/l' stands twice"),
        (split(by="mood"), "experiments[0].split.by"),
        (split(phase=3), "experiments[0].split.phase: there is no phase 3"),
        (split(phase=0), "experiments[0].split.phase"),
        (split(phases=["50%", "10%"]), "experiments[0].split.phases[1]: is not more than the phase before"),
        (split(phases=[]), "experiments[0].split.phases"),
        (split(phases="50%"), "experiments[0].split.phases: must be a list of shares"),
        (split(phases=["0%", {"share": "50%", "from": "2026-03-01"}, "80%"]), "split.phases: have days, but not all of them"),
        (
            split(phases=[{"share": "1%", "from": "2026-03-02"}, {"share": "50%", "from": "2026-03-01"}]),
            "split.phases: do not begin one after the other",
        ),
        (split(phases=["0%", {"share": "50%", "from": "2026-03-01"}], phase=1), "split.phase: stands beside phases with days"),
        ({**split(), "when": {"mood": "good"}}, "experiments[0].when"),
        ({**split(), "when": {"route": "coding"}}, "experiments[0].when: asks what a prompt is about"),
        ({**split(), "metric": "Accepted!"}, "experiments[0].metric"),
        ({**split(), "margin": "0%"}, "experiments[0].margin: a margin is more than nothing"),
        ({**split(), "margin": "much"}, "experiments[0].margin: a margin is a share, or a number"),
        ({**split(), "margin": -1}, "experiments[0].margin: a margin is more than nothing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(experiment: dict[str, Any], wrong: str) -> None:
    found = mistakes(experiment)
    assert any(wrong in one for one in found), found


def test_two_experiments_do_not_take_the_same_requests() -> None:
    assert any("already" in one for one in mistakes(split(), {**split(), "name": "second"}))
    assert not mistakes({**split(), "when": {"tenant": "clinic"}}, {**split(), "name": "second"})
    assert any("stands twice" in one for one in mistakes({**split(), "when": {"tenant": "clinic"}}, split()))


def test_the_phase_of_a_day() -> None:
    dated = [{"share": "0%"}, {"from": "2026-03-01", "share": "50%"}, {"from": "2026-04-01", "share": "80%"}]
    part = loaded(split(phases=dated)).experiments[0].split
    day = 20_513  # 2026-03-01
    assert [share_at(part, one) for one in (0, day - 1, day, day + 30, day + 31)] == [
        (1, 0.0), (1, 0.0), (2, 0.5), (2, 0.5), (3, 0.8),
    ]  # fmt: skip
    manual = loaded(split()).experiments[0].split
    assert share_at(manual, day) == (1, 0.0)
    later = loaded(split(phases=dated[1:])).experiments[0].split
    assert share_at(later, day - 1) is None


def test_another_phase_is_another_policy() -> None:
    assert loaded(split(phase=1)).policy_hash != loaded(split(phase=2)).policy_hash
