"""What decisions may ask about a request: each signal a small pure function, computed once, and only if it is asked for.

A signal is read from the facts, from who asks, from what was found in the request (types, never values), or from the
first `SAMPLE` characters of the last thing that the user said.  None is "not known", which is neither yes nor no.
What a prompt is about (`route`) and how much a strong model would gain (`complexity`) come from functions that are
handed in; where one of them fails, so does the reading, with `SignalFailed`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import re2
from msgspec import Struct

from policies.complexity import SAMPLE, looks_like_code
from policies.languages import language
from policies.model import Facts

if TYPE_CHECKING:  # its arrays are for those who declare routes
    from policies.semantic import Placed

NOWHERE = "none"
"""The route of a text that belongs to no route."""
STRUCTURES = ("code", "maths", "json", "diff", "tools", "images")
IDENTITY = frozenset({"tenant", "team", "organisation", "application", "key", "model"})
"""Signals that records have in fields of their own."""
_UNREAD = frozenset({"opaque", "scan_failed"})

_MATHS = re2.compile(
    r"\\(?:frac|int|sum|sqrt|lim|begin\{(?:equation|align))\b|\$\$|[∫∑√∞≤≥≠∂∇]"
    r"|\b[a-z]\s?(?:\^|\*\*)\s?\d|\d\s?[*^×÷]\s?\d|\d\s?\+\s?\d+\s?[+*/=-]|\d\s[-/]\s\d|\b\d*[a-z]\s?[+-]\s?\d*[a-z0-9]{1,4}\s?=\s?-?\d"
    r"|(?i:\b(?:solve for|prove that|derivative of|integral of|equation|theorem|eigenvalues?|polynomials?)\b)"
)
_JSON = re2.compile(r'(?s)[{,]\s*"[^"]{0,64}"\s*:|^\s*\[\s*[\[{"]')
_DIFF = re2.compile(r"(?m)^diff --git |^@@ -\d+(?:,\d+)? \+\d+|^--- a/|^\+\+\+ b/|^Index: \S")
_TOOL_PARTS = frozenset({"tool_use", "tool_result", "server_tool_use"})


class SignalFailed(Exception):
    """A signal that a decision asked for could not be had.  `reason` is for records: never text of the request."""

    def __init__(self, signal: str, reason: str) -> None:
        super().__init__(f"{signal} {reason}")
        self.signal = signal
        self.reason = reason


class Pending(Exception):
    """`signal` cannot be had at once: whoever asks may wait for it, hand it in with `Signals.give`, and ask again.

    `placed`: what the first stage said, where only the second is waited for."""

    def __init__(self, signal: str, text: str, placed: Placed | None = None) -> None:
        super().__init__(signal)
        self.signal = signal
        self.text = text
        self.placed = placed


class Who(Struct, frozen=True, gc=False):
    """Who asks, as the key says."""

    tenant: str = ""
    team: str = ""
    organisation: str = ""
    application: str = ""
    key: str = ""


class Found(Struct, frozen=True):
    """What compliance found: types, in their order, and whether there is health context."""

    types: tuple[str, ...] = ()
    health: bool = False


class Signals:
    """The signals of one request."""

    __slots__ = ("_body", "_complexity", "_found", "_known", "_load", "_place", "_said", "_who", "facts", "placed")

    def __init__(
        self,
        facts: Facts,
        body: Mapping[str, Any],
        who: Who,
        found: Found,
        *,
        place: Callable[[str], Placed] | None = None,
        complexity: Callable[[str], float | None] | None = None,
        load: Callable[[], float | None] | None = None,
    ) -> None:
        """`place` says what a text is about; `complexity` gives its percentile in the traffic (None: not calibrated), and
        gets the whole text, whose length it counts; `load` is the part of the local places that is taken (None: they have
        no limit)."""
        self.facts = facts
        self.placed: Placed | None = None  # where the route was asked for
        self._body = body
        self._who = who
        self._found = found
        self._place = place
        self._complexity = complexity
        self._load = load
        self._known: dict[str, Any] = {}
        self._said: str | None = None

    @property
    def read_so_far(self) -> Mapping[str, Any]:
        """The signals that were asked for, in that order, with what they were."""
        return self._known

    @property
    def sample(self) -> str:
        """The first characters of what the user said last."""
        return self.said[:SAMPLE]

    @property
    def said(self) -> str:
        """What the user said last: whole where it is one text, else as many parts as the sample needs."""
        if self._said is None:
            self._said = last_said(self._body)
        return self._said

    def read(self, name: str) -> Any:
        """A signal's value.  Raises `SignalFailed`, or `Pending`."""
        known = self._known
        if name in known:
            return known[name]
        value = known[name] = _SOURCES[name](self)
        return value

    def says(self, name: str, pattern: Any) -> bool:
        """Does the text hold what `pattern` looks for?  Kept under `name`."""
        known = self._known
        if name not in known:
            known[name] = pattern.search(self.sample) is not None
        return bool(known[name])

    def give(self, placed: Placed) -> None:
        """What the text is about, found out elsewhere."""
        self.placed = placed

    def take_route(self, name: str) -> None:
        """The application says itself what it is about."""
        self._known.update({"route": name, "probability": 1.0, "margin": 1.0})

    def _placing(self) -> Placed:
        if self.placed is None:
            if self._place is None:
                raise SignalFailed("route", "is not known: no routes are declared")
            self.placed = _guarded("route", self._place, self.sample)
        return self.placed

    def _percentile(self) -> float | None:
        return None if self._complexity is None else _guarded("complexity", self._complexity, self.said)


def _guarded(name: str, source: Callable[[str], Any], text: str) -> Any:
    try:
        return source(text)
    except (SignalFailed, Pending):
        raise
    except Exception as error:  # noqa: BLE001  a classifier may be broken in any way: the request goes on without it
        raise SignalFailed(name, f"failed ({type(error).__name__})") from None


def last_said(body: Mapping[str, Any]) -> str:
    """The text of the last message of the user's, in the dialects that there are; "" where there is none."""
    messages = body.get("messages")
    if isinstance(messages, list):
        for message in reversed(messages):
            if isinstance(message, dict) and message.get("role") == "user" and (text := _text(message.get("content"))):
                return text
        return ""
    return _text(body.get("input"))


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts: list[str] = []
    size = 0
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str):
            parts.append(text)
            size += len(text)
            if size >= SAMPLE:
                break
    return "\n".join(parts)


def has_code(text: str) -> bool:
    return looks_like_code(text)


def has_maths(text: str) -> bool:
    """Formulas, and the words that come with them; not any number."""
    return _MATHS.search(text) is not None


def has_json(text: str) -> bool:
    return _JSON.search(text) is not None


def has_diff(text: str) -> bool:
    """A unified diff, as `git diff` writes it."""
    return _DIFF.search(text) is not None


def uses_tools(facts: Facts, body: Mapping[str, Any]) -> bool:
    """Tools are offered, or the conversation already holds a call of one."""
    if facts.has_tools:
        return True
    messages = body.get("messages")
    return isinstance(messages, list) and any([_is_tool_turn(message) for message in messages])


def _is_tool_turn(message: object) -> bool:
    if not isinstance(message, dict):
        return False
    if message.get("role") == "tool" or message.get("tool_calls"):
        return True
    content = message.get("content")
    return isinstance(content, list) and any(
        [isinstance(part, dict) and part.get("type") in _TOOL_PARTS for part in content]
    )


def has_images(facts: Facts) -> bool:
    return "vision" in facts.needs


def kinds_found(found: Found) -> frozenset[str]:
    """Types that were found, and the words for many: pii, and phi under health context."""
    if not found.types:
        return frozenset()
    kinds = set(found.types)
    if kinds - _UNREAD:
        kinds.add("pii")
        if found.health:
            kinds.add("phi")
    return frozenset(kinds)


def _structure(name: str) -> Callable[[Signals], bool]:
    by_text = {"code": has_code, "maths": has_maths, "json": has_json, "diff": has_diff}
    if name == "tools":
        return lambda signals: uses_tools(signals.facts, signals._body)
    if name == "images":
        return lambda signals: has_images(signals.facts)
    look = by_text[name]
    return lambda signals: look(signals.sample)


_SOURCES: dict[str, Callable[[Signals], Any]] = {
    "route": lambda signals: signals._placing().route or NOWHERE,
    "probability": lambda signals: signals._placing().probability,
    "margin": lambda signals: signals._placing().margin,
    "complexity": Signals._percentile,
    "language": lambda signals: language(signals.sample),
    "tokens": lambda signals: signals.facts.prompt_tokens,
    "messages": lambda signals: signals.facts.messages,
    "max_output": lambda signals: signals.facts.max_output,
    "stream": lambda signals: signals.facts.stream,
    "model": lambda signals: signals.facts.model,
    "found": lambda signals: kinds_found(signals._found),
    "health": lambda signals: signals._found.health,
    "tenant": lambda signals: signals._who.tenant,
    "team": lambda signals: signals._who.team,
    "organisation": lambda signals: signals._who.organisation,
    "application": lambda signals: signals._who.application,
    "key": lambda signals: signals._who.key,
    "load": lambda signals: None if signals._load is None else signals._load(),
    **{f"structure.{name}": _structure(name) for name in STRUCTURES},
    "structure": lambda signals: tuple([name for name in STRUCTURES if signals.read(f"structure.{name}")]),
}


def told(read: Mapping[str, Any], *, identity: bool = False) -> tuple[str, ...]:
    """Signals as records have them: `tokens=812`.  Who asks stands elsewhere, and is left out unless asked for."""
    return tuple([f"{name}={_word(value)}" for name, value in read.items() if identity or name not in IDENTITY])


def _word(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (frozenset, tuple)):
        return ",".join(sorted(value)) or "nothing"
    return str(value)


def names_of(findings: Sequence[Any]) -> tuple[str, ...]:
    """The types of findings, each once."""
    return tuple(dict.fromkeys([finding.type for finding in findings]))
