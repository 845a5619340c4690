"""What the repository promises of itself: names, pins, files."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"proxy", "policies", "engines", "compliance"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines()]


def test_no_other_distribution_provides_the_four_package_names() -> None:
    providers = metadata.packages_distributions()
    for name in PACKAGES:
        others = set(providers.get(name, ())) - {"spillway"}
        assert not others, f"{name} is also provided by {others}: use an environment of its own"


def test_no_module_is_a_room_without_a_purpose() -> None:
    names = {path.stem for path in tracked("*.py")}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_every_dependency_has_its_reason_and_is_pinned_with_hashes() -> None:
    lines = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("]\n")[0].strip().splitlines()
    assert len(lines) == len(PROJECT["dependencies"])
    assert all("#" in line for line in lines)
    for name in ("run.txt", "test.txt"):
        text = (ROOT / "requirements" / name).read_text()
        pinned = {
            re.split(r"[\[=]", line)[0].lower().replace("_", "-")
            for line in text.splitlines()
            if re.match(r"[A-Za-z0-9]", line)
        }
        wanted = {re.split(r"[\[>=<]", row)[0].lower() for row in PROJECT["dependencies"]}
        assert wanted <= pinned
        assert text.count("==") <= text.count("--hash=sha256:")
        assert not re.search(r"https?://|^--(index|extra-index|find-links|trusted)|file://", text, re.MULTILINE)


def test_lock_files_name_no_address() -> None:
    assert "resolved" not in (ROOT / "tests/e2e/package-lock.json").read_text()


def test_the_licence_is_apache_2() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"


def test_nothing_says_that_it_is_unfinished() -> None:
    for path in tracked("*.py"):
        if path.is_relative_to(ROOT / "tests"):
            continue
        assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text()), path


def test_only_the_door_speaks_aiohttp() -> None:
    speakers = {
        path.relative_to(ROOT).as_posix()
        for path in tracked("*.py")
        if not path.is_relative_to(ROOT / "tests")
        and re.search(r"^\s*(import|from) aiohttp", path.read_text(), re.MULTILINE)
    }
    assert speakers == {"proxy/aiohttp_parts.py"}
