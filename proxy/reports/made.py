"""The reports by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from proxy.reports.changes import access, policy
from proxy.reports.disclosures import disclosures
from proxy.reports.model import Report
from proxy.reports.sources import Sources
from proxy.reports.tried import canary, refusals

REPORTS: Mapping[str, Callable[[Sources], Report]] = {
    "disclosures": disclosures,
    "access": access,
    "policy": policy,
    "canary": canary,
    "refusals": refusals,
}
