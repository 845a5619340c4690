"""What an answer used where its engine did not say, or did not get to say it: estimates that are marked as such.

An answer that ended early has the input that its engine reported, where it did, and the output that came.  What a model
thought without showing it is not seen here, so such an estimate may be low; reconciliation finds the difference.
"""

from __future__ import annotations

from typing import Any, Protocol

from msgspec.structs import replace

from compliance.model import LOCAL
from engines.model import Quality, Request, Target, Usage
from engines.rates import ADDED_TOKENS, tier_of
from engines.tokens import encoding_of

IMAGE_TOKENS = 16_384
"""Bound of an image's tokens: one given by URL has hardly any bytes in the request."""
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


class Said(Protocol):
    """What is known of an answer when it is over."""

    usage: Usage | None
    text_length: int  # characters that the model wrote
    kept: list[str] | None  # the first of them

    @property
    def usage_final(self) -> bool: ...


def used(request: Request, target: Target, said: Said, most_output: int, counter: Counter | None) -> Usage:
    """The usage of an attempt: the engine's word, or an estimate of what it did not say.

    A cloud attempt that nobody can count is taken as a token a byte, `bounded`; a local one, which costs no money by the
    token, as a token for four.
    """
    reported = said.usage
    if reported is not None and said.usage_final:
        return _tiered(reported, request)
    limit = most_output * request.choices
    counted = counter if target.boundary != LOCAL else None
    output = _output(said, target, counted)
    if reported is not None:
        known = output if output is not None else _bytes_out(said, target)
        quality: Quality = "estimated" if output is not None or target.boundary == LOCAL else "bounded"
        output = max(reported.output, min(known, limit))
        return _tiered(replace(reported, output=output, quality=quality), request)
    prompt = _prompt(request, target, counted) if output is not None else None
    if output is not None and prompt is not None:
        # A picture's tokens cannot be told from its address: they are taken at their bound.
        kind: Quality = "bounded" if images(request) else "estimated"
        return _tiered(Usage(input=prompt, output=min(output, limit), quality=kind), request)
    if target.boundary == LOCAL:
        return Usage(input=len(request.raw) // 4, output=(_bytes_out(said, target) + 3) // 4, quality="estimated")
    bound = len(request.raw) + images(request) * IMAGE_TOKENS + ADDED_TOKENS
    return _tiered(Usage(input=bound, output=min(_bytes_out(said, target), limit), quality="bounded"), request)


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
    if counted is None or said.text_length <= len(text) or not text:
        return counted
    return -(-counted * said.text_length // len(text))


def _prompt(request: Request, target: Target, counter: Counter | None) -> int | None:
    if counter is None or request.needs & _UNREAD:
        return None
    text, length, messages = prompt_text(request.body)
    counted = counter.count(text, encoding_of(target.model))
    if counted is None:
        return None
    if length > len(text) > 0:
        counted = -(-counted * length // len(text))
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
