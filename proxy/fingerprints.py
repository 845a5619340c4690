"""Names of what was in force when something was decided: detectors, rules, the configuration.  Worked out once a worker.

A record that says only "rule 3" means nothing a year later.  So each names the version of its rule's text, of the
detectors that looked, and, through the policy's hash, the text that is kept beside the logs.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

import compliance

if TYPE_CHECKING:
    from proxy.config import Settings

_HEX = 12
"""Digits of a version: enough to tell versions apart, and nothing is proved by them alone."""
_LOOKING = ("detectors", "models", "fields.py", "identifiers.py", "jsontext.py", "lane_text.py", "scan.py", "splits.py")
"""What of `compliance` decides which findings a text has: folders and files."""
_NOBODY = 0xFFFFFFFF
_LISTED = 64
_DEPTH = 3
"""Parts of a path at which changes of a configuration are named."""


class Stamps(Struct, frozen=True):
    """What every record of a worker repeats."""

    policy: str
    config: str = ""
    detectors: str = ""
    defaults: str = ""  # the version of the rules that are built in
    rules: Mapping[str, str] = {}  # name -> version
    purposes: Mapping[str, str] = {}  # tenant -> what its requests are for
    models: frozenset[str] = frozenset()  # names that are known without a catalogue's entry: those with a price


def stamps(settings: Settings, models: Iterable[str]) -> Stamps:
    """The stamps of these settings.  `models`: engine kind/model of every price that is known."""
    defaults = _digest((Path(compliance.__file__).parent / "rules.py").read_bytes())
    return Stamps(
        policy=settings.policy_hash,
        config=settings.config_hash,
        detectors=detectors_version(settings),
        defaults=f"defaults-{defaults[:8]}",
        rules={
            rule.name: _digest(json.dumps(rule.model_dump(mode="json"), sort_keys=True).encode())
            for rule in settings.compliance.rules
        },
        purposes={name: tenant.purpose for name, tenant in settings.compliance.tenants.items() if tenant.purpose},
        models=frozenset(model.partition("/")[2] for model in models),
    )


def detectors_version(settings: Settings) -> str:
    """`fast-` or `full-`, and a hash over the code that looks, its tables, the operator's detectors and the plug-ins."""
    part = settings.compliance
    own = json.dumps({name: one.model_dump(mode="json") for name, one in part.detectors.items()}, sort_keys=True)
    plugins = [f"{name} {_distribution(name)}" for name in part.plugins]
    return f"{part.tier}-{_digest(json.dumps([_code(), own, plugins]).encode())}"


@cache
def _code() -> str:
    """Over the files of `compliance` that look, tables included: some 5 MB."""
    root = Path(compliance.__file__).parent
    found = [path for name in _LOOKING for path in (root / name, *(root / name).rglob("*"))]
    files = sorted(path for path in found if path.is_file() and path.suffix != ".pyc")
    whole = hashlib.sha256()
    for path in files:
        whole.update(path.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _distribution(plugin: str) -> str:
    """The version of what a plug-in comes from; empty where that is not known."""
    for point in metadata.entry_points(name=plugin):
        if point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return ""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_HEX]


def account() -> str:
    """Who runs this process, as the operating system knows it, not as the environment says.

    Under `sudo` and the like it is `root (login dana)`: the login that the audit subsystem keeps (pam_loginuid(8)).
    """
    name = _name_of(os.getuid())
    try:
        login = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        return name
    return name if login in (_NOBODY, os.getuid()) else f"{name} (login {_name_of(login)})"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


# --- what changed ---------------------------------------------------------------------------------------------


def keep_text(logs: Path, hash_: str, material: bytes) -> None:
    """Keep beside the logs what a hash was taken over: records name the hash, evidence packs hold both."""
    path = logs / "policies" / f"{hash_}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True, mode=0o700)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(material)
        part.replace(path)


def kept_text(logs: Path, hash_: str) -> bytes | None:
    """What a hash was taken over, where it is kept."""
    try:
        return (logs / "policies" / f"{Path(hash_).name}.json").read_bytes()
    except OSError:
        return None


def in_force(logs: Path) -> tuple[str, str]:
    """(policy, configuration) that were last recorded to be in force; empty where there were none.

    Nothing is believed of this file but what a change is compared with: each start and each decision names its policy.
    """
    try:
        row = json.loads((logs / "policies" / "in-force").read_text())
        return str(row["policy"]), str(row["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def keep_in_force(logs: Path, policy: str, config: str) -> None:
    """The change to these is on the disk."""
    path = logs / "policies" / "in-force"
    path.parent.mkdir(exist_ok=True, mode=0o700)
    part = path.with_name(f"in-force.{os.getpid()}")
    part.write_text(json.dumps({"policy": policy, "config": config}))
    part.replace(path)


def changes(before: bytes | None, after: bytes | None) -> tuple[str, ...]:
    """Paths at which two texts differ, never values: `compliance.rules.[name]`, `engines.gpu.replicas`."""
    if before is None or after is None:
        return ()
    paths: list[str] = []
    _differ(_named(json.loads(before)), _named(json.loads(after)), "", _DEPTH, paths.append)
    return tuple(paths[:_LISTED])


def _differ(before: Any, after: Any, path: str, depth: int, tell: Callable[[str], None]) -> None:
    if before == after:
        return
    if depth == 0 or not isinstance(before, dict) or not isinstance(after, dict):
        how = " added" if before is None else " removed" if after is None else ""
        tell(path + how)
        return
    for name in sorted(before.keys() | after.keys()):
        _differ(before.get(name), after.get(name), f"{path}.{name}" if path else name, depth - 1, tell)


def _named(text: Any) -> Any:
    """Rules by their names, so that one that was added does not make all of them differ; their order is a part of its own."""
    rules = text.get("compliance", {}).get("rules") if isinstance(text, dict) else None
    if isinstance(rules, list):
        names = [rule.get("name", "") for rule in rules]
        compliance_part = {**text["compliance"], "rules": dict(zip(names, rules, strict=True)), "order of rules": names}
        return {**text, "compliance": compliance_part}
    return text
