"""From the compliance section of a configuration to the rules that compliance applies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compliance.detectors.custom import Detector
from compliance.expressions import Cel
from compliance.identifiers import FAMILY
from compliance.rules import Rule, Where

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_parts import DetectorPart, RulePart


def rule_of(part: RulePart) -> Rule:
    """A rule as compliance applies it."""
    when, target = part.when, part.when.target
    return Rule(
        part.name,
        part.action,
        found=frozenset(when.found),
        tenants=frozenset(when.tenant),
        applications=frozenset(when.application),
        keys=frozenset(when.key),
        surfaces=frozenset(when.surface),
        models=frozenset(when.model),
        health=when.health,
        target=Where(
            frozenset(target.boundary), frozenset(target.provider), frozenset(target.region), frozenset(target.contract)
        ),
        expression=Cel(when.cel) if when.cel is not None else None,
    )


def clinical_tenants(settings: Settings) -> frozenset[str]:
    """Tenants whose every request has health context, because the operator says so."""
    return frozenset(name for name, tenant in settings.compliance.tenants.items() if tenant.context == "health")


def detector_of(name: str, part: DetectorPart) -> Detector:
    """An operator's detector as compliance compiles it."""
    return Detector(name, part.pattern, part.label, part.checksum, part.matches, part.rejects)


def asks_everywhere(settings: Settings) -> bool:
    """Does a rule speak of names and places where there is no health context?"""
    return any_everywhere(settings.compliance.rules)


def any_everywhere(rules: Sequence[RulePart]) -> bool:
    """The same of these rules: does one speak of names and places where there is no health context?"""
    return any(
        rule.when.cel is not None
        or rule.when.health is False
        or any(found == "pii" or FAMILY.get(found) == "context" for found in rule.when.found)
        for rule in rules
    )


def speaks_of_people(rules: Sequence[RulePart]) -> bool:
    """Would a rule decide otherwise if names or places had been found where there is no health context?"""
    return any(
        any(found == "pii" or FAMILY.get(found) == "context" for found in rule.when.found)
        or (rule.when.cel is not None and "found" in Cel(rule.when.cel).variables)
        for rule in rules
    )
