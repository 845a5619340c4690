"""What an answer used where its engine did not say, or did not get to say it: estimates that are marked as such.

An answer that ended early has the input that its engine reported, where it did, and the output that came.  What a model
thought without showing it is not seen here, so such an estimate may be low; reconciliation finds the difference.
"""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from compliance.model import LOCAL
from engines.model import Quality, Request, Target, Usage
from engines.rates import ADDED_TOKENS, tier_of
from engines.tokens import encoding_of

IMAGE_TOKENS = 24_576
"""Bound of an image's tokens: one given by URL has hardly any bytes in the request.  In OpenAI's dialect `images` counts each
twice; gpt-4o-mini bills 2,833 + 8 x 5,667 = 48,169 for the largest (OpenAI, "Images and vision", calculating costs)."""
PROMPT_LIMIT = 256 * 1024
"""Characters of a prompt that are looked at, so that a large one holds nobody up; the rest is taken to be like them."""
MESSAGE_TOKENS = 4
"""What a chat template adds to a message (OpenAI's cookbook has 3 and a name)."""
_PROMPT_FIELDS = ("messages", "system", "tools", "input", "response_format", "output_config")
_DEPTH = 64
_UNREAD = frozenset({"audio", "documents"})
"""What has tokens that no text tells: a prompt that holds it is taken at its bound."""


class Counter(Protocol):
    """Counts tokens; None where it cannot yet."""

    def count(self, text: str, encoding: str) -> int | None: ...
    def has(self, encoding: str) -> bool:
        """Can it count by this encoding now?"""
        ...


class Counts(Struct, frozen=True):
    """What an engine's own tokenizer counted of an attempt; None: it did not."""

    prompt: int | None = None
    output: int | None = None  # of the first `looked_at` characters of the answer
    looked_at: int = 0


class Said(Protocol):
    """What is known of an answer when it is over."""

    usage: Usage | None
    text_length: int  # characters that the model wrote
    kept: list[str] | None  # the first of them

    @property
    def usage_final(self) -> bool: ...


_NOT_COUNTED = Counts()


def used(
    request: Request,
    target: Target,
    said: Said,
    most_output: int,
    counter: Counter | None,
    counts: Counts | None = None,
) -> Usage:
    """The usage of an attempt: the engine's word, or an estimate of what it did not say.

    A cloud attempt that nobody can count is taken as a token a byte, `bounded`.  A local one is what its engine's tokenizer
    counted (`counts`), or by the counter if that is loaded anyway: it costs no money by the token, so nothing is loaded for
    it; else it is a token for four bytes.
    """
    reported = said.usage
    if reported is not None and said.usage_final:
        return _tiered(reported, request)
    limit = most_output * request.choices
    if target.boundary == LOCAL:
        ready = counter if counter is not None and counter.has(encoding_of(target.model)) else None
        return _at_home(request, target, said, limit, counts or _NOT_COUNTED, ready)
    output = _output(said, target, counter)
    if reported is not None:
        known = output if output is not None else _bytes_out(said, target)
        quality: Quality = "estimated" if output is not None else "bounded"
        output = max(reported.output, min(known, limit))
        return _tiered(replace(reported, output=output, quality=quality), request)
    prompt = _prompt(request, target, counter) if output is not None else None
    if output is not None and prompt is not None:
        # A picture's tokens cannot be told from its address: they are taken at their bound.
        kind: Quality = "bounded" if images(request) else "estimated"
        return _tiered(Usage(input=prompt, output=min(output, limit), quality=kind), request)
    bound = len(request.raw) + images(request) * IMAGE_TOKENS + ADDED_TOKENS
    return _tiered(Usage(input=bound, output=min(_bytes_out(said, target), limit), quality="bounded"), request)


def _at_home(
    request: Request, target: Target, said: Said, limit: int, counts: Counts, counter: Counter | None
) -> Usage:  # fmt: skip
    output = (_bytes_out(said, target) + 3) // 4
    if counts.output is not None:
        output = min(_whole(counts.output, counts.looked_at, said.text_length), limit)
    elif (counted := _output(said, target, counter)) is not None:
        output = min(counted, limit)
    reported = said.usage
    if reported is not None:
        known = max(reported.output, min(output, limit))
        return _tiered(replace(reported, output=known, quality="estimated"), request)
    prompt = counts.prompt
    if prompt is None and counted_by_text(request):
        prompt = _prompt(request, target, counter)
    return Usage(input=len(request.raw) // 4 if prompt is None else prompt, output=output, quality="estimated")


def counted_by_text(request: Request) -> bool:
    """Is a prompt all text, so that a tokenizer sees what the model read?"""
    return not request.needs & _UNREAD and "vision" not in request.needs


def images(request: Request) -> int:
    """How many pictures a request holds, at the most."""
    return request.raw.count(b'"image') if "vision" in request.needs else 0


def prompt_text(body: dict[str, Any]) -> tuple[str, int, int]:
    """(the strings of a prompt that a model reads, the first of them; the characters of all; how many messages it has).

    Pictures and sound are left out.
    """
    parts: list[str] = []
    for name in _PROMPT_FIELDS:
        _strings(body.get(name), parts, _DEPTH)
    first: list[str] = []
    room = PROMPT_LIMIT
    for part in parts:
        first.append(part[:room])
        room -= len(part) + 1
        if room <= 0:
            break
    messages = body.get("messages")
    return "\n".join(first), sum(map(len, parts)), len(messages) if isinstance(messages, list) else 0


def _strings(value: Any, parts: list[str], depth: int) -> None:
    if isinstance(value, str):
        if not value.startswith("data:"):
            parts.append(value)
    elif isinstance(value, list) and depth:
        for one in value:
            _strings(one, parts, depth - 1)
    elif isinstance(value, dict) and depth and value.get("type") not in ("image", "image_url", "input_audio"):
        for one in value.values():
            _strings(one, parts, depth - 1)


def _output(said: Said, target: Target, counter: Counter | None) -> int | None:
    if counter is None or said.kept is None:
        return None
    text = "".join(said.kept)
    counted = counter.count(text, encoding_of(target.model))
    return None if counted is None else _whole(counted, len(text), said.text_length)


def _whole(counted: int, looked_at: int, length: int) -> int:
    """The tokens of a text of which the first part was counted: the rest is taken to be like it."""
    return counted if length <= looked_at or not looked_at else -(-counted * length // looked_at)


def _prompt(request: Request, target: Target, counter: Counter | None) -> int | None:
    if counter is None or request.needs & _UNREAD:
        return None
    text, length, messages = prompt_text(request.body)
    counted = counter.count(text, encoding_of(target.model))
    if counted is None:
        return None
    counted = _whole(counted, len(text), length)
    most = len(request.raw) + ADDED_TOKENS + images(request) * IMAGE_TOKENS  # what was held
    counted += messages * MESSAGE_TOKENS + images(request) * IMAGE_TOKENS + _given_tokens(request.body.get("input"))
    return min(counted, most)


def _given_tokens(value: Any) -> int:
    """How many tokens a client gave as numbers, for embeddings: of one text, or of several."""
    if not isinstance(value, list):
        return 0
    lists = [one for one in value if isinstance(one, list)] or [value]
    return sum([sum([type(token) is int for token in tokens]) for tokens in lists])


def _bytes_out(said: Said, target: Target) -> int:
    """Bytes of what the model wrote; of what was not kept it is taken that every character has four."""
    kept = "".join(said.kept or ())
    width = 1 if target.boundary == LOCAL else 4
    return len(kept.encode("utf-8", "replace")) + (said.text_length - len(kept)) * width


def _tiered(usage: Usage, request: Request) -> Usage:
    """With the tier that was asked for, where the answer does not say which it was."""
    if usage.tier:
        return usage
    asked = tier_of(request.body.get("service_tier"))
    return replace(usage, tier=asked) if asked else usage
