"""What both dialects read of a client's body before anything else is done with it; each raises `BadRequest`.

These checks hold for every request, so they ask for no more than what deciding and metering need: the rest is the
engine's to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.model import BadRequest
from engines.rawjson import parse_object

NAME_LIMIT = 256
"""Characters of a model's name."""
NUMBER_LIMIT = 2**40
"""Above every count that an engine knows; past it, sums of money would not fit their columns."""


def checked_body(raw: bytes) -> dict[str, Any]:
    """The body as an object in which each key stands once.

    A key that stands twice could mean one thing to the scanner here and another to the engine.
    """
    body, repeated = parse_object(raw)
    if repeated:
        raise BadRequest("A key stands twice in one object, so it is not clear what is meant.", repeated[0])
    return body


def model_name(body: Mapping[str, Any]) -> str:
    """The model asked for."""
    model = body.get("model")
    if not isinstance(model, str) or not model or len(model) > NAME_LIMIT:
        raise BadRequest(f"model must be a string of 1 to {NAME_LIMIT} characters.", "model")
    return model


def some_messages(body: Mapping[str, Any]) -> list[Any]:
    """The messages: at least one.  What each must be is the dialect's to say."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be an array with at least one message.", "messages")
    return messages


def boolean(body: Mapping[str, Any], name: str) -> bool:
    """A flag; left out or null it is false."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRequest(f"{name} must be true or false.", name)


def whole(body: Mapping[str, Any], name: str) -> int | None:
    """A count; None where it is left out or null."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequest(f"{name} must be a whole number, not negative.", name)
    if value > NUMBER_LIMIT:
        raise BadRequest(f"{name} must be at most {NUMBER_LIMIT}.", name)
    return value


def output_limit(body: Mapping[str, Any], *names: str) -> int | None:
    """The most tokens that may be written, under any of these names; None: no limit is stated.

    -1, as llama.cpp's callers say, is no limit.  Engines differ in which of two names counts, so of two limits the
    higher is what must be reckoned with.
    """
    most: int | None = None
    endless = False
    for name in names:
        if name not in body:
            continue
        if body[name] == -1:
            endless = True
        elif (stated := whole(body, name)) is not None:
            most = stated if most is None else max(most, stated)
    return None if endless else most
