"""YAML as configurations are written in: mappings, lists and plain values, each with its line; bounded in depth and size."""

from __future__ import annotations

import re
from typing import Any

import yaml

from proxy.config_errors import EXAMPLES, ConfigInvalid, Location, Mistake, dotted

MAX_DEPTH = 32
MAX_NODES = 200_000
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_MERGE = "tag:yaml.org,2002:merge"
_YAML_HINTS = (
    (r"'\\t'", "indent with spaces, not with tabs"),
    (r"undefined alias|alphabetic or numeric", 'a star is written in quotes: "*"'),
    (r"mapping values are not allowed", "text that holds a colon and a space is written in quotes; or the indentation is off"),
    (r"cannot start any token", "text that starts with this character is written in quotes"),
    (r"another document", "one file holds one document: leave the --- out"),
    (r"could not find expected ':'", "a setting is written as name: value"),
    (r"expected ',' or|but got '<stream end>'", "a bracket is not closed, or a comma is missing"),
    (r"expected <block end>", "the indentation is off, or a quote is not closed"),
    (r"escape character", "in double quotes a backslash is written twice; or use single quotes"),
)  # fmt: skip


class _Loader(yaml.SafeLoader):
    """Dates stay text: 2026-01-01 is what people write, and a day that does not exist must not end in a traceback."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rows if not tag.endswith(":timestamp")]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[Location, int]]:
    """The mapping of a YAML text, and the line of each of its keys and items.  Names are text, also where they are
    numbers; depth and size are bounded, so aliases cannot blow a small file up."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        hint = next((words for pattern, words in _YAML_HINTS if re.search(pattern, str(error.problem))), "")
        raise ConfigInvalid(name, [Mistake(line, "", f"is not YAML: {error.problem}", hint)]) from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise ConfigInvalid(name, [Mistake(line, "", "holds a character that YAML does not allow", "")]) from None
    except RecursionError:
        raise ConfigInvalid(name, [Mistake(1, "", "is nested too deeply", "")]) from None
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"):
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigInvalid(
            name, [Mistake(1, "", "must be a mapping of sections", f"such as engines: {EXAMPLES['engines']}")]
        )
    reader = _Reader()
    value = reader.read(node, ())
    if reader.mistakes:
        raise ConfigInvalid(name, sorted(reader.mistakes.values()))
    return value, reader.lines


class _Reader:
    """Nodes -> values, with the line of each place.  One mistake is kept for each place."""

    def __init__(self) -> None:
        self.lines: dict[Location, int] = {}
        self.mistakes: dict[str, Mistake] = {}
        self._nodes = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def read(self, node: Any, path: Location) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._nodes += 1
        if len(path) > MAX_DEPTH or self._nodes > MAX_NODES:
            return self._wrong(node, path[:1], "is nested too deeply, holds itself, or is too large")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _PLAIN_TAGS:
            return self._wrong(node, path, "has a tag; tags are not used here", "leave out what starts with !")
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: Any, path: Location) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, item in node.value:
            if key.tag == _MERGE:
                value = self.read(item, path)
                for part in value if isinstance(value, list) else [value]:
                    merged = {**part, **merged} if isinstance(part, dict) else merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._wrong(key, path, "has a list or a mapping where a name belongs")
                continue
            name, place = key.value, (*path, key.value)
            if name in out:
                self._wrong(key, place, "stands twice", f"first in line {self.lines[place]}")
                continue
            self.lines[place] = key.start_mark.line + 1
            out[name] = self.read(item, place)
        return {**merged, **out}

    def _scalar(self, node: Any, path: Location) -> Any:
        if ":" in node.value and node.tag.endswith((":int", ":float")):
            return node.value  # 8800:80 is no number to the base of sixty
        try:
            return self._scalars.construct_object(node)
        except (ValueError, yaml.YAMLError):
            return self._wrong(node, path, "is no value that YAML knows", "write it in quotes")

    def _wrong(self, node: Any, path: Location, wrong: str, hint: str = "") -> None:
        where = dotted(path)
        self.mistakes.setdefault(where, Mistake(node.start_mark.line + 1, where, wrong, hint))
