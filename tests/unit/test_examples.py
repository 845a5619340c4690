"""The example configurations load, and the schema for editors is the current one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.app import build_catalog
from proxy.config import load, schema
from proxy.meaning import meaning

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
EXAMPLES = sorted((DEPLOY / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_and_means_something(path: Path) -> None:
    settings = load(path, {"OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": "y"})
    assert build_catalog(settings).targets
    assert any(line.startswith("engine ") for line in meaning(settings))


def test_there_is_one_for_each_typical_deployment() -> None:
    assert {path.stem for path in EXAMPLES} == {
        "laptop",
        "vllm-with-overflow",
        "hospital",
        "two-sizes",
        "cloud-with-budget",
        "routing",
        "cut-over",
    }


def test_the_schema_is_current() -> None:
    assert json.loads((DEPLOY / "spillway.schema.json").read_text()) == schema(), "run `make schema`"
