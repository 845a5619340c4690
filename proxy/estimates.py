"""What an answer used where its engine did not say, or did not get to say it: estimates that are marked as such.

An answer that ended early has the input that its engine reported, where it did, and the output that came.  What a model
thought without showing it is not seen here, so such an estimate may be low; reconciliation finds the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from compliance.model import LOCAL
from engines.model import Quality, Request, Target, Usage
from engines.rates import ADDED_TOKENS, tier_of
from proxy.counts import NOT_COUNTED, Counts, Said

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


def used(request: Request, target: Target, said: Said, most_output: int, counts: Counts = NOT_COUNTED) -> Usage:
    """The usage of an attempt: the engine's word, or an estimate of what it did not say.

    A cloud attempt that nobody counted is taken as a token a byte, `bounded`; a local one, which costs no money by the token,
    as a token for four bytes.
    """
    final = final_usage(request, said)
    if final is not None:
        return final
    reported = said.usage
    limit = most_output * request.choices
    output = None if counts.output is None else _whole(counts.output, counts.looked_at, said.text_length)
    if target.boundary == LOCAL:
        return _at_home(request, target, said, limit, output, counts.prompt)
    if reported is not None:
        known = output if output is not None else _bytes_out(said, target)
        quality: Quality = "estimated" if output is not None else "bounded"
        output = max(reported.output, min(known, limit))
        return _tiered(replace(reported, output=output, quality=quality), request)
    if output is not None and counts.prompt is not None:
        # A picture's tokens cannot be told from its address: they are taken at their bound.
        kind: Quality = "bounded" if images(request) else "estimated"
        return _tiered(Usage(input=counts.prompt, output=min(output, limit), quality=kind), request)
    bound = len(request.raw) + images(request) * IMAGE_TOKENS + ADDED_TOKENS
    return _tiered(Usage(input=bound, output=min(_bytes_out(said, target), limit), quality="bounded"), request)


def final_usage(request: Request, said: Said) -> Usage | None:
    """The engine's word, where it is its last one."""
    reported = said.usage
    return _tiered(reported, request) if reported is not None and said.usage_final else None


def _at_home(
    request: Request, target: Target, said: Said, limit: int, output: int | None, prompt: int | None
) -> Usage:  # fmt: skip
    output = (_bytes_out(said, target) + 3) // 4 if output is None else min(output, limit)
    reported = said.usage
    if reported is not None:
        known = max(reported.output, min(output, limit))
        return _tiered(replace(reported, output=known, quality="estimated"), request)
    return Usage(input=len(request.raw) // 4 if prompt is None else prompt, output=output, quality="estimated")


class Question:
    """What of a cloud's attempt is to be counted: the answer that came and, where its tokens are not known, the prompt."""

    __slots__ = ("length", "messages", "texts")

    def __init__(self, texts: tuple[str, ...], length: int = 0, messages: int = 0) -> None:
        self.texts = texts
        self.length = length  # of the whole prompt, in characters
        self.messages = messages

    def counts(self, request: Request, counted: Sequence[int]) -> Counts:
        """With the tokens of its texts."""
        if len(self.texts) == 1:
            return Counts(None, counted[0], len(self.texts[0]))
        prompt = _whole(counted[1], len(self.texts[1]), self.length)
        most = len(request.raw) + ADDED_TOKENS + images(request) * IMAGE_TOKENS  # what was held
        prompt += self.messages * MESSAGE_TOKENS + images(request) * IMAGE_TOKENS
        prompt += _given_tokens(request.body.get("input"))
        return Counts(min(prompt, most), counted[0], len(self.texts[0]))


def question(request: Request, said: Said) -> Question:
    """What to count of an attempt that ended without its usage."""
    answer = well_formed("".join(said.kept or ()))
    if said.usage is not None or request.needs & _UNREAD:
        return Question((answer,))
    prompt, length, messages = prompt_text(request.body)
    return Question((answer, well_formed(prompt)), length, messages)


def well_formed(text: str) -> str:
    """The text as it can be sent."""
    return text.encode("utf-8", "replace").decode()  # half of a pair is no UTF-8


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


def _whole(counted: int, looked_at: int, length: int) -> int:
    """The tokens of a text of which the first part was counted: the rest is taken to be like it."""
    return counted if length <= looked_at or not looked_at else -(-counted * length // looked_at)


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
    if usage.tier or "service_tier" not in request.body:
        return usage
    asked = tier_of(request.body.get("service_tier"))
    return replace(usage, tier=asked) if asked else usage
