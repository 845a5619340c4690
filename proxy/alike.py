"""Events of one stream that differ in their text alone.

An engine writes the same bytes around every piece of an answer's text.  So what one event, decoded as a whole, was
found to mean holds for the next with the same bytes around its text: only that text is decoded.  Where one JSON
string stands for another, a parser is in the same state behind it, so nothing else can have changed; where the text
stands is not guessed but tried, with another text in its place.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from engines.base import Dialect
from engines.errors import EngineError
from engines.model import Frame, TextDelta
from engines.sse import Framer

LONGEST = 1024
"""Bytes of a text that is taken this way: pieces wait to be counted together, and a long one should not wait."""

string_of = msgspec.json.Decoder(str).decode
"""The text that one JSON string says; raises one of `UNREADABLE` for anything else."""


class Alike(Struct, frozen=True, gc=False):
    """What stands around the text of a stream's events, its quotes included."""

    choice: int
    head: bytes
    tail: bytes
    start: int  # of the text with its quotes
    stop: int  # its end, from the event's
    changed: bool  # does the client get other bytes than the engine's?
    before: bytes = b""  # then: what it gets instead, without the quotes
    behind: bytes = b""


def learned(engine: Dialect, frame: Frame, event: TextDelta, named: Callable[[bytes], bytes] | None) -> Alike | None:
    """From a frame that came as a piece of its own and meant this event alone; None: its text was not found in it.

    `named` puts the client's model name into an event, and depends on nothing but its bytes.
    """
    raw = frame.raw
    quoted = b'"%b"' % event.text.encode("utf-8", "replace")
    at = raw.find(quoted)
    if at < 0:
        return None
    stop = at + len(quoted) - len(raw)
    another = b'"~%b' % quoted[1:]
    tried = raw[:at] + another + raw[stop:]
    if not _means(engine, frame, tried, TextDelta(event.choice, "~" + event.text)):
        return None
    head, tail = raw[: at + 1], raw[stop - 1 :]
    if named is None:
        return Alike(event.choice, head, tail, at, stop, changed=False)
    made = named(raw)
    if made is raw:
        if b'"model"' in raw or named(tried) != tried:  # why it was left as it is may hang on more than was looked at
            return None
        return Alike(event.choice, head, tail, at, stop, changed=False)
    before, _, behind = made.partition(quoted)
    if named(tried) != before + another + behind:
        return None
    return Alike(event.choice, head, tail, at, stop, changed=True, before=before, behind=behind)


def _means(engine: Dialect, frame: Frame, tried: bytes, event: TextDelta) -> bool:
    """Does `tried` mean this event and no other, where it comes next after the frame?"""
    decoder = engine.decoder()
    try:
        frames = Framer().feed(tried)
        decoder.feed(frame)
        return len(frames) == 1 and frames[0].raw == tried and list(decoder.feed(frames[0])) == [event]
    except EngineError:
        return False
