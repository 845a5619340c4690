"""When a decision matches: a table of conditions over signals, read once, then asked with nothing but calls.

    when:
      route: [coding, maths]            a name, or one of several; `none` is out of scope
      tokens: {over: 4000}              over, under, at_least, at_most; or a number alone
      structure: code                   any of these is there; so with found and keywords
      stream: true
      any: [{language: de}, {not: {tenant: clinic}}]
      expr: 'complexity != null && complexity > 70.0'

The lines of one table must all hold, as must `all:`.  A signal that is not known (a language that cannot be told, a
complexity that is not calibrated) makes a condition neither true nor false, `not:` included: the logic is Kleene's, so
that `any:` with something that holds holds.  An expression in CEL that fails raises, as a signal does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import re2
from msgspec import Struct

from compliance.expressions import Cel, ExpressionInvalid
from policies.languages import KNOWN as LANGUAGES
from policies.signals import STRUCTURES, SignalFailed, Signals

Holds = Callable[[Signals], bool | None]
Path = tuple[Any, ...]

NAMES = ("route", "language", "tenant", "team", "organisation", "application", "key", "model")
COUNTS = ("tokens", "messages", "max_output")
SHARES = ("probability", "margin", "load")
FLAGS = ("stream", "health")
PERCENTILE = "complexity"
SEVERAL = ("structure", "found", "keywords")
UNKNOWABLE = frozenset({"language", "complexity", "max_output", "load"})
"""Signals that may have no value."""
WORDS = (*NAMES, *COUNTS, *SHARES, PERCENTILE, *FLAGS, *SEVERAL, "all", "any", "not", "expr")
"""What a table of conditions may hold."""
DEEPEST = 8
LONGEST_KEYWORD = 64

_SAMPLE: dict[str, object] = {
    **dict.fromkeys(NAMES, "a"),
    **dict.fromkeys(COUNTS, 1),
    **dict.fromkeys((*SHARES, PERCENTILE), 0.5),
    **dict.fromkeys(FLAGS, True),
    "structure": ["code"],
    "found": ["ssn"],
}
_COMPARISONS = ("over", "under", "at_least", "at_most")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d+)?) ?%")


class All(Struct, frozen=True):
    parts: tuple[Node, ...]


class AnyOf(Struct, frozen=True):
    parts: tuple[Node, ...]


class Not(Struct, frozen=True):
    part: Node


class Named(Struct, frozen=True):
    """A signal is one of these; flags, too."""

    signal: str
    values: frozenset[str | bool]


class Between(Struct, frozen=True):
    """A number lies between two positions: (x, 0) is just before x, (x, 1) just after it; None: no end."""

    signal: str
    low: tuple[float, int] | None
    high: tuple[float, int] | None


class Holding(Struct, frozen=True):
    """At least one of these is there: of structure, found or keywords."""

    signal: str
    values: frozenset[str]


class Expr(Struct, frozen=True):
    source: str
    cel: Cel


Node = All | AnyOf | Not | Named | Between | Holding | Expr


class Mistake(Struct, frozen=True):
    path: Path  # below the condition
    wrong: str
    hint: str = ""


def parse(value: object) -> tuple[Node, list[Mistake]]:
    """The conditions of a table, and every mistake in it; what is mistaken is left out."""
    mistakes: list[Mistake] = []
    node = _table(value, (), mistakes, 0)
    return node, mistakes


def _table(value: object, path: Path, mistakes: list[Mistake], depth: int) -> Node:
    if not isinstance(value, Mapping) or depth > DEEPEST:
        wrong = "must be a table of conditions" if depth <= DEEPEST else f"is nested more than {DEEPEST} deep"
        mistakes.append(Mistake(path, wrong, "such as {route: coding, tokens: {over: 4000}}"))
        return All(())
    parts: list[Node] = []
    for word, given in value.items():
        where = (*path, word)
        if word in ("all", "any"):
            if not isinstance(given, (list, tuple)) or not given:
                mistakes.append(
                    Mistake(where, "must be a list of tables", f"such as {word}: [{{route: coding}}, {{stream: true}}]")
                )
                continue
            inner = tuple([_table(one, (*where, index), mistakes, depth + 1) for index, one in enumerate(given)])
            parts.append(All(inner) if word == "all" else AnyOf(inner))
        elif word == "not":
            parts.append(Not(_table(given, where, mistakes, depth + 1)))
        elif word in WORDS:
            try:
                parts.append(_READERS[word](word, given))
            except _Wrong as wrong:
                mistakes.append(Mistake(where, str(wrong), wrong.hint))
        else:
            mistakes.append(
                Mistake(where, f"{str(word)[:64]!r} is nothing that a condition can ask for", _near(str(word)))
            )
    return parts[0] if len(parts) == 1 else All(tuple(parts))


class _Wrong(ValueError):
    def __init__(self, wrong: str, hint: str = "") -> None:
        super().__init__(wrong)
        self.hint = hint


def _near(word: str) -> str:
    import difflib  # only where there is a mistake

    near = difflib.get_close_matches(word, WORDS, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(WORDS)}"


def _listed(word: str, given: object) -> list[str]:
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    if word == "route":
        values = ["none" if value is None else value for value in values]
    if word == "language":
        values = ["no" if value is False else value for value in values]  # YAML's Norway
    if not values or not all([isinstance(value, str) and value for value in values]):
        raise _Wrong("must be a name, or a list of names", f"such as {word}: {_EXAMPLES.get(word, 'clinic')}")
    return [str(value) for value in values]


_EXAMPLES = {"route": "coding", "language": "de", "structure": "code", "found": "phi", "keywords": "[invoice, refund]"}


def _names(word: str, given: object) -> Node:
    values = _listed(word, given)
    if word == "language":
        _known(values, LANGUAGES, "is no language that is told")
    return Named(word, frozenset(values))


def _flag(word: str, given: object) -> Node:
    if not isinstance(given, bool):
        raise _Wrong("must be true or false")
    return Named(word, frozenset({given}))


def _several(word: str, given: object) -> Node:
    values = _listed(word, given)
    if word == "structure":
        _known(values, STRUCTURES, "is no structure")
    if word == "keywords":
        if any([len(value) > LONGEST_KEYWORD for value in values]):
            raise _Wrong(f"holds a keyword of more than {LONGEST_KEYWORD} characters")
        values = [" ".join(value.split()).casefold() for value in values]
    return Holding(word, frozenset(values))


def _known(values: Sequence[str], known: Sequence[str], wrong: str) -> None:
    import difflib

    for value in values:
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1)
            raise _Wrong(
                f"{value[:64]!r} {wrong}", f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            )


def _number(word: str, given: object) -> Node:
    if not isinstance(given, Mapping):
        number = _amount(word, given)
        return Between(word, (number, 0), (number, 1))
    unknown = [str(name) for name in given if name not in _COMPARISONS]
    if unknown or not given:
        raise _Wrong(
            f"{unknown[0][:64]!r} is no comparison" if unknown else "compares with nothing",
            f"there are {', '.join(_COMPARISONS)}",
        )
    low: tuple[float, int] | None = None
    high: tuple[float, int] | None = None
    for name, bound in given.items():
        number = _amount(word, bound)
        if name in ("over", "at_least"):
            position = (number, 1 if name == "over" else 0)
            low = position if low is None else max(low, position)
        else:
            position = (number, 0 if name == "under" else 1)
            high = position if high is None else min(high, position)
    if word in COUNTS:  # so that over 4 and under 5 is seen to be nothing
        low = None if low is None else (low[0] + low[1], 0)
        high = None if high is None else (high[0] + high[1], 0)
    return Between(word, low, high)


def _amount(word: str, given: object) -> float:
    if word in COUNTS:
        if isinstance(given, bool) or not isinstance(given, int) or given < 0:
            raise _Wrong("must be compared with a whole number", f"such as {word}: {{over: 4000}}")
        return given
    if isinstance(given, str) and (share := _SHARE.fullmatch(given.strip())):
        given = float(share[1]) if word == PERCENTILE else float(share[1]) / 100
    most = 100 if word == PERCENTILE else 1
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= most:
        what = "a percentile: 0 to 100" if word == PERCENTILE else "a share: 0 to 1, or 0% to 100%"
        raise _Wrong(
            f"must be compared with {what}", f"such as {word}: {{over: {70 if word == PERCENTILE else '80%'}}}"
        )
    return float(given)


def _expression(word: str, given: object) -> Node:
    if not isinstance(given, str):
        raise _Wrong("must be an expression in CEL", 'such as tokens > 4000 && "code" in structure')
    try:
        cel = Cel(given, _SAMPLE)
    except ExpressionInvalid as invalid:
        raise _Wrong(str(invalid), invalid.hint) from None
    for name in sorted(cel.variables & UNKNOWABLE):
        if cel.holds({**_SAMPLE, name: None}) is None:
            raise _Wrong(f"fails where {name} is not known", f"begin with {name} != null &&")
    return Expr(given, cel)


_READERS: dict[str, Callable[[str, object], Node]] = {
    **dict.fromkeys(NAMES, _names),
    **dict.fromkeys((*COUNTS, *SHARES, PERCENTILE), _number),
    **dict.fromkeys(FLAGS, _flag),
    **dict.fromkeys(SEVERAL, _several),
    "expr": _expression,
}


def reads(node: Node) -> frozenset[str]:
    """The signals that a condition may ask for."""
    if isinstance(node, (All, AnyOf)):
        return frozenset().union(*[reads(part) for part in node.parts])
    if isinstance(node, Not):
        return reads(node.part)
    if isinstance(node, Expr):
        return node.cel.variables
    return frozenset({node.signal})


def mentioned(node: Node, signal: str) -> frozenset[str]:
    """The values of a signal that a condition names: routes, types that are found."""
    if isinstance(node, (All, AnyOf)):
        return frozenset().union(*[mentioned(part, signal) for part in node.parts])
    if isinstance(node, Not):
        return mentioned(node.part, signal)
    if isinstance(node, (Named, Holding)) and node.signal == signal:
        return frozenset([str(value) for value in node.values])
    return frozenset()


def spoken(node: Node) -> str:
    """A condition in words."""
    if isinstance(node, (All, AnyOf)):
        if not node.parts:
            return "every request"
        return (" and " if isinstance(node, All) else " or ").join([_inner(part) for part in node.parts])
    if isinstance(node, Not):
        return f"not {_inner(node.part)}"
    if isinstance(node, Expr):
        return f"where {node.source}"
    if isinstance(node, Between):
        return f"{node.signal} {_span(node)}"
    values = sorted([str(value).lower() if isinstance(value, bool) else value for value in node.values])
    return f"{node.signal} {' or '.join(values)}"


def _inner(node: Node) -> str:
    return f"({spoken(node)})" if isinstance(node, (All, AnyOf)) and len(node.parts) > 1 else spoken(node)


def _span(node: Between) -> str:
    low, high = node.low, node.high
    if low is not None and high is not None and low[0] == high[0]:
        return f"{low[0]:g}"
    parts = []
    if low is not None:
        parts.append(f"{'over' if low[1] else 'at least'} {low[0]:g}")
    if high is not None:
        parts.append(f"{'at most' if high[1] else 'under'} {high[0]:g}")
    return " and ".join(parts)


def compiled(node: Node) -> Holds:
    """A condition as a function: True, False, or None where it cannot be told.  It raises what a signal raises."""
    if isinstance(node, (All, AnyOf)):
        parts = [compiled(part) for part in sorted(node.parts, key=cost)]
        return _all(parts) if isinstance(node, All) else _any(parts)
    if isinstance(node, Not):
        return _not(compiled(node.part))
    if isinstance(node, Named):
        return _named(node.signal, node.values)
    if isinstance(node, Between):
        return _between(node)
    if isinstance(node, Expr):
        return _evaluated(node.cel)
    return _holding(node)


def cost(node: Node) -> int:
    """What is dear is asked last, so that it need not be: facts, then what is read from the text, then what is learnt."""
    return max([_COSTS.get(signal, 0) for signal in reads(node)], default=0)


_COSTS = {
    "structure": 1, "keywords": 1, "language": 2, "complexity": 3, "route": 4, "probability": 4, "margin": 4,
}  # fmt: skip


def _all(parts: Sequence[Holds]) -> Holds:
    if len(parts) == 1:
        return parts[0]

    def holds(signals: Signals) -> bool | None:
        result: bool | None = True
        for part in parts:
            found = part(signals)
            if found is False:
                return False
            if found is None:
                result = None
        return result

    return holds


def _any(parts: Sequence[Holds]) -> Holds:
    def holds(signals: Signals) -> bool | None:
        result: bool | None = False
        for part in parts:
            found = part(signals)
            if found:
                return True
            if found is None:
                result = None
        return result

    return holds


def _not(part: Holds) -> Holds:
    def holds(signals: Signals) -> bool | None:
        found = part(signals)
        return None if found is None else not found

    return holds


def _named(signal: str, values: frozenset[str | bool]) -> Holds:
    def holds(signals: Signals) -> bool | None:
        value = signals.read(signal)
        return None if value is None else value in values

    return holds


def _between(node: Between) -> Holds:
    signal, low, high = node.signal, node.low, node.high
    least, open_low = low if low is not None else (float("-inf"), 0)
    most, open_high = high if high is not None else (float("inf"), 1)

    def holds(signals: Signals) -> bool | None:
        value = signals.read(signal)
        if value is None:
            return None
        above = value > least if open_low else value >= least
        return bool(above and (value <= most if open_high else value < most))

    return holds


def _holding(node: Holding) -> Holds:
    values = node.values
    if node.signal == "structure":
        return _any([_is(f"structure.{name}") for name in STRUCTURES if name in values])
    if node.signal == "found":
        return lambda signals: not values.isdisjoint(signals.read("found"))
    pattern = keywords(values)
    label = f"keywords({', '.join(sorted(values))[:48]})"
    return lambda signals: signals.says(label, pattern)


def _is(signal: str) -> Holds:
    return lambda signals: bool(signals.read(signal))


def keywords(words: frozenset[str]) -> Any:
    """A pattern that finds any of these as whole words, in any case and with any blanks between."""
    listed = "|".join([r"\s+".join([re2.escape(part) for part in word.split()]) for word in sorted(words)])
    return re2.compile(rf"(?i)(?:^|[^\pL\pN_])(?:{listed})(?:[^\pL\pN_]|$)")


def _evaluated(cel: Cel) -> Holds:
    names = sorted(cel.variables)

    def holds(signals: Signals) -> bool | None:
        values = {name: signals.read(name) for name in names}
        for name in ("found", "structure"):
            if name in values:
                values[name] = sorted(values[name])
        result = cel.holds(values)
        if result is None:
            raise SignalFailed("expr", "failed: it is neither true nor false")
        return result

    return holds
