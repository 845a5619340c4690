"""How far an answer can be trusted, from the answer itself: named features of what the weak model said.

They stand beside the features of the prompt in the same ridge (`policies.gain`): what it predicts then is not whether
the strong model would do better on such a question, but whether it would do better than *this* answer.  Nothing asks
another model, and nothing needs the answer to be right or wrong in any language but that of arithmetic.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from policies.embedding import Floats

VERSION = "answer features 1"
READ = 4000
"""Characters of an answer that are read: half from its beginning, half from its end."""
MOST_EQUATIONS = 64
FINISHED = ("stop", "end_turn", "stop_sequence")
CUT_SHORT = ("length", "max_tokens")
FILTERED = ("content_filter", "refusal")
"""Finish reasons in OpenAI's words and in Anthropic's."""
_OPENING = 200
"""Characters in which a refusal is made; later ones are about something else."""

NAMES = (
    "finished",
    "cut short",
    "filtered",
    "answer length",
    "answer lines",
    "answer against question",
    "empty answer",
    "refusal",
    "hedging",
    "final answer",
    "final answer is a number",
    "size of the final number",
    "final number with decimals",
    "final number of the question",
    "negative final number",
    "equations",
    "wrong equations",
    "share of wrong equations",
    "loose equations",
    "steps in prose",
    "numbers of the question unused",
    "numbers from nowhere",
    "last result is the answer",
    "repeats itself",
    "unfinished sentence",
    "schema broken",
    "schema held",
    "mean log-probability",
    "log-probability known",
    "unknowns",
    "rounding",
    "corrections",
)
"""What each feature of an answer is called, in the order of `doubts`."""


class Answer(Struct, frozen=True):
    """An answer that is held back until it is judged.

    `finish` is the finish reason in OpenAI's or Anthropic's words (stop, length, content_filter; end_turn, ...), None where it is not known;
    `schema` says whether it fits the schema that was asked for, None where none was; `logprob` is the mean of the
    tokens' natural log-probabilities, None where the engine gave none.
    """

    text: str
    finish: str | None = None
    schema: bool | None = None
    logprob: float | None = None


_REFUSAL = re.compile(
    r"(?i)\bI(?:'m| am) (?:sorry|unable|not able)|\bI (?:cannot|can't|can not|won't)\b|\bas an AI\b|\bunable to (?:help|assist|answer)"
    r"|\bnot enough information|\bcannot be determined|\bimpossible to (?:say|tell|determine)|\bI don't know\b"
)
_HEDGE = re.compile(
    r"(?i)\b(?:perhaps|maybe|probably|possibly|might|not sure|unclear|it depends|I think|assum\w+|approximately)\b|≈"
)
_FINAL = re.compile(r"(?i)####|\\boxed|\b(?:final )?answer(?: is|:)|\btherefore\b|^\(?[A-J]\)?[.):]?\s*$")
_MARKED = re.compile(r"####\s*(.*)|\\boxed\{([^{}]{0,80})\}|(?i:\banswer(?: is|:))\s*(.{0,80})")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_EQUATION = re.compile(r"([\d(][\d\s.,()+*/×÷x%$−-]{2,120})=\s{0,3}\$?\s?(-?\d[\d,]*(?:\.\d+)?)")
_MARKUP = re.compile(r"<<([^<>=]{1,120})=([^<>]{1,40})>>")
_UNKNOWN = re.compile(r"\b[a-z]\s*=|=\s*[a-z]\b|(?i:\blet\b|\bequation\b)|\d[a-z]\b")
_ROUND = re.compile(r"(?i)\bround\w*|\bwhole number|\bapproximately|\babout\b|≈")
_CORRECTION = re.compile(r"(?i)\b(?:wait|actually|mistake|however|but since|correction|let's (?:re|check))\b")
_APART = re.compile(r"[\d.]\s+[\d.]")
_BREAK = re.compile(r"\n|[.,]\s")
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[-+*/()]")
_RUN = re.compile(r"[\d\s.,()+*/×÷x%$−-]*")
_RESULT = re.compile(r"\s{0,3}\$?\s?(-?\d[\d,]*(?:\.\d+)?)")
_GOES_ON = re.compile(r"\s*[-+*/×÷x(%^\\]")
_NO_SUM = re.compile(r"%|\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{2,4}|(?<![\d\s)])\s*x|x(?!\s*[\d(])")
"""What reads like a sum and is none: percentages, days, an unknown x."""


def doubts(prompt: str, answer: Answer) -> Floats:
    """The features of an answer to a prompt, in the order of `NAMES`."""
    import numpy as np  # who asks for plain faults alone does without it

    text = answer.text if len(answer.text) <= READ else answer.text[: READ // 2] + answer.text[-READ // 2 :]
    text = text.replace("\\*", "*").replace("\\$", "$")
    stripped = text.rstrip()
    asked = _values(prompt[:READ])
    final = _final(stripped)
    value = final[1]
    equations, wrong, loose = _equations(text)
    said = _values(_MARKUP.sub("", text))
    results = {result for _, result in equations}
    lines = [line for line in stripped.splitlines() if line.strip()]
    log = math.log1p
    known = answer.logprob is not None and math.isfinite(answer.logprob)
    return np.array(
        [
            answer.finish in FINISHED,
            answer.finish in CUT_SHORT,
            answer.finish in FILTERED,
            log(len(answer.text)),
            log(len(lines)),
            log(len(answer.text)) - log(len(prompt)),
            not stripped,
            min(3, len(_REFUSAL.findall(text))),
            log(len(_HEDGE.findall(text))),
            final[0],
            value is not None,
            log(abs(value)) if value is not None else 0.0,
            value is not None and value != int(value),
            value is not None and value in asked,
            value is not None and value < 0,
            log(len(equations)),
            log(wrong),
            wrong / max(1, len(equations)),
            log(loose),
            log(max(0, len(lines) - len(equations))),
            len(asked - said) / max(1, len(asked)),
            log(len(said - asked - results)),
            value is not None and bool(equations) and value == equations[-1][1],
            log(len(lines) - len(set(lines))),
            bool(stripped) and stripped[-1] not in ".!?\"')]}`>0123456789%*",
            answer.schema is False,
            answer.schema is True,
            max(-10.0, min(0.0, answer.logprob)) if known and answer.logprob is not None else 0.0,
            known,
            log(len(_UNKNOWN.findall(text))),
            log(len(_ROUND.findall(text))),
            log(len(_CORRECTION.findall(text))),
        ],
        np.float32,
    )


def plain_fault(answer: Answer) -> str | None:
    """What is wrong with an answer whatever a scorer says, in words; None: nothing that can be seen.

    It needs no calibration: an answer that is empty, cut short, filtered, refused or against its schema is no answer.
    """
    if not answer.text.strip():
        return "it is empty"
    if answer.finish in CUT_SHORT:
        return "it is cut short"
    if answer.finish in FILTERED:
        return "it was filtered"
    if answer.schema is False:
        return "it breaks its schema"
    if _REFUSAL.search(answer.text[:_OPENING]) is not None:
        return "it refuses"
    return None


def wrong_sum(text: str) -> bool:
    """Does an answer state a sum that is plainly wrong, such as 7 * 8 = 54?

    Stricter than the features, which a scorer weighs: a side that goes on, a rounded result or an unknown says nothing.
    Of a weak model's answers to GSM8K (RouteLLM's outcomes, 694) it holds of 6.5 %, of which 7 % are right after all, where
    the strong model has 82 %; of the others 66 % are.  It takes half a millisecond at the most.
    """
    if "=" not in text:
        return False
    text = text if len(text) <= READ else text[: READ // 2] + text[-READ // 2 :]
    text = _MARKUP.sub("", text.replace("\\*", "*").replace("\\$", "$"))
    at = -1
    for _ in range(MOST_EQUATIONS):
        at = text.find("=", at + 1)
        if at < 0:
            return False
        result = _RESULT.match(text, at + 1)
        if result is not None and _GOES_ON.match(text, result.end()) is None and _is_wrong(text, at, result[1]):
            return True
    return False


def _is_wrong(text: str, at: int, result: str) -> bool:
    """Is what stands before the `=` at this place a sum, and not this result?"""
    run = _RUN.match(text[max(0, at - 120) : at][::-1])  # backwards, so that it takes no longer than it is
    assert run is not None
    sum_of = _BREAK.split(run[0][::-1])[-1].lstrip(" \t.,)+*/×÷x%$−-")
    start = at - len(sum_of)
    stated = _number(result)
    if stated is None or not sum_of or _number(sum_of) is not None or _NO_SUM.search(sum_of):
        return False
    if text[max(0, start - 1) : start].isalpha():  # f(2) is no sum
        return False
    worth = evaluate(sum_of)
    if worth is None:
        return False
    rounded = 0.51 * 10.0 ** -len(result.partition(".")[2])
    return abs(worth - stated) > max(0.01 * max(1.0, abs(worth)), rounded)


def _values(text: str) -> set[float]:
    return {value for found in _NUMBER.findall(text) if (value := _number(found)) is not None}


def _number(text: str) -> float | None:
    """A number as it is written, 1,200 too; None for what is none."""
    try:
        value = float(text.strip().strip("$").replace(",", "")[:32])
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _final(text: str) -> tuple[bool, float | None]:
    """(is a final answer marked, its number): the last marked one, else the last number of the text."""
    marked = _MARKED.findall(text)
    if marked:
        place = next((group for group in marked[-1] if group), "")
        found = _NUMBER.search(place)
        return True, _number(found[0]) if found else None
    found_all = _NUMBER.findall(text[-200:])
    return _FINAL.search(text) is not None, _number(found_all[-1]) if found_all else None


def _equations(text: str) -> tuple[list[tuple[str, float]], int, int]:
    """(equations and their stated results, how many are wrong, how many are only nearly right)."""
    found: list[tuple[str, float]] = []
    wrong = loose = 0
    for match in [*_MARKUP.finditer(text), *_EQUATION.finditer(_MARKUP.sub("", text))][:MOST_EQUATIONS]:
        stated, sum_of = _number(match[2]), _BREAK.split(match[1])[-1]
        if stated is None or not sum_of.strip() or _number(sum_of) is not None:  # 5 = 5 says nothing
            continue
        found.append((sum_of, stated))
        worth = evaluate(sum_of)
        if worth is None:
            continue
        if abs(worth - stated) > 0.01 * max(1.0, abs(worth)):
            wrong += 1
        elif abs(worth - stated) > 1e-6 * max(1.0, abs(worth)):
            loose += 1
    return found, wrong, loose


def evaluate(expression: str) -> float | None:
    """The worth of an expression of numbers, + - * / and brackets; None for anything else, and for too long a one."""
    text = expression.replace("×", "*").replace("x", "*").replace("÷", "/").replace("−", "-")
    text = text.replace("$", "").replace(",", "").replace("%", "/100")
    if _APART.search(text) is not None:
        return None
    text = "".join(text.split())
    tokens = _TOKEN.findall(text)
    if not tokens or len(text) > 200 or sum(map(len, tokens)) != len(text):
        return None
    try:
        worth, rest = _sum(tokens, 0, 0)
    except (IndexError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return worth if rest == len(tokens) and math.isfinite(worth) else None


def _sum(tokens: list[str], at: int, depth: int) -> tuple[float, int]:
    worth, at = _product(tokens, at, depth)
    while at < len(tokens) and tokens[at] in "+-":
        other, following = _product(tokens, at + 1, depth)
        worth = worth + other if tokens[at] == "+" else worth - other
        at = following
    return worth, at


def _product(tokens: list[str], at: int, depth: int) -> tuple[float, int]:
    worth, at = _factor(tokens, at, depth)
    while at < len(tokens) and tokens[at] in "*/":
        other, following = _factor(tokens, at + 1, depth)
        worth = worth * other if tokens[at] == "*" else worth / other
        at = following
    return worth, at


def _factor(tokens: list[str], at: int, depth: int) -> tuple[float, int]:
    token = tokens[at]
    if token == "-":
        worth, at = _factor(tokens, at + 1, depth + 1)
        return -worth, at
    if token == "(":
        if depth > 20:
            raise ValueError("nested too deep")
        worth, at = _sum(tokens, at + 1, depth + 1)
        if tokens[at] != ")":
            raise ValueError("a bracket is not closed")
        return worth, at + 1
    return float(token), at + 1
