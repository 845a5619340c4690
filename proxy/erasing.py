"""Erasure over all stores: captures and commitment keys in the vault, what was kept of prompts to learn from, and the maps
of pseudonyms.

`begun` is durable before anything is destroyed, `done` follows it: an erasure that a crash cut short shows, and can be
done again.  A hold on anything that would go blocks the whole of it, and that is a record as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from compliance.captures import Item, Removed
from compliance.control import holds_in_force
from compliance.holds import Hold, Holds
from compliance.records import Erased
from compliance.vault import Held, Vault
from proxy.config import Settings
from proxy.control_log import Pen
from proxy.instance import signing_key
from proxy.state.pseudonyms import Map, PseudonymStore, load_or_create_key
from proxy.vaulting import features_path, open_features, open_vault, removing, vault_path

MICRO = 1_000_000


class Blocked(Exception):
    """A hold stands, so nothing was erased."""

    def __init__(self, hold: Hold) -> None:
        super().__init__(f"hold {hold.id}: {hold.reason}")
        self.hold = hold


class Scope(Struct, frozen=True):
    """What is to be erased."""

    kind: str  # subject, tenant, request
    value: str  # of a subject, the pseudonym


class Found(Struct, frozen=True):
    """What there is of it."""

    attempts: int
    maps: int
    blocked: Hold | None
    features: int = 0  # requests of which numbers are kept to learn from


def look(settings: Settings, scope: Scope) -> Found:
    """What an erasure would destroy, and what blocks it.  Raises `VaultFailed`, `PseudonymsFailed`, `OSError`."""
    with _Stores(settings) as stores:
        return _look(stores, holds_in_force(Path(settings.audit.dir), signing_key(settings)), scope)


def erase(settings: Settings, pen: Pen, scope: Scope, *, reason: str, actor: str, now: Callable[[], int]) -> Erased:
    """Destroy a scope's keys, captures and maps; the record that says so.

    Raises `Blocked` (recorded), `VaultFailed`, `PseudonymsFailed`, `JournalError`, `OSError`, `StillRemoving`: where one
    of these came after `begun`, do it again.
    """

    def record(
        state: str, hold: str = "", removed: Removed | None = None, maps: int = 0, features: Removed | None = None
    ) -> Erased:
        gone, learnt = removed or Removed(), features or Removed()
        made: Erased = pen.write(
            Erased(
                actor=actor, at=now(), captures=gone.captures, features=learnt.records, hold=hold,
                keys=gone.keys + learnt.keys, maps=maps, reason=reason,
                records=gone.records, scope=scope.kind, state=state, value=scope.value,
            )
        )  # fmt: skip
        return made

    with removing(settings), _Stores(settings) as stores:
        held = holds_in_force(Path(settings.audit.dir), signing_key(settings))
        blocked = _look(stores, held, scope).blocked
        if blocked is None:
            record("begun")
            try:
                removed, features = [
                    Removed() if vault is None else vault.erase(scope.kind, scope.value, blocks=_by(held))
                    for vault in (stores.vault, stores.features)
                ]
                maps = stores.forget(scope)
                return record("done", removed=removed, maps=maps, features=features)
            except Held as found:  # something was kept since it was looked
                assert isinstance(found.hold, Hold)
                blocked = found.hold
        record("blocked", hold=blocked.id)
        raise Blocked(blocked)


class _Stores:
    """What may hold something, opened only where it is there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.vault: Vault | None = None
        self.features: Vault | None = None
        self._maps: PseudonymStore | None = None

    def __enter__(self) -> _Stores:
        if vault_path(self._settings).exists():
            self.vault = open_vault(self._settings, needs_key=False)
        if features_path(self._settings).exists():
            self.features = open_features(self._settings, needs_key=False)
        state = Path(self._settings.state.dir)
        if (state / "pseudonyms.db").exists():
            part = self._settings.compliance.pseudonyms
            key = load_or_create_key(state / "pseudonyms.key")
            self._maps = PseudonymStore(state / "pseudonyms.db", key, keep=part.keep, values=part.values)
        return self

    def __exit__(self, *error: object) -> None:
        for vault in (self.vault, self.features):
            if vault is not None:
                vault.close()
        if self._maps is not None:
            self._maps.close()

    def maps(self, scope: Scope) -> list[Map]:
        """A request has none of its own: it shares its conversation's."""
        if self._maps is None or scope.kind == "request":
            return []
        return self._maps.maps(**{scope.kind: scope.value})

    def forget(self, scope: Scope) -> int:
        scopes = sorted({one.scope for one in self.maps(scope)})
        return self._maps.forget(scopes) if self._maps is not None and scopes else 0


def _look(stores: _Stores, held: Holds, scope: Scope) -> Found:
    names = {"subject": "", "tenant": "", "request": "", scope.kind: scope.value}
    blocked = held.blocks(subject=names["subject"], tenant=names["tenant"], request=names["request"])
    attempts = features = 0
    if stores.vault is not None:
        attempts, hold = stores.vault.survey(scope.kind, scope.value, _by(held))
        blocked = blocked or hold
    if stores.features is not None:
        features, hold = stores.features.survey(scope.kind, scope.value, _by(held))
        blocked = blocked or hold
    maps = stores.maps(scope)
    for one in maps:
        blocked = blocked or _of_map(held, one)
    return Found(attempts, len({one.scope for one in maps}), blocked, features)


def _by(held: Holds) -> Callable[[Item], Hold | None]:
    return lambda item: held.blocks(
        subject=item.subject, tenant=item.tenant, request=item.request, span=(item.at, item.at)
    )


def _of_map(held: Holds, one: Map) -> Hold | None:
    span = (one.first * MICRO, (one.last + 1) * MICRO)
    return held.blocks(subject=one.subject, tenant=one.tenant, span=span)
