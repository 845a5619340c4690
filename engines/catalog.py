"""Public model name -> the targets that can answer to it.  Pure; built once from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import msgspec
from msgspec import Struct

from engines.model import Target

WILDCARD = "*"
PASS_THROUGH_LIMIT = 4096
"""Names that wildcard engines were asked for and that are remembered; past it none is (law 10)."""


class Entry(Struct, frozen=True, dict=True):
    """What one public name means.  `sizes` marks targets "small" or "large" where complexity routing chooses."""

    name: str
    targets: tuple[Target, ...]
    sizes: Mapping[str, str] = {}  # target name -> small | large
    long_at: int | None = None  # tokens of prompt from which a request counts as large

    @cached_property
    def by_name(self) -> dict[str, Target]:
        """The targets by their names."""
        return {target.name: target for target in self.targets}

    @cached_property
    def local_only(self) -> bool:
        """No candidate lies outside this host and its network."""
        return all([target.boundary == "local" for target in self.targets])


class Catalog:
    """Looks names up; a name that is not declared goes to the engines that take any name (`"*"`), in order."""

    def __init__(
        self, entries: Mapping[str, Entry], wildcards: tuple[Target, ...] = (), beside: tuple[Target, ...] = ()
    ) -> None:
        """`beside`: targets that no public name leads to, and that are asked all the same."""
        self._entries = dict(entries)
        self._wildcards = wildcards
        self._beside = beside
        self._passed: dict[str, Entry] = {}

    def find(self, name: str) -> Entry | None:
        """The entry of a public name, or None."""
        entry = self._entries.get(name) or self._passed.get(name)
        if entry is None and self._wildcards:
            entry = self._pass_through(name)
        return entry

    def _pass_through(self, name: str) -> Entry | None:
        """`gpt-4o`, or `openai/gpt-4o` to name the engine; the engine is asked for the name as it is."""
        engine, slash, rest = name.partition("/")
        named = tuple(t for t in self._wildcards if slash and t.engine == engine)
        targets = tuple(_renamed(t, rest) for t in named) or tuple(_renamed(t, name) for t in self._wildcards)
        entry = Entry(name, targets)
        if len(self._passed) < PASS_THROUGH_LIMIT:
            self._passed[name] = entry
        return entry

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The declared names, in the order of the configuration."""
        return tuple(self._entries.values())

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every target once, wildcards included."""
        seen = {t.name: t for entry in self._entries.values() for t in entry.targets}
        seen.update({t.name: t for t in (*self._wildcards, *self._beside)})
        return tuple(seen.values())


def _renamed(target: Target, model: str) -> Target:
    return msgspec.structs.replace(target, name=f"{target.engine}/{model}", model=model)
