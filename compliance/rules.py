"""The operator's rules: on which findings, requests and targets each speaks, and what it orders.  Data only.

What they come to for one request says `compliance.rulings`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from compliance.identifiers import NAMES
from compliance.model import LOCAL, Action

UNREAD = ("opaque", "scan_failed")
"""Findings that say that something was not looked at."""
GROUPS = ("pii", "phi")
"""Words of rules for many kinds: any identifier; any identifier under health context."""
TYPES = (*NAMES, *UNREAD, *GROUPS)
"""What a rule can speak of."""
CONTRACTS = ("baa", "zero_retention")


class Labels(Struct, frozen=True, gc=False):
    """What is known of a target, by the operator's word: where it is, whose, and under which contract."""

    boundary: str
    provider: str = ""
    region: str = ""
    baa_until: int | None = None  # days since the epoch, that day included; None: no business associate agreement
    zero_retention: bool = False

    def holds(self, contract: str, today: int) -> bool:
        """Is this contract in force today?"""
        if contract == "baa":
            return self.baa_until is not None and today <= self.baa_until
        return contract == "zero_retention" and self.zero_retention


CLOUD = Labels("cloud")
"""A cloud without any contract: where one action is printed for a text alone, it is the one for this target."""
HOME = Labels(LOCAL)


class Facts(Struct, frozen=True, gc=False):
    """What a rule may look at of a request, beside what was found in it."""

    tenant: str = ""
    application: str = ""
    key: str = ""
    surface: str = ""
    model: str = ""
    health: bool = False  # health context in the text, or a tenant that is tagged with it
    today: int = 0  # days since the epoch, UTC


class Expression(Protocol):
    """A compiled condition over names; see `compliance.expressions`."""

    def holds(self, names: Mapping[str, object]) -> bool | None:
        """Does it hold?  None: it failed."""
        ...


class Where(Struct, frozen=True):
    """Conditions on a target.  Empty: any."""

    boundaries: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    contracts: frozenset[str] = frozenset()  # all of them in force

    def matches(self, labels: Labels, today: int) -> bool:
        return (
            (not self.boundaries or labels.boundary in self.boundaries)
            and (not self.providers or labels.provider in self.providers)
            and (not self.regions or labels.region in self.regions)
            and all([labels.holds(contract, today) for contract in self.contracts])
        )


class Rule(Struct, frozen=True):
    """The first rule that matches decides.  Empty conditions: any.  Without `found` it speaks of the whole request."""

    name: str
    action: Action
    found: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    applications: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    surfaces: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    health: bool | None = None
    target: Where = Where()
    expression: Expression | None = None

    def suits(self, facts: Facts) -> bool:
        """Do the conditions on the request hold?  Neither on what was found, nor on the target."""
        return (
            (not self.tenants or facts.tenant in self.tenants)
            and (not self.applications or facts.application in self.applications)
            and (not self.keys or facts.key in self.keys)
            and (not self.surfaces or facts.surface in self.surfaces)
            and (not self.models or facts.model in self.models)
            and (self.health is None or facts.health == self.health)
        )

    def speaks_of(self, kind: str, health: bool) -> bool:
        """Does it speak of this kind of finding?"""
        if not self.found or kind in self.found:
            return True
        return kind not in UNREAD and ("pii" in self.found or (health and "phi" in self.found))


def policy_hash(material: bytes) -> str:
    """Names a policy in records and headers: the first 32 hex digits of its SHA-256.

    So many that nobody can make two policies of one name, run one and show the other.
    """
    return hashlib.sha256(material).hexdigest()[:32]
