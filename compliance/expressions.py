"""Conditions in CEL, the Common Expression Language (https://cel.dev), for what a table of conditions cannot say.

An expression is compiled when the configuration is read, and tried once on a made-up request.  It ends: CEL has no
loops but over what is given to it, its regular expressions are linear in the text, and how often it goes through a
list is bounded here.  What an expression that fails means is for the rules to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NAMES = ("application", "found", "health", "key", "model", "surface", "target", "tenant")
"""What an expression may speak of."""
LONGEST = 1024
MAX_LOOPS = 2
"""Macros that go through a list; each nested one multiplies the work by the kinds of findings."""

_LOOP = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter|reduce)\s*\(\s*([A-Za-z_]\w*)?")
_SAMPLE: dict[str, object] = {
    "found": ["ssn"],
    "tenant": "a",
    "application": "a",
    "key": "a",
    "surface": "openai.chat",
    "model": "a",
    "health": True,
    "target": {"boundary": "cloud", "provider": "openai", "region": "us", "baa": True, "zero_retention": True},
}
_TARGET_FIELDS = ("baa", "boundary", "provider", "region", "zero_retention")
_FAILURES = (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, RecursionError, MemoryError)
"""What an expression raises when it is evaluated: no such element or field, overflow, no such operation."""


class ExpressionInvalid(ValueError):
    """The message says what is wrong; `hint` what would be right."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Cel:
    """One compiled expression.  `names` is what it may speak of, with a made-up value of each."""

    __slots__ = ("_program", "source", "variables")

    def __init__(self, source: str, names: Mapping[str, object] | None = None) -> None:
        sample = _SAMPLE if names is None else names
        if len(source) > LONGEST:
            raise ExpressionInvalid(f"is longer than {LONGEST} characters")
        loops = _LOOP.findall(source)
        if len(loops) > MAX_LOOPS:
            raise ExpressionInvalid(f"goes through lists more than {MAX_LOOPS} times")
        import cel  # 15 MB and a seventh of a second: for those who have such a rule

        try:
            self._program = cel.compile(source)
        except (ValueError, RecursionError):
            raise ExpressionInvalid(
                "is no expression in CEL", 'such as "ssn" in found && target.boundary == "cloud"'
            ) from None
        unknown = sorted(set(self._program.variables()) - {*sample, *loops})
        if unknown:
            known = ", ".join(sorted(sample))
            raise ExpressionInvalid(f"speaks of {unknown[0]!r}, which is nothing here", f"there are {known}")
        self.source = source
        self.variables = frozenset(self._program.variables()) & frozenset(sample)
        self._try(sample)

    def _try(self, sample: Mapping[str, object]) -> None:
        """Mistakes that a made-up request shows: a function or field that does not exist, no yes or no as the value."""
        try:
            value = self._program.execute(dict(sample))
        except KeyError:
            raise ExpressionInvalid(
                "asks for a field that is not there", f"target has {', '.join(sorted(_TARGET_FIELDS))}"
            ) from None
        except (TypeError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not str(error).startswith("Undefined"):
                return  # it depends on the values
            raise ExpressionInvalid("does something with a value that it has not got", "") from None
        except _FAILURES:
            return
        if not isinstance(value, bool):
            raise ExpressionInvalid("is neither true nor false", 'compare it, as in tenant == "clinic"')

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cel) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def holds(self, names: Mapping[str, object]) -> bool | None:
        """Does the condition hold?  None: it failed, or its value is neither true nor false."""
        try:
            value = self._program.execute(names if type(names) is dict else dict(names))
        except _FAILURES:
            return None
        return value if isinstance(value, bool) else None
