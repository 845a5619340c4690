"""Every string of a parsed JSON value: what a scanner must see of a request or an answer.

Keys are scanned like values, long numbers like strings (an SSN needs no quotes), shorter ones where a key says that
they may identify somebody; the pieces of one number under such a key are read as one, too.  JSON inside a string is
looked into where its escapes could hide something, or for such pieces.  Images, audio, files and token arrays cannot be
scanned: they are reported as opaque, never as clean.

`collect` is the fast walk that every request takes; `located` walks again, with places, when something was
found.  Both give the same strings in the same order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import msgspec
import re2

from compliance.model import TextField

MAX_DEPTH = 64
"""Nesting that is walked, JSON inside strings included."""
NUMBER_DIGITS = 9
"""Digits of the shortest number that is an identifier.  One that is shorter by leading zeros gets them back."""

_LEAST_NUMBER: int = 10 ** (NUMBER_DIGITS - 3)
_LEAST_LABELLED = 1000
_ROUNDED: float = 1e12
"""From here on a number with a fraction may have become the next whole one when it was parsed: cards are as long."""
_MOST_GROUPS = 19
_CARD_DIGITS = (13, 19)
_SHORT = 255
"""Characters up to which a string is scanned as text, whatever it looks like."""

_OPAQUE_TYPES = frozenset(
    {
        "image_url",
        "input_audio",
        "file",
        "image",
        "document",
        "input_image",
        "input_file",
        "container_upload",
        "audio",
        "video_url",
    }
)
_JSON = ("{", "[")
_BASE64_KEYS = ("data", "file_data")
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\r\n-]*")
_TEXT_TYPE = re.compile(r"data:(?:text/|application/(?:json|xml|yaml|gzip|x-gzip|zlib|x-ndjson)\b)")
"""Media types whose base64 may be text, which detectors decode."""
_EMBEDDED_BASE64 = re.compile(r";base64,[A-Za-z0-9+/_=-]{64}")

# Field names of the dialects themselves; any other key was chosen by a caller and is stored as `*`.
KNOWN_KEYS = frozenset(
    """
    arguments assistant audio budget_tokens cache_control call_id citations content custom data description
    detail developer dimensions document effort encoding_format file file_data file_id filename format
    function functions id image image_url include_usage input input_audio input_schema is_error json_schema
    logit_bias logprobs max_completion_tokens max_tokens media_type messages metadata modalities model n name
    output_config parallel_tool_calls parameters parts prediction reasoning reasoning_content reasoning_effort
    refusal response_format role safety_identifier schema seed service_tier signature source stop
    stop_sequences store stream stream_options strict system temperature text thinking title tool_call_id
    tool_calls tool_choice tool_use_id tools top_k top_logprobs top_p type url user user_id
    """.split()  # noqa: SIM905  a list of words reads best as words
)
CALLERS = frozenset({"metadata", "parameters", "input_schema", "schema", "logit_bias", "arguments"})
"""Below these every key is the caller's own."""
_LANES = {
    "arguments": "tool_arguments",
    "input": "tool_arguments",
    "metadata": "metadata",
    "user": "metadata",
    "safety_identifier": "metadata",
    "thinking": "reasoning",
    "reasoning_content": "reasoning",
}


# A key with one of these may be a label.  Whether it is one is for the shapes of the detectors to say: here they only
# decide which short numbers are shown to them, and under which a row of them may be one number in pieces.
_VOUCHES = (
    r"(?i:s\.?s\.?n|social.?sec|itin|taxp|mrn|m\.r\.n|medical.?rec|iban|routing|passport|npi|medicare|medicaid|nhs|pesel"
    r"|bsn|tfn|aadhaar|dni|nif|imei|benefici|(?:record|chart|member|policy|account|acct|card|licen[cs]e|insurance"
    r"|subscriber|patient)s?[ _.\-]?(?:num|no|nr|id))"
)
_IDENTIFIES = re.compile(_VOUCHES)
_MAY_LABEL = re.compile(
    _VOUCHES + r"|(?i:social|medical|record|chart|member|subscriber|polic|account|acct|card|licen|insurance"
    r"|enrol|patient|person|client|customer|claim|case|plan|group|encounter|visit|accession|specimen|serial"
    r"|device|certif|regist|vehicle|chassis|plate|phone|tel|mobile|cell|fax|zip|postal|postcode|plz|birth|dob|date|secret"
    r"|pass|pin|number|value|last|code)|(?:^|[^A-Za-z])(?i:ids?|no|nr|num|age|rx|fin|mr|dl|sn|sin|vin|udi|dea)s?(?![a-z])"
    r"|[a-z](?:I[dD]|N[oOrR]|Num|Age|Vin|VIN|Sin|SIN)s?(?![a-z])"
)
_ZIP = re.compile(r"(?i)zip|postal|postcode|plz")
_LAST = re.compile(r"(?i)last")
_AGE = re.compile(r"(?i)(?:^|_)age(?![a-z])|[a-z]Age(?![a-z])")
_LEAST_AGE = 90
_PIECE = re.compile(r"[0-9][0-9 .\-/]{0,18}")
_MOST_PIECES = 34
_PIECES_DIGITS = (5, 34)
_SSN_GROUPS = (3, 2, 4)
_LABELS_MANY = re2.compile(_VOUCHES + r'[^"\\:]{0,64}"\s*:\s*(?:[\[{]|0\.)')
"""A key of JSON that is a label, and as its value an array, an object or a fraction."""


class TooDeep(ValueError):
    """Nested deeper than `MAX_DEPTH`: it is not scanned, so it must not be called clean."""


class Fields:
    """The strings of one value, in document order, and how many parts of it are opaque."""

    __slots__ = ("opaque", "strings")

    def __init__(self) -> None:
        self.strings: list[str] = []
        self.opaque = 0


def collect(value: Any) -> Fields:
    """All strings of `value`; raises `TooDeep`."""
    fields = Fields()
    _collect(value, fields, fields.strings.append, "", 0, "")
    return fields


def _collect(value: Any, fields: Fields, add: Callable[[str], None], key: str, depth: int, label: str) -> None:
    """`label`: the key that may label numbers here, of those around them the nearest."""
    kind = type(value)
    if kind is str:
        if (len(value) > _SHORT and ";base64," in value) or key in _BASE64_KEYS:
            opaque, text = _base64(value, key)
            fields.opaque += opaque
            if not text:
                return
        add(value)
        if "\\" in value:
            inner = _decoded(value)
            if inner is not None:
                _collect(inner, fields, add, "", depth + 1, label)
        elif value[:1] in _JSON:
            for joined in _pieces_in(value):
                add(joined)
    elif kind is dict:
        if depth >= MAX_DEPTH:
            raise TooDeep
        if "type" in value and _is_opaque(value):
            fields.opaque += 1
        for name, item in value.items():
            add(name)
            if type(item) is str:
                if (
                    "\\" not in item
                    and item[:1] not in _JSON
                    and name not in _BASE64_KEYS
                    and (len(item) <= _SHORT or ";base64," not in item)
                ):
                    add(item)  # the usual case: it is neither opaque nor JSON
                else:
                    _collect(item, fields, add, name, depth + 1, "")
                continue
            below = name if name not in KNOWN_KEYS and may_label(name) else label
            if below is name and (pieces := joined_pieces(name, item)) is not None:
                add(pieces)
            _collect(item, fields, add, name, depth + 1, below)
    elif kind is list:
        if depth >= MAX_DEPTH:
            raise TooDeep
        if key == "input" and value and is_tokens(value):
            fields.opaque += 1
        elif value and type(value[0]) is int and (digits := digits_of(value)) is not None:
            add(digits)
        for item in value:
            _collect(item, fields, add, key, depth + 1, label)
    elif (kind is int or kind is float) and (label or value >= _LEAST_NUMBER or value <= -_LEAST_NUMBER):
        for number in number_texts(value, label):
            add(number)


def located(value: Any) -> Iterator[TextField]:
    """The strings of `value` with their places, in the order of `collect`; opaque parts stand between them.

    `value` is one that `collect` took: nothing is refused here.
    """
    return _located(value, "", "", "text", False, "")


def _located(value: Any, path: str, key: str, lane: str, callers: bool, label: str) -> Iterator[TextField]:
    kind = type(value)
    if kind is str:
        yield from _located_string(value, path, key, lane, label)
    elif kind is dict:
        if "type" in value and _is_opaque(value):
            yield TextField(path, "opaque", "")
        lane = _lane_of(value, lane)
        for name, item in value.items():
            shown = name if name in KNOWN_KEYS and not callers else "*"
            below = f"{path}.{shown}" if path else shown
            inside = lane if callers or (name == "input" and path == "") else _LANES.get(name, lane)
            yield TextField(below, inside, name, key=True)
            own = callers or name in CALLERS or (name == "input" and path != "")
            if type(item) is str:
                yield from _located_string(item, below, name, inside, "")
                continue
            labelled = name if name not in KNOWN_KEYS and may_label(name) else label
            if labelled is name and (joined := joined_pieces(name, item)) is not None:
                yield TextField(below, inside, joined, exact=False, number=True)
            yield from _located(item, below, name, inside, own, labelled)
    elif kind is list:
        if key == "input" and value and is_tokens(value):
            yield TextField(path, "opaque", "")
        elif value and type(value[0]) is int and (digits := digits_of(value)) is not None:
            yield TextField(path, lane, digits, exact=False, number=True)
        for index, item in enumerate(value):
            yield from _located(item, f"{path}[{index}]", key, lane, callers, label)
    elif (kind is int or kind is float) and (label or value >= _LEAST_NUMBER or value <= -_LEAST_NUMBER):
        for text in number_texts(value, label):
            yield TextField(path, lane, text, exact=False, number=True)


def _located_string(value: str, path: str, key: str, lane: str, label: str) -> Iterator[TextField]:
    if (len(value) > _SHORT and ";base64," in value) or key in _BASE64_KEYS:
        opaque, text = _base64(value, key)
        if opaque:
            yield TextField(path, "opaque", "")
        if not text:
            return
    yield TextField(path, lane, value)
    if "\\" in value:
        inner = _decoded(value)
        if inner is not None:
            for field in _located(inner, path, "", lane, True, label):
                yield TextField(field.path, field.lane, field.text, exact=False, key=field.key, number=field.number)
    elif value[:1] in _JSON:
        for joined in _pieces_in(value):
            yield TextField(path, lane, joined, exact=False, number=True)


def _lane_of(value: dict[str, Any], lane: str) -> str:
    """A tool's result is one by its message's role or its block's type."""
    if value.get("role") == "tool" or value.get("type") == "tool_result":
        return "tool_result"
    return lane


def _decoded(text: str) -> Any:
    """The JSON value that `text` is, or None."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            pass
        except RecursionError:
            raise TooDeep from None
    return None


@lru_cache(maxsize=1024)
def may_label(key: str) -> bool:
    """May a key say of a short number that it identifies somebody?"""
    return len(key) <= _SHORT and _MAY_LABEL.search(key) is not None


def number_texts(value: Any, label: str = "") -> list[str]:
    """What a scanner is to see of a number: the digits that an identifier would have had in quotes, not rounded.

    `value` is an int or a float, and stays what it is: declared so, compiled code would make a float of an int.
    `label`: the key that may label it; without one only long numbers are seen.
    """
    if type(value) is float:
        return _of_fraction(value, label)
    if value >= _LEAST_NUMBER or value <= -_LEAST_NUMBER:
        return [str(value).zfill(NUMBER_DIGITS)]
    size = abs(value)
    least, digits = _shown(label)
    return [str(size).zfill(digits)] if size >= least else []


@lru_cache(maxsize=1024)
def _shown(label: str) -> tuple[int, int]:
    """(the least number that is seen under a label, the digits that it is to have)."""
    if _ZIP.search(label) is not None:
        return 100, 5  # those of Puerto Rico have two leading zeros
    if _LAST.search(label) is not None:
        return 0, 4
    return (_LEAST_AGE if _AGE.search(label) is not None else _LEAST_LABELLED), 0


@lru_cache(maxsize=1024)
def _identifies(label: str) -> bool:
    return _IDENTIFIES.search(label) is not None


def _of_fraction(value: float, label: str) -> list[str]:
    if not math.isfinite(value):
        return []
    whole = int(value)
    if value == whole:
        if abs(whole) < _LEAST_NUMBER:
            return number_texts(whole, label)
        texts = [str(whole).zfill(NUMBER_DIGITS)]
        if abs(value) >= _ROUNDED:
            texts.append(str(whole - 1 if whole > 0 else whole + 1))
        return texts
    texts = [str(whole).zfill(NUMBER_DIGITS)] if abs(whole) >= _LEAST_NUMBER else []
    if _identifies(label):
        texts.append(format(abs(value), "f" if abs(value) < _ROUNDED and "e" in repr(value) else "").lstrip("0"))
    return texts


def joined_pieces(key: str, value: Any) -> str | None:
    """The pieces of one number that stand in an array or object under a key that labels it, with the key; or None."""
    if type(value) not in (list, dict) or not _identifies(key):
        return None
    pieces: list[str] = []
    if not _gather(value, pieces, 0) or len(pieces) < 2:
        return None
    if len(pieces) == len(_SSN_GROUPS) and all(len(p) <= size for p, size in zip(pieces, _SSN_GROUPS, strict=True)):
        digits = "-".join(piece.zfill(size) for piece, size in zip(pieces, _SSN_GROUPS, strict=True))
    else:
        digits = "".join(pieces)
    least, most = _PIECES_DIGITS
    return f"{key}: {digits}" if least <= len(digits) <= most else None


def _gather(value: Any, pieces: list[str], depth: int) -> bool:
    """Are all leaves of `value` pieces of a number?  They are added to `pieces`."""
    kind = type(value)
    if kind is list or kind is dict:
        if not 0 < len(value) <= _MOST_PIECES or depth >= MAX_DEPTH:
            return False  # an empty one, too: what is looked through is bounded by the pieces in it
        return all(_gather(item, pieces, depth + 1) for item in (value if kind is list else value.values()))
    if kind is float and math.isfinite(value) and value == int(value):
        value = int(value)
        kind = int
    if kind is int and 0 <= value < 10**NUMBER_DIGITS:
        value = str(value)
    elif kind is not str or _PIECE.fullmatch(value) is None:
        return False
    pieces.append("".join(filter(str.isdigit, value)))
    return len(pieces) <= _MOST_PIECES


def _pieces_in(text: str) -> list[str]:
    """The joined pieces of numbers in a string that is JSON; what else stands in it is seen in its text."""
    if _LABELS_MANY.search(text) is None:
        return []
    value = _decoded(text)
    found: list[str] = []
    if value is not None:
        _find_pieces(value, found, 0)
    return found


def _find_pieces(value: Any, found: list[str], depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise TooDeep
    if type(value) is dict:
        for name, item in value.items():
            joined = joined_pieces(name, item)
            if joined is not None:
                found.append(joined)
            if type(item) is float and _identifies(name):
                found += [f"{name}: {text}" for text in _of_fraction(item, name)]
            _find_pieces(item, found, depth + 1)
    elif type(value) is list:
        for item in value:
            _find_pieces(item, found, depth + 1)


def _is_opaque(value: dict[str, Any]) -> bool:
    """A part whose content is not text: it says so by its type."""
    kind = value["type"]
    if type(kind) is not str or kind not in _OPAQUE_TYPES:
        return False
    source = value.get("source")
    return not (kind == "document" and type(source) is dict and source.get("type") in ("text", "content"))


def _base64(text: str, key: str) -> tuple[int, bool]:
    """(opaque parts in a long string, whether it is to be scanned as text).

    A data: URL, or base64 under a key that holds it, is opaque where it is base64 to its last character:
    a prefix alone must not hide what follows it.
    """
    if len(text) <= _SHORT:
        return 0, True
    start = text.find(";base64,", 0, 128) + 8 if text.startswith("data:") else 0
    if (start > 7 or key in _BASE64_KEYS) and _BASE64.fullmatch(text, start):
        return 1, _TEXT_TYPE.match(text) is not None  # opaque all the same: whether it is text is not known here
    return (1 if _EMBEDDED_BASE64.search(text) else 0), True


def is_text(text: str, key: str) -> bool:
    """Is a string that stands under `key` scanned as text?  Else it is opaque to its last character."""
    return ((len(text) <= _SHORT or ";base64," not in text) and key not in _BASE64_KEYS) or _base64(text, key)[1]


def digits_of(value: list[Any]) -> str | None:
    """The digits of a list of whole numbers that could be one number in pieces: a card's, or three groups of an SSN."""
    if len(value) > _MOST_GROUPS or not all([type(item) is int and 0 <= item < _LEAST_NUMBER for item in value]):
        return None
    digits = "".join(map(str, value))
    if _CARD_DIGITS[0] <= len(digits) <= _CARD_DIGITS[1]:
        return digits
    return digits if len(digits) == NUMBER_DIGITS and len(value) in (3, NUMBER_DIGITS) else None


def is_tokens(value: list[Any]) -> bool:
    """Token ids instead of text: what they say is not read here."""
    first = value[0]
    return type(first) is int or (type(first) is list and bool(first) and type(first[0]) is int)
