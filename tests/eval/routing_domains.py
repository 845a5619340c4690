"""vLLM Semantic Router's own domain cases, placed by routes that an operator could have declared.

Each of its fourteen domains has a line of description and questions of MMLU-Pro and MMLU as utterances, MMLU's with their
options.
Half of the cases are such questions themselves and the other half is plain conversation, of which no utterance is like.
No case is learnt from: not in other signs, and not one that begins as it does.  Lines of `tests/eval/routing.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from policies.embedding import SAMPLE
from policies.learning import same_text
from policies.semantic import Route

MOST = 600
"""Utterances of a domain: all that are at hand, which are up to some 580."""
BEGINNING = 80
"""Characters in which no utterance is like a case."""
DESCRIPTIONS = {
    "biology": "biology: cells, genes, evolution, plants and animals",
    "business": "business: companies, management, marketing, accounting and finance",
    "chemistry": "chemistry: molecules, reactions, acids, gases and solutions",
    "computer science": "computer science: programming, algorithms, data structures and computer security",
    "economics": "economics: markets, prices, supply and demand, inflation and trade",
    "engineering": "engineering: circuits, machines, structures, fluids and heat transfer",
    "health": "health: medicine, diseases, nutrition, anatomy and ageing",
    "history": "history: ancient civilisations, wars, empires, revolutions and archaeology",
    "law": "law: courts, crimes, contracts, legal rights and procedure",
    "math": "mathematics: arithmetic, algebra, calculus, geometry, probability and proofs",
    "other": "everyday conversation, jokes, fun facts, general knowledge and anything else",
    "philosophy": "philosophy: ethics, logic, arguments, knowledge and religion",
    "physics": "physics: motion, forces, energy, electricity, light and waves",
    "psychology": "psychology: behaviour, the mind, therapy, learning and mental disorders",
}
SUBJECTS = {
    "biology": "high_school_biology college_biology",
    "business": "marketing professional_accounting business_ethics management",
    "chemistry": "high_school_chemistry college_chemistry",
    "computer science": "college_computer_science high_school_computer_science computer_security machine_learning",
    "economics": "high_school_macroeconomics high_school_microeconomics econometrics",
    "engineering": "electrical_engineering",
    "health": "nutrition clinical_knowledge professional_medicine human_aging college_medicine virology human_sexuality "
    "anatomy medical_genetics",
    "history": "prehistory high_school_world_history high_school_us_history high_school_european_history",
    "law": "professional_law international_law jurisprudence",
    "math": "high_school_mathematics elementary_mathematics high_school_statistics abstract_algebra college_mathematics",
    "other": "miscellaneous security_studies high_school_geography global_facts public_relations",
    "philosophy": "philosophy moral_disputes logical_fallacies world_religions formal_logic",
    "physics": "conceptual_physics high_school_physics college_physics astronomy",
    "psychology": "high_school_psychology professional_psychology",
}
"""MMLU's subjects as MMLU-Pro sorts them."""


class Domains(NamedTuple):
    """Routes, and cases: (text, domain)."""

    routes: list[Route]
    cases: list[tuple[str, str]]


def domains(data: Path) -> Domains:
    """The route set and the cases it is asked."""
    cases = [(row["question"], row["category"]) for row in _rows(data / "vllmsr_domain_classify_cases.jsonl")]
    asked = [same_text(text) for text, _ in cases]
    barred = {text[:BEGINNING] for text in asked}
    long = tuple(text for text in asked if len(text) > BEGINNING // 2)  # MMLU's rows go on with their options
    known: dict[str, dict[str, str]] = {name: {} for name in DESCRIPTIONS}
    for text, domain in _questions(data):
        key = same_text(text)
        if key[:BEGINNING] not in barred and not key.startswith(long):
            known[domain].setdefault(key, text[:SAMPLE])
    routes = [
        Route(name, DESCRIPTIONS[name], tuple(dict.fromkeys(list(said.values())[:MOST])))
        for name, said in known.items()
    ]
    return Domains(routes, cases)


def _questions(data: Path) -> Iterator[tuple[str, str]]:
    for row in _rows(data / "mmlupro.jsonl"):
        yield row["text"], row["category"]
    subjects = {subject: name for name, listed in SUBJECTS.items() for subject in listed.split()}
    for row in _rows(data / "routellm_mmlu.jsonl"):
        if not row["contaminated"] and row["subject"] in subjects:
            text = row["text"].removesuffix("\nAnswer:")  # with its options, which name the subject's terms
            yield text, subjects[row["subject"]]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
