"""Mistakes in a configuration: where they stand, what is wrong, and the nearest right thing.

What stands in the wrong place may be a secret.  So messages repeat names (of settings, engines, kinds, models),
numbers, and addresses that hold no password, and no other value from the file.
"""

from __future__ import annotations

import copy
import difflib
import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from proxy.quantities import Wrong

Location = tuple[Any, ...]
Lines = Mapping[Location, int]
LATER: Final[Mapping[Location, frozenset[str]]] = {
    (): frozenset({"overflow", "console"}),
    ("state",): frozenset({"ledger"}),
    ("engines", "*"): frozenset({"queue", "dns"}),
    ("engines", "*", "managed"): frozenset({"sha256", "replicas"}),
}
"""Settings of the design that are not there yet: said plainly, never accepted in silence."""

LATER_VALUES: Final[Mapping[str, re.Pattern[str]]] = {
    "store": re.compile(r"postgresql(:.*)?"),
}
EXAMPLES: Final[Mapping[str, str]] = {
    "engines": "{gpu: {kind: vllm, replicas: [http://gpu-a:8000], models: {llama-70b: {}}}}",
    "models": "{llama-70b: {context: 131072}}",
    "kind": "vllm", "replicas": "[http://gpu-a:8000]", "peers": "[100.64.0.0/10]", "found": "[card, ssn]",
    "small": "[cpu/phi-3]", "large": "[gpu/llama-70b]", "name": "cards never leave", "action": "keep_local",
    "rules": "[{name: cards never leave, when: {found: [card]}, action: block}]",
    "budgets": "[{scope: org, window: month, limit: $2000}]", "limit": "$2000", "boundaries": "[local]",
    "prices": "{openai/gpt-4o: {input: $2.50/M, output: $10/M}}", "input": "$2.50/M", "output": "$10/M",
    "keys": "{triage: {hash: 'sha256:...'}}", "hash": "sha256:...", "context": "131072", "model": "./models/phi-3.gguf",
    "cost": "{purchase: $60000, watts: {idle: 200, load: 1400}, kwh: $0.12}", "watts": "{idle: 200, load: 1400}",
    "experiments": "[{name: try-local, shadow: {to: gpu/llama-70b, share: 5%}}]", "phases": "[0%, 50%, 80%, 95%]", "share": "2%",
    "route": "{small: [cpu/phi-3], large: [gpu/llama-70b]}", "listen": "{host: 127.0.0.1, port: 8800}",
}  # fmt: skip
SHOWN = 16
"""So many names at most where a message lists what there is."""


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


# --- places and names --------------------------------------------------------------------------------------


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
    names = list(dict.fromkeys(known))
    folded = {known.casefold(): known for known in reversed(names)}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    if near:
        return f"did you mean {folded[near[0]]!r}?"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names[:SHOWN])}{more}" if names else ""


def without(value: dict[str, Any], places: Iterable[Location]) -> tuple[dict[str, Any], set[Location]]:
    """(a copy in which nothing at these places is left, what was cut out): so that one mistake hides no other.

    Of a list the whole is cut, since the places of what follows would move.
    """
    left = copy.deepcopy(value)
    cut: set[Location] = set()
    for place in places:
        container: Any = left
        depth = 0
        for part in place:
            if not isinstance(container, dict) or part not in container:
                break
            depth += 1
            container = container[part]
        if not depth:
            continue
        holder: Any = left
        for part in place[: depth - 1]:
            holder = holder[part]
        del holder[place[depth - 1]]
        cut.add(place[:depth])
    return left, cut


# --- what pydantic found, in our words ---------------------------------------------------------------------


def from_validation(
    error: ValidationError, model: type[BaseModel], value: Any, lines: Lines
) -> list[tuple[Location, Mistake]]:
    """Each mistake with its place; of the branches of a union only the one that was meant."""
    found: dict[Location, Mistake] = {}
    for item in error.errors(include_url=False):
        path, here = _place(item["loc"], value, item["type"])
        wrong, hint = _words(item, path, here, model)
        found.setdefault(path, Mistake(line_of(path, lines), dotted(path), wrong, hint))
    inner = {path[:length] for path in found for length in range(len(path))}
    return sorted(((p, m) for p, m in found.items() if p not in inner), key=lambda row: row[1])


def _place(location: Location, value: Any, kind: str) -> tuple[Location, Any]:
    """Where a mistake stands in the file, and what stands there.  pydantic also names the branches of unions: those are
    no part of the file."""
    path: list[Any] = []
    for index, part in enumerate(location):
        if (isinstance(value, dict) and part in value) or (
            isinstance(value, (list, tuple)) and isinstance(part, int) and part < len(value)
        ):
            path.append(part)
            value = value[part]
        elif kind == "missing" and index == len(location) - 1:
            path.append(part)
            value = None
    return tuple(path), value


def _words(item: Any, path: Location, here: Any, model: type[BaseModel]) -> tuple[str, str]:
    kind, context = item["type"], item.get("ctx", {})
    name = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return _unknown(name, path, model)
    if kind == "missing":
        return "is required", _example(name)
    if kind == "value_error":
        cause = context["error"]
        return str(cause), cause.hint if isinstance(cause, Wrong) else ""
    if kind == "literal_error":
        return _choice(name, here, re.findall(r"'([^']*)'", str(context["expected"])))
    if here is None:
        return "is empty", "write what belongs here, or leave the name out, too"
    if kind.startswith(("model_", "dict_")):
        return "must be a mapping", _example(name) or "such as {name: value}"
    if kind.startswith("tuple_"):
        return "must be a list", _example(name) or "in brackets: [a, b]"
    if kind.startswith("int_"):
        return "must be a whole number", _whole_number(here)
    if kind.startswith("float_"):
        return "must be a number", "such as 4, without a unit"
    if kind.startswith("bool_"):
        return "must be true or false", ""
    if kind == "string_type":
        return "must be text", "write it in quotes" if isinstance(here, (int, float)) else ""
    limits = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
    if kind in limits:
        words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}[limits[kind]]
        return f"must be {words} {context[limits[kind]]}", ""
    return str(item["msg"]).replace("Input should be", "must be").replace("Input", "it"), ""


def _unknown(name: str, path: Location, model: type[BaseModel]) -> tuple[str, str]:
    around = path[:-1]
    for pattern, names in LATER.items():
        if (
            name in names
            and len(pattern) == len(around)
            and all(p in ("*", a) for p, a in zip(pattern, around, strict=True))
        ):
            return "is not there yet in this version", "leave it out"
    known = _fields(model, around)
    if name.isdigit():  # {limit: $20,000} is a limit of $20 and a setting called 000
        return "is not a setting", "a number is written without commas, such as $20000"
    if "key" in known and re.search(r"key|token|secret|password|credential", name, re.IGNORECASE):
        return "is not a setting", "a secret is written key: {env: NAME} or key: {file: PATH}"
    if not difflib.get_close_matches(name.casefold(), known, n=1):
        elsewhere = [
            f"{section}.{name}" for section in _fields(model, ()) if not around and name in _fields(model, (section,))
        ]
        if elsewhere:
            return "is not a setting here", f"did you mean {elsewhere[0]!r}?"
    return "is not a setting", nearest(name, known)


def _choice(name: str, here: Any, choices: list[str]) -> tuple[str, str]:
    later = LATER_VALUES.get(name)
    known = ", ".join(choices)
    if later is not None and isinstance(here, str) and later.fullmatch(here):
        return "is not there yet in this version", f"there {'is' if len(choices) == 1 else 'are'} {known}"
    near = nearest(here, choices) if isinstance(here, str) else ""
    return f"must be {'one of: ' if len(choices) > 1 else ''}{known}", near if near.startswith("did") else ""


def _example(name: str) -> str:
    return f"such as {name}: {EXAMPLES[name]}" if name in EXAMPLES else ""


def _whole_number(here: Any) -> str:
    """`8k` and `2000 tokens` as they are written here."""
    match = re.fullmatch(r"([0-9]{1,9}) ?([kK]?)(?: ?tokens?)?", here.strip()) if isinstance(here, str) else None
    if match is None:
        return ""
    number = int(match[1])
    return f"write {number * 1024} or {number * 1000}" if match[2] else f"write {number}"


def _fields(model: type[BaseModel], path: Location) -> list[str]:
    """The settings that there are at a place."""
    current: Any = model
    for part in path:
        current = _below(current, part)
    for branch in _branches(current):
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            return [field.alias or name for name, field in branch.model_fields.items()]
    return []


def _below(annotation: Any, part: Any) -> Any:
    """The type of what stands under a name, or at an index."""
    for branch in _branches(annotation):
        if isinstance(branch, type) and issubclass(branch, BaseModel):
            for name, field in branch.model_fields.items():
                if part == (field.alias or name):
                    return field.annotation
        elif get_origin(branch) is (tuple if isinstance(part, int) else dict):
            return get_args(branch)[0 if isinstance(part, int) else 1]
    return None


def _branches(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _branches(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [inner for branch in get_args(annotation) for inner in _branches(branch)]
    return [annotation]
