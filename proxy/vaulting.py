"""The vault of a configuration, and the lock under which holds are placed and things are removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from compliance.captures import Item
from compliance.control import holds_in_force
from compliance.holds import Hold
from compliance.journal import Journal
from compliance.masterkeys import (
    CommandMaster,
    FileMaster,
    MasterKey,
    MasterKeyFailed,
    NoMaster,
    TransitMaster,
    create_key,
)
from compliance.vault import StillRemoving, Vault, VaultFailed
from proxy.config import Settings
from proxy.config_parts import Captures as CapturesPart
from proxy.instance import signing_key
from proxy.quantities import Wrong
from proxy.secrets import value_of

if TYPE_CHECKING:
    from proxy.capturing import Capturing
    from proxy.remembering import Remembering

LOCK_SECONDS = 30.0
"""How long an erasure or a new hold waits for the removal that is under way."""


def vault_path(settings: Settings) -> Path:
    return Path(settings.state.dir) / "vault.db"


def master_path(settings: Settings) -> Path:
    """Where the master key's file lies, where no service keeps it."""
    part = settings.audit.captures
    if part is not None and part.key is not None and part.key.file is not None:
        return Path(part.key.file)
    return Path(settings.state.dir) / "vault.key"


def master_key(settings: Settings, environ: Mapping[str, str] | None = None) -> MasterKey:
    """The master key, or who keeps it; raises `MasterKeyFailed`."""
    part = settings.audit.captures or CapturesPart()
    if part.kms is None:
        return FileMaster(master_path(settings))
    if part.kms.transit is None:
        return CommandMaster(part.kms.command)
    transit = part.kms.transit
    token = settings.secret("audit.captures.kms.transit.token")
    try:
        token = token or value_of(transit.token, os.environ if environ is None else environ)
    except Wrong as wrong:
        raise MasterKeyFailed(f"the token of the key service: {wrong}; {wrong.hint}") from None
    return TransitMaster(transit.url, transit.key, token)


def why_not_capture(settings: Settings) -> str | None:
    """What keeps a configuration that captures from doing so on this host, before it serves; None: nothing does.

    A key service is not asked: it may come later.
    """
    if settings.audit.captures is None or settings.audit.captures.kms is not None:
        return None
    try:
        master_key(settings)
    except MasterKeyFailed as failure:
        return str(failure)
    return None


def open_vault(settings: Settings, *, needs_key: bool = True) -> Vault:
    """Raises `VaultFailed`.  Erasing needs no master key: a key service that is away does not stand in its way."""
    try:
        return Vault(vault_path(settings), master_key(settings) if needs_key else NoMaster())
    except MasterKeyFailed as failure:
        raise VaultFailed(str(failure)) from None


def features_path(settings: Settings) -> Path:
    """Where what is kept of prompts to learn from lies."""
    return Path(settings.state.dir) / "features.db"


def open_features(settings: Settings, *, needs_key: bool = True) -> Vault:
    """A vault of its own, under the captures' master key, or under a key file that is made where nothing is captured.

    A key file that is there stays in use: what it wrapped opens with nothing else.  Raises `VaultFailed`.
    """
    path = Path(settings.state.dir) / "features.key"
    try:
        if not needs_key:
            return Vault(features_path(settings), NoMaster())
        if settings.audit.captures is not None and not path.exists():
            return Vault(features_path(settings), master_key(settings))
        create_key(path)
        return Vault(features_path(settings), FileMaster(path))
    except MasterKeyFailed as failure:
        raise VaultFailed(str(failure)) from None


def build_remembering(settings: Settings) -> Remembering | None:
    """What keeps of requests what a scorer is learnt from; None where nothing is kept."""
    part = settings.complexity.remember
    if part is None:
        return None
    from proxy.remembering import Kept, Remembering

    wanted = Kept(
        share=part.share, keep=part.keep, most=part.most, found=part.findings == "keep",
        tenants=None if part.tenants is None else frozenset(part.tenants),
    )  # fmt: skip
    return Remembering(wanted, partial(open_features, settings), partial(holding, settings))


def build_capturing(settings: Settings, journal: Journal) -> Capturing | None:
    """What captures in a worker; None where nothing is captured."""
    part = settings.audit.captures
    if part is None:
        return None
    from proxy.capturing import Captures, Capturing  # with all that relays an answer: not the supervisor's

    wanted = Captures(
        tenants=None if part.tenants is None else frozenset(part.tenants),
        rules=None if part.rules is None else frozenset(part.rules),
        parts=part.parts, limit=part.limit, keep=part.keep, refuse=part.lost == "refuse",
    )  # fmt: skip
    return Capturing(journal, wanted, partial(open_vault, settings), partial(holding, settings))


@contextlib.contextmanager
def holding(settings: Settings, seconds: float = 0.0) -> Iterator[Callable[[Item], Hold | None]]:
    """What a hold keeps, while nobody places one; raises `StillRemoving`, `OSError`."""
    with removing(settings, seconds):
        held = holds_in_force(Path(settings.audit.dir), signing_key(settings))

        def blocks(item: Item) -> Hold | None:
            return held.blocks(subject=item.subject, tenant=item.tenant, request=item.request, span=(item.at, item.at))

        yield blocks


@contextlib.contextmanager
def removing(settings: Settings, seconds: float | None = None) -> Iterator[None]:
    """While nothing else places a hold or removes what may be under one; raises `StillRemoving`."""
    path = Path(settings.state.dir) / "holds.lock"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    until = time.monotonic() + (LOCK_SECONDS if seconds is None else seconds)
    with open(path, "a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise StillRemoving("something else is being removed just now") from None
                time.sleep(0.05)
        yield
