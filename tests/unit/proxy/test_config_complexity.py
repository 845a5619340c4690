"""`complexity:` of a configuration: which scorer decides is part of the policy, what is remembered is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.config import Settings, load
from proxy.config_errors import ConfigInvalid
from proxy.fingerprints import changes
from proxy.meaning import meaning


def settings(text: str, *, files: bool = False) -> Settings:
    return load(f"complexity: {text}", {}, secrets=files)


def test_another_scorer_is_another_policy_and_shows_as_a_change(tmp_path: Path) -> None:
    file = tmp_path / "c.npz"
    file.write_bytes(b"one")
    first = settings(f"{{scorer: {file}}}")
    before = first.policy_hash
    file.write_bytes(b"two")
    assert first.policy_hash == before  # a process keeps the one that it began with
    second = settings(f"{{scorer: {file}}}")
    assert second.policy_hash != before and second.config_hash != first.config_hash
    assert changes(first.config_material, second.config_material) == ("complexity.files.scorer",)
    file.unlink()
    assert "files" not in json.loads(settings(f"{{scorer: {file}}}").policy_material)["complexity"]


def test_what_is_remembered_and_how_often_drift_is_told_decide_nothing() -> None:
    plain = settings("{}")
    for text in ("{remember: {}}", "{remember: {share: 5%, keep: 7d, findings: keep}}", "{drift_every: 1h}"):
        assert settings(text).policy_hash == plain.policy_hash
        assert settings(text).config_hash != plain.config_hash


def test_a_scorer_may_be_still_to_come_where_it_is_learnt_from_records(tmp_path: Path) -> None:
    file = tmp_path / "c.npz"
    with pytest.raises(ConfigInvalid) as wrong:
        settings(f"{{scorer: {file}}}", files=True)
    assert "spillway calibrate or train writes it" in wrong.value.mistakes[0].hint
    assert settings(f"{{scorer: {file}, remember: {{}}}}", files=True).complexity.remember is not None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{remember: {keep: 0d}}", "complexity.remember.keep"),
        ("{remember: {share: 0.5}}", "complexity.remember.share"),
        ("{remember: {most: 5}}", "complexity.remember.most"),
        ("{remember: {findings: drop}}", "complexity.remember.findings"),
        ("{remember: {text: true}}", "complexity.remember.text"),
        ("{drift_every: 0s}", "complexity.drift_every"),
    ],
)
def test_what_is_wrong_is_named(text: str, path: str) -> None:
    with pytest.raises(ConfigInvalid) as wrong:
        settings(text)
    assert [mistake.path for mistake in wrong.value.mistakes] == [path]


def test_it_is_said_in_words() -> None:
    lines = meaning(settings("{remember: {share: 20%, keep: 90d, tenants: [lab]}}"))
    (line,) = [line for line in lines if line.startswith("remembered")]
    assert "20 % of prompts of lab" in line and "for 90 days" in line and "but where identifiers" in line
    assert not [line for line in meaning(settings("{}")) if line.startswith("remembered")]
