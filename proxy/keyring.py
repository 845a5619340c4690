"""The keys in force: a token's digest in, a `Principal` out.  Asked for every request."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.auth import LOCAL_OPEN, Principal, digest


class Keyring:
    """The keys in force, by hash.  Replaced as a whole when they change."""

    def __init__(self, keys: Mapping[str, Principal]) -> None:
        self._keys = dict(keys)

    def replace(self, keys: Mapping[str, Principal]) -> None:
        """The keys have changed."""
        self._keys = dict(keys)

    @property
    def is_open(self) -> bool:
        """No key was made yet."""
        return not self._keys

    def authenticate(self, token: str | None, now: int, *, loopback: bool) -> Principal | None:
        """The principal of a token at `now` (microseconds since the epoch); None: not to be served."""
        return self.holder(None if token is None else digest(token), now, loopback=loopback)

    def holder(self, key: str | None, now: int, *, loopback: bool) -> Principal | None:
        """`authenticate`, by the token's digest."""
        if not self._keys:
            return LOCAL_OPEN if loopback else None
        principal = self._keys.get(key) if key is not None else None
        if principal is None or (principal.expires is not None and now >= principal.expires):
            return None
        return principal
