"""Server-sent events: fields, line ends, bounds (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import pytest

from engines.errors import MalformedAnswer
from engines.sse import Framer, event_bytes, parse


@pytest.mark.parametrize(
    ("raw", "event", "data"),
    [
        (b"data: a\n\n", "", b"a"),
        (b"data:a\n\n", "", b"a"),
        (b"data:  a\n\n", "", b" a"),  # one space goes, no more
        (b"data: a\ndata: b\n\n", "", b"a\nb"),
        (b"data\n\n", "", b""),
        (b"data:\r\ndata:\r\n\r\n", "", b"\n"),
        (b"event: ping\ndata: {}\n\n", "ping", b"{}"),
        (b"event: a\nevent: b\ndata: c\n\n", "b", b"c"),
        (b": comment\n\n", "", None),
        (b"id: 7\nretry: 100\n\n", "", None),
        (b"datum: x\n\n", "", None),
        (b"data: a:b\r\r", "", b"a:b"),
        (b"\xef\xbb\xbfdata: a\n\n", "", b"a"),
    ],
)
def test_fields(raw: bytes, event: str, data: bytes | None) -> None:
    frame = parse(raw)
    assert (frame.raw, frame.event, frame.data) == (raw, event, data)


def test_an_event_is_given_out_with_its_last_byte_and_not_before() -> None:
    framer = Framer()
    stream = b"data: one\n\nevent: x\r\ndata: two\r\n\r\n"
    given = [len(framer.feed(stream[at : at + 1])) for at in range(len(stream))]
    assert [at for at, count in enumerate(given) if count] == [10, len(stream) - 1]


@pytest.mark.parametrize("stream", [b"data: a", b"data: a\n", b"data: a\r\n", b"event: x\ndata: a\n"])
def test_law_05_an_event_without_its_blank_line_is_none_but_its_bytes_are_kept(stream: bytes) -> None:
    framer = Framer()
    assert framer.feed(stream) == []
    assert framer.flush() == []
    assert framer.rest == stream


def test_blank_lines_beyond_the_first_belong_to_what_follows() -> None:
    framer = Framer()
    frames = framer.feed(b"\n\n\ndata: a\n\n\n\ndata: b\n\n\n")
    assert [frame.data for frame in frames if frame.data is not None] == [b"a", b"b"]
    assert b"".join(frame.raw for frame in frames) + framer.rest == b"\n\n\ndata: a\n\n\n\ndata: b\n\n\n"


@pytest.mark.parametrize("prefix", [b"data: ", b"id: 1\ndata: ", b": "])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_law_10_the_limit_is_one_events_however_it_arrives(prefix: bytes, step: int) -> None:
    def feed(size: int) -> int:
        event = prefix + b"x" * (size - len(prefix) - 2) + b"\n\n"
        framer = Framer(limit=100)
        stream = b"data: small\n\n" * 20 + event
        return sum(len(framer.feed(stream[at : at + step])) for at in range(0, len(stream), step))

    assert feed(100) == 21
    with pytest.raises(MalformedAnswer):
        feed(101)


def test_what_is_written_reads_back() -> None:
    assert parse(event_bytes(b'{"a":1}')).data == b'{"a":1}'
    frame = parse(event_bytes(b"{}", "message_stop"))
    assert (frame.event, frame.data) == ("message_stop", b"{}")
