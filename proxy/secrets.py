"""Secrets by reference: {env: NAME} or {file: PATH}.  Values are never printed.

Nor is what stands where a name or a path belongs, unless it looks like one: people paste the secret itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.config_errors import Lines, Location, Mistake, dotted, line_of
from proxy.quantities import Wrong

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_parts import Secret

FORM = "write {env: NAME} or {file: PATH}"
LONGEST = 16_384
"""Bytes of a secret's file: no key is longer, and /dev/zero has no end."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TELLING = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""As variables are named by convention; the forms of keys that could be names are not."""
_VALUE = re.compile(r"[!-~]+")


def reference(value: Any) -> Any:
    """Raises `Wrong` for all that is no reference.  The secret itself is the commonest mistake."""
    if value is None or not isinstance(value, (str, int, float, list, dict)):
        return value
    if not isinstance(value, dict):
        raise Wrong("a secret never stands in the file", FORM)
    if set(value) - {"env", "file"}:  # the names are not repeated: {sk-...} is a mapping, too
        raise Wrong("a secret is a reference with one of two names", FORM)
    if len([part for part in value.values() if part is not None]) != 1:
        raise Wrong("a secret comes from one place", FORM)
    if not all(part is None or (isinstance(part, str) and part.strip()) for part in value.values()):
        raise Wrong("a reference to a secret is text", FORM)
    name = value.get("env")
    if name is not None and not _VARIABLE.fullmatch(name):
        raise Wrong(
            "env takes the name of an environment variable, and this is none",
            "where it was the secret itself: export NAME=... and write {env: NAME}",
        )
    return value


def resolve_secrets(
    settings: Settings, environ: Mapping[str, str], lines: Lines
) -> tuple[dict[str, str], list[Mistake]]:
    """(values by dotted path, what is missing)."""
    values: dict[str, str] = {}
    missing: list[Mistake] = []
    for path, secret in _references(settings):
        try:
            values[dotted(path)] = value_of(secret, environ)
        except Wrong as wrong:
            missing.append(Mistake(line_of(path, lines), dotted(path), str(wrong), wrong.hint))
    return values, missing


def _references(settings: Settings) -> Iterator[tuple[Location, Secret]]:
    for name, engine in settings.engines.items():
        if engine.key is not None:
            yield ("engines", name, "key"), engine.key
    if settings.state.redis.password is not None:
        yield ("state", "redis", "password"), settings.state.redis.password
    if settings.alerts is not None:
        if not isinstance(settings.alerts.url, str):
            yield ("alerts", "url"), settings.alerts.url
        if settings.alerts.secret is not None:
            yield ("alerts", "secret"), settings.alerts.secret
    if settings.egress is not None and not isinstance(settings.egress, str):
        yield ("egress_proxy",), settings.egress
    if (
        (captures := settings.audit.captures) is not None
        and captures.kms is not None
        and captures.kms.transit is not None
    ):
        yield ("audit", "captures", "kms", "transit", "token"), captures.kms.transit.token
    for index, witness in enumerate(settings.audit.witness):
        place: Location = ("audit", "witness", index)
        for kind, part, names in (
            ("s3", witness.s3, ("access_key", "secret_key", "session_token")),
            ("webhook", witness.webhook, ("secret",)),
        ):
            for name in names:
                if (secret := getattr(part, name, None)) is not None:
                    yield (*place, kind, name), secret


def value_of(secret: Secret, environ: Mapping[str, str]) -> str:
    """The value behind a reference; raises `Wrong`."""
    if secret.env is not None:
        what = (
            f"the environment variable {secret.env}"
            if _TELLING.fullmatch(secret.env)
            else "the environment variable named here"
        )
        value = environ.get(secret.env, "").strip()
        if not value:
            export = secret.env if _TELLING.fullmatch(secret.env) else "NAME"
            raise Wrong(f"{what} is not set", f"export {export}=...")
    else:
        assert secret.file is not None
        path = Path(secret.file).expanduser()
        # A path says that it is one; a key that was pasted does not begin like this.
        what = f"the file {secret.file}" if secret.file.startswith(("/", "./", "../", "~")) else "the file named here"
        try:
            with open(path, "rb") as file:
                value = file.read(LONGEST + 1).decode().strip()
        except (OSError, ValueError):
            raise Wrong(f"{what} cannot be read", "it must hold the secret alone") from None
        if not value:
            raise Wrong(f"{what} is empty", "it must hold the secret alone")
    if len(value) > LONGEST or not _VALUE.fullmatch(value):
        raise Wrong(f"{what} holds more than a secret", "one line, without spaces")
    return value
