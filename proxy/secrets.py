"""Secrets by reference: {env: NAME} or {file: PATH}.  Values are never printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.config_errors import Lines, Location, Mistake, dotted, line_of

if TYPE_CHECKING:
    from proxy.config import Secret, Settings


def resolve_secrets(
    settings: Settings, environ: Mapping[str, str], lines: Lines
) -> tuple[dict[str, str], list[Mistake]]:
    """(values by dotted path, what is missing)."""
    values: dict[str, str] = {}
    missing: list[Mistake] = []
    for path, secret in _references(settings):
        try:
            values[dotted(path)] = _value(secret, environ)
        except LookupError as error:
            missing.append(Mistake(line_of(path, lines), dotted(path), str(error.args[0]), str(error.args[1])))
    return values, missing


def _references(settings: Settings) -> Iterator[tuple[Location, Secret]]:
    for name, engine in settings.engines.items():
        if engine.key is not None:
            yield ("engines", name, "key"), engine.key


def _value(secret: Secret, environ: Mapping[str, str]) -> str:
    if (secret.env is None) == (secret.file is None):
        raise LookupError("a secret comes from one place", "write {env: NAME} or {file: PATH}")
    if secret.env is not None:
        value = environ.get(secret.env, "").strip()
        if not value:
            raise LookupError(f"the environment variable {secret.env} is not set", f"export {secret.env}=...")
        return value
    assert secret.file is not None
    try:
        value = Path(secret.file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise LookupError(f"the file {secret.file} cannot be read", "it must hold the secret alone") from None
    if not value:
        raise LookupError(f"the file {secret.file} is empty", "it must hold the secret alone")
    return value
