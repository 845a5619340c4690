"""Detectors from elsewhere, by the names that `compliance.plugins` gives: those of this house, and entry points.

A package offers one as an entry point of the group `spillway.detectors`: a callable without arguments that gives an object
with `find(text) -> list[Span]` (`compliance.scan.Detector`).  It is loaded once a process, when the scanner is made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from typing import Any

from compliance.detectors import presidio
from compliance.detectors.plugged import Finder, Plugged

GROUP = "spillway.detectors"
OWN: Mapping[str, tuple[Callable[[], Finder], Callable[[], str]]] = {
    "presidio": (presidio.with_model, presidio.missing),
    "presidio-patterns": (presidio.patterns_only, presidio.missing_package),
}
"""Name -> how it is made, and what is missing for that."""


class PluginBroken(ValueError):
    """A plug-in cannot be loaded; the message says why, and what to install."""


def names() -> tuple[str, ...]:
    """Every plug-in that can be named here, this house's first."""
    return (*OWN, *sorted(entry.name for entry in metadata.entry_points(group=GROUP) if entry.name not in OWN))


def problem(name: str) -> str:
    """Why a plug-in that is known cannot be loaded; "" where it can."""
    if name in OWN:
        return OWN[name][1]()
    try:
        _maker(name)
    except PluginBroken as broken:
        return str(broken)
    return ""


def load(name: str, kinds: Collection[str]) -> Plugged:
    """The detector, held to what a scanner needs of one.  `kinds`: what rules can speak of.  Raises `PluginBroken`."""
    try:
        made = OWN[name][0]() if name in OWN else _maker(name)()
    except ImportError as error:
        raise PluginBroken(str(error)) from None
    if not callable(getattr(made, "find", None)):
        raise PluginBroken(f"plug-in {name!r} gives no detector: it has no find(text)")
    return Plugged(name, made, kinds)


def _maker(name: str) -> Callable[[], Any]:
    entry = next((entry for entry in metadata.entry_points(group=GROUP) if entry.name == name), None)
    if entry is None:
        raise PluginBroken(f"no installed package offers {name!r} ({GROUP})")
    try:
        made = entry.load()
    except (ImportError, AttributeError) as error:
        raise PluginBroken(f"plug-in {name!r} ({entry.value}) cannot be imported: {error}") from None
    if not callable(made):
        raise PluginBroken(f"plug-in {name!r} ({entry.value}) is nothing that makes a detector")
    return made  # type: ignore[no-any-return]
