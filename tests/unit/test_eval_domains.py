"""The evaluation of domains: nothing that is asked was learnt."""

import sys
from pathlib import Path

import pytest

from policies.learning import same_text

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "eval"))

import routing_domains  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "routing"


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
def test_no_case_is_learnt_from_in_any_spelling_or_beginning() -> None:
    routes, cases = routing_domains.domains(DATA)
    learnt = [same_text(text) for route in routes for text in route.utterances]
    asked = [same_text(text) for text, _ in cases]
    assert learnt and asked and not set(learnt) & set(asked)
    begun = {text[: routing_domains.BEGINNING] for text in asked}
    assert not [text for text in learnt if text[: routing_domains.BEGINNING] in begun]
    assert not [text for text in learnt if text.startswith(tuple(text for text in asked if len(text) > 40))]


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
def test_every_case_s_domain_is_a_route_with_utterances() -> None:
    routes, cases = routing_domains.domains(DATA)
    assert {domain for _, domain in cases} == {route.name for route in routes if len(route.utterances) >= 100}


def test_a_question_that_begins_as_a_case_does_is_left_out(tmp_path: Path) -> None:
    case = "What is the force on a body of mass m that is moved by a spring of stiffness k over a way of s metres?"
    (tmp_path / "vllmsr_domain_classify_cases.jsonl").write_text(f'{{"category": "physics", "question": "{case}"}}\n')
    (tmp_path / "mmlupro.jsonl").write_text(
        f'{{"category": "physics", "text": "{case.upper()}"}}\n'
        '{"category": "physics", "text": "Why is the sky blue?"}\n'
        f'{{"category": "physics", "text": "{case[:90]} and nothing else"}}\n'
    )
    (tmp_path / "routellm_mmlu.jsonl").write_text(
        f'{{"subject": "college_physics", "contaminated": false, "text": "{case} Say.\\nA. one\\nB. two"}}\n'
        '{"subject": "astronomy", "contaminated": true, "text": "How far is the moon?"}\n'
        '{"subject": "astronomy", "contaminated": false, "text": "How old is the sun?\\nA. old\\nB. young"}\n'
    )
    routes, _ = routing_domains.domains(tmp_path)
    assert {route.name: route.utterances for route in routes if route.utterances} == {
        "physics": ("Why is the sky blue?", "How old is the sun?\nA. old\nB. young")
    }
