"""The goals of complexity, on fewer splits than the evaluation makes; and that no question is on both sides of one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FILE = Path(__file__).resolve().parents[1] / "eval" / "routing_complexity.py"


@pytest.fixture(scope="module")
def evaluation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("routing_complexity", FILE)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not module.DATA.is_dir():
        pytest.skip("the evaluation's data is not here")
    return module


def test_sums_reach_their_goals_and_no_question_is_on_both_sides(evaluation: ModuleType) -> None:
    found = evaluation.outcomes(evaluation.DATA / "routellm_gsm8k.jsonl")
    keys = [evaluation.same_text(text) for text in found.texts]
    assert len(set(keys)) == len(keys)
    for learnt, tried in evaluation.splits(found, 300, 3):
        assert len(learnt) == 300 and len(learnt) + len(tried) == len(keys) and not set(learnt) & set(tried)
    assert evaluation.measured(found, 300, 6)[0][0] >= evaluation.GOALS["GSM8K, 300 labels"]
    assert evaluation.measured(found, None, 6, "answer")[0][0] >= evaluation.GOALS["GSM8K, reading the answer"]


def test_shuffled_outcomes_are_worth_nothing(evaluation: ModuleType) -> None:
    """What the evaluation would show of a scorer that cannot know: half, and so no leak."""
    found = evaluation.outcomes(evaluation.DATA / "routellm_gsm8k.jsonl")
    values = []
    for seed in range(6):
        shuffled = found._replace(gains=np.random.default_rng(seed).permutation(found.gains))
        values.append(evaluation.measured(shuffled, None, 3, "answer")[0][0])
    assert abs(np.mean(values) - 0.5) < 0.06
