"""Mistakes in a configuration: where they stand, what is wrong, and the nearest right thing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError

LATER = frozenset({"overflow", "routes", "decisions", "experiments", "console"})
"""Sections of the design that are not there yet: said plainly, never accepted in silence."""

Location = tuple[Any, ...]
Lines = Mapping[Location, int]


class Mistake(NamedTuple):
    """One mistake.  `line` is 1-based, 0 where it has none; `hint` is empty where there is nothing nearer to say."""

    line: int
    path: str
    wrong: str
    hint: str


class ConfigInvalid(Exception):
    """Every mistake of a configuration."""

    def __init__(self, name: str, mistakes: list[Mistake]) -> None:
        super().__init__(
            "\n".join(f"{name}:{m.line}: {m.path}: {m.wrong}{f' ({m.hint})' if m.hint else ''}" for m in mistakes)
        )
        self.name = name
        self.mistakes = mistakes


def parse_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[Location, int]]:
    """The mapping of a YAML text, and the line of each of its keys and items."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigInvalid(name, [Mistake(line, "", f"is not YAML: {error.problem}", "")]) from None
    except yaml.YAMLError:
        raise ConfigInvalid(name, [Mistake(0, "", "is not YAML", "")]) from None
    if value is None:
        return {}, {}
    if not isinstance(value, dict):
        raise ConfigInvalid(name, [Mistake(1, "", "must be a mapping of sections", "such as engines:")])
    lines: dict[Location, int] = {}
    repeated: list[Mistake] = []
    _walk(node, (), lines, repeated)
    if repeated:
        raise ConfigInvalid(name, repeated)
    return value, lines


def _walk(node: Any, path: Location, lines: dict[Location, int], repeated: list[Mistake]) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            place = (*path, key.value)
            if place in lines:
                repeated.append(
                    Mistake(key.start_mark.line + 1, dotted(place), "stands twice", f"first in line {lines[place]}")
                )
            _walk(item, place, lines, repeated)
            lines[place] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), lines, repeated)


def line_of(path: Location, lines: Lines) -> int:
    """The line of a place, or of the nearest thing around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


def dotted(path: Iterable[Any]) -> str:
    """`engines.gpu.models`, `budgets[0].limit`."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?`, or what there is."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are {', '.join(names)}" if names else ""


def from_validation(error: ValidationError, model: type[BaseModel], lines: Lines) -> list[Mistake]:
    """pydantic's errors in our words; of the branches of a union only the one that was meant."""
    mistakes: dict[tuple[str, str], Mistake] = {}
    for item in error.errors(include_url=False, include_context=False):
        path = tuple(part for part in item["loc"] if not _is_branch(part))
        wrong, hint = _words(item, path, model)
        mistake = Mistake(line_of(path, lines), dotted(path), wrong, hint)
        mistakes.setdefault((mistake.path, wrong), mistake)
    found = list(mistakes.values())
    deepest = [m for m in found if not any(other.path.startswith(m.path + ".") and other is not m for other in found)]
    return sorted(deepest or found)


def _words(item: Any, path: Location, model: type[BaseModel]) -> tuple[str, str]:
    kind, message = item["type"], str(item["msg"])
    if kind == "extra_forbidden":
        name = str(path[-1])
        if len(path) == 1 and name in LATER:
            return "is not there yet in this version", "leave it out"
        if name in ("key", "env", "file") or "secret" in name:
            return "is not a setting here", ""
        return "is not a setting", nearest(name, _fields(model, path[:-1]))
    if kind == "missing":
        return "is required", ""
    if kind == "value_error":
        return message.removeprefix("Value error, "), ""
    if kind == "literal_error":
        return f"must be one of: {message.removeprefix('Input should be ')}", ""
    if kind == "model_type" or kind == "model_attributes_type":
        if path and path[-1] == "key":
            return "a secret never stands in the file", "write {env: NAME} or {file: PATH}"
        return "must be a mapping", ""
    return message.replace("Input should be", "must be").replace("Input", "it"), ""


def _is_branch(part: Any) -> bool:
    """pydantic names the branches of a union in a location; people did not write them."""
    return isinstance(part, str) and (
        part in ("Routed", "EngineModel", "Prometheus", "bool", "int", "str", "PricePart") or "[" in part
    )


def _fields(model: type[BaseModel], path: Location) -> list[str]:
    """The settings that there are at a place."""
    current: Any = model
    for part in path:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return []
        field = next((f for n, f in current.model_fields.items() if part in (n, f.alias)), None)
        if field is None:
            # below a mapping of names or a list: its own model
            continue
        current = _model_in(field.annotation)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [field.alias or name for name, field in current.model_fields.items()]
    return []


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
