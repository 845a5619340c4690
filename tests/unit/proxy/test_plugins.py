"""Plug-ins by name: entry points of installed packages, what a configuration may name, and what is said of the rest."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compliance.detectors import presidio
from compliance.detectors.model import Span
from proxy import plugins
from proxy.app import build_scanner
from proxy.cli import app
from proxy.config import load
from proxy.plugins import PluginBroken


class Badges:
    """A detector of a package."""

    def find(self, text: str) -> list[Span]:
        at = text.find("B-77")
        return [] if at < 0 else [Span("mrn", at, at + 4, 0.9)]


nothing = 7


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    rows = {"badges": "Badges", "none": "Missing", "seven": "nothing", "silent": "Path"}
    entries = [EntryPoint(name, f"plugin_of_a_test:{what}", plugins.GROUP) for name, what in rows.items()]
    entries.append(EntryPoint("gone", "no_such_module:make", plugins.GROUP))
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: entries if group == plugins.GROUP else [])
    monkeypatch.setitem(__import__("sys").modules, "plugin_of_a_test", __import__("sys").modules[__name__])
    monkeypatch.setattr(presidio, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_packages_detector_is_asked_where_names_are_looked_for() -> None:
    scanner = build_scanner(load("compliance: {tier: fast, plugins: [badges]}", {}))
    assert "mrn" in {finding.type for finding in scanner.inspect({"a": "see B-77"}, health=True).findings}
    assert not scanner.inspect({"a": "see B-77"}).findings


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("[badgs]", ["plugins[0]: 'badgs' is no plug-in that is installed", "did you mean 'badges'?"]),
        ("[presidio]", ["plugins[0]: presidio is not installed: pip install 'spillway[presidio]'"]),
        ("[badges, gone]", ["plugins[1]: plug-in 'gone' (no_such_module:make) cannot be imported"]),
        ("[none]", ["plug-in 'none' (plugin_of_a_test:Missing) cannot be imported"]),
        ("[seven]", ["is nothing that makes a detector"]),
        ("[badges, badges]", ["plugins[1]: 'badges' stands twice"]),
        ("badges", ["plugins: must be a list"]),
    ],
)
def test_check_says_what_is_wrong_with_a_plug_in(installed: Path, named: str, words: list[str]) -> None:
    (installed / "spillway.yaml").write_text(f"compliance:\n  plugins: {named}\n")
    done = CliRunner().invoke(app, ["check"], catch_exceptions=False)
    assert done.exit_code == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert done.stderr.startswith("spillway.yaml:2: compliance.plugins")


def test_what_gives_no_detector_is_said_when_it_is_made() -> None:
    with pytest.raises(PluginBroken, match=r"no find\(text\)"):
        plugins.load("silent", ())
    with pytest.raises(PluginBroken, match="presidio is not installed"):
        plugins.load("presidio", ())
    with pytest.raises(PluginBroken, match="no installed package offers"):
        plugins.load("other", ())
