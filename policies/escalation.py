"""May a small model's answer be trusted, or should a larger one be asked?  And how often may it be?  Pure.

What can be seen of an answer without any calibration (it is empty, cut short, refused, against its schema) makes it
doubtful wherever that is seen.  A scorer that was trained on labels says more: how likely the larger model is to do
better than this very answer, as a percentile among the operator's own answers.  Without one nothing is guessed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from policies.doubt import Answer, plain_fault, wrong_sum
from policies.schemas import text_fits

if TYPE_CHECKING:
    from policies.gain import Scored  # which asks for NumPy

WHOLE = 1_000_000
"""A share is counted in millionths, so that no rounding adds up."""
Scorer = Callable[[str, Answer], "Scored"]
"""(prompt, answer) -> what it makes of them."""


class Share:
    """How many answers may go up: at most so large a part of any `window` in a row, and of all since the start.

    Answers are counted when it is decided of each, one after the other, so that the bound holds at every one of them.
    """

    __slots__ = ("_latest", "_millionths", "_up", "_window")

    def __init__(self, share: float, window: int) -> None:
        self._millionths = round(share * WHOLE)
        self._window = window
        self._latest: deque[bool] = deque(maxlen=window)
        self._up = 0  # of the latest

    @property
    def left(self) -> bool:
        """May the next one go up?"""
        latest = self._latest
        falls_out = len(latest) == self._window and latest[0]
        return (self._up - falls_out + 1) * WHOLE <= self._millionths * min(len(latest) + 1, self._window)

    @property
    def taken(self) -> float:
        """The part of the latest that went up."""
        return self._up / len(self._latest) if self._latest else 0.0

    def take(self) -> bool:
        """Count one more; True: it goes up."""
        may = self.left
        self._count(may)
        return may

    def stay(self) -> None:
        """Count one more that stays, whatever is left."""
        self._count(False)

    def _count(self, up: bool) -> None:
        latest = self._latest
        if len(latest) == self._window and latest[0]:
            self._up -= 1
        latest.append(up)
        self._up += up


class Call(Struct):
    """A tool that an answer calls."""

    name: str
    arguments: str


class Said(Struct):
    """One choice of an answer, as far as it is read."""

    text: str = ""
    finish: str | None = None
    refused: bool = False  # in the words that a dialect has for a refusal alone
    calls: Sequence[Call] = ()
    logprob: float | None = None  # the mean over its tokens


class Wanted(Struct, frozen=True):
    """What was asked for, as far as an answer can be held against it."""

    prompt: str  # what the user said last
    json: bool = False  # the answer must be JSON
    schema: Any = None  # and fit this; None: an object
    tools: Mapping[str, Any] | None = None  # the schemas of what may be called, by name; None: not known


class Judgement(Struct, frozen=True):
    """What was made of an answer."""

    doubtful: bool
    fault: str = ""  # what is plainly wrong with it, in words
    scored: Scored | None = None
    failed: str = ""  # why the scorer could not be asked

    @property
    def calibrated(self) -> bool:
        """Was it judged by the operator's own answers, too?"""
        return self.scored is not None and self.scored.percentile is not None


def judge(said: Sequence[Said], wanted: Wanted, scorer: Scorer | None, threshold: float) -> Judgement:
    """`threshold`: the percentile, 0 to 1, from which an answer is doubtful.  Of several choices the best one counts."""
    if not said:
        return Judgement(True, "it is empty")
    best: Judgement | None = None
    for one in said:
        found = _judge(one, wanted, scorer, threshold)
        if not found.doubtful:
            return found
        best = best or found
    assert best is not None
    return best


def _judge(said: Said, wanted: Wanted, scorer: Scorer | None, threshold: float) -> Judgement:
    fault = fault_of(said, wanted)
    if said.calls or scorer is None:  # a scorer reads prose
        return Judgement(bool(fault), fault)
    try:
        scored = scorer(wanted.prompt, answer_of(said, wanted))
    except Exception as error:  # noqa: BLE001  a scorer may be broken in any way: the answer is judged without it
        return Judgement(bool(fault), fault, None, type(error).__name__)
    above = scored.percentile is not None and scored.percentile >= threshold
    return Judgement(bool(fault) or above, fault, scored)


def fault_of(said: Said, wanted: Wanted) -> str:
    """What is plainly wrong with an answer, in words; "": nothing that can be seen."""
    if said.refused:
        return "it refuses"
    if said.calls:
        return next((fault for call in said.calls if (fault := _fault_of_call(call, wanted))), "")
    return plain_fault(answer_of(said, wanted)) or ("it reckons wrong" if wrong_sum(said.text) else "")


def answer_of(said: Said, wanted: Wanted) -> Answer:
    """As a scorer reads it."""
    held = text_fits(wanted.schema, said.text) if wanted.json else None
    return Answer(said.text, said.finish, held, said.logprob)


def _fault_of_call(call: Call, wanted: Wanted) -> str:
    if wanted.tools is not None and call.name not in wanted.tools:
        return "it calls a tool that was not offered"
    schema = wanted.tools.get(call.name) if wanted.tools is not None else None
    if text_fits(schema, call.arguments or "{}") is False:
        return "it calls a tool with arguments that do not fit"
    return ""
