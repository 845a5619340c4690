"""The framer against a reader written from the specification, a byte at a time, over every way of cutting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.sse import Framer

LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data: \xc3\xa9\xf0\x9f\x99\x82", b"data", b": c", b"event: x", b"event:", b"id: 1", b"retry: 5", b"", b"", b""]
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=14).map(lambda rows: b"".join(a + b for a, b in rows))
CUTS = st.lists(st.integers(min_value=0, max_value=400), max_size=12)


def reference(stream: bytes) -> list[tuple[str, bytes]]:
    """(event, data) of each event that the specification dispatches: it has data, and a blank line after it.

    An empty data buffer is not dispatched there; it is here, since an engine's empty event is still one.
    """
    lines: list[bytes] = []
    line = b""
    at = 0
    while at < len(stream):
        byte = stream[at : at + 1]
        at += 1
        if byte in (b"\r", b"\n"):
            if byte == b"\r" and stream[at : at + 1] == b"\n":
                at += 1
            lines.append(line)
            line = b""
        else:
            line += byte
    found: list[tuple[str, bytes]] = []
    name, data = "", None
    for line in lines:
        if line == b"":
            if data is not None:
                found.append((name, data))
            name, data = "", None
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data = value if data is None else data + b"\n" + value
        elif field == b"event":
            name = value.decode()
    return found


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    points = sorted({point % (len(stream) + 1) for point in at})
    return [stream[a:b] for a, b in zip([0, *points], [*points, len(stream)], strict=True)]


def read(pieces: list[bytes]) -> tuple[list[tuple[str, bytes]], bytes]:
    framer = Framer()
    frames = [frame for piece in pieces for frame in framer.feed(piece)] + framer.flush()
    raw = b"".join(frame.raw for frame in frames) + framer.rest
    return [(frame.event, frame.data) for frame in frames if frame.data is not None], raw


@given(stream=STREAMS, at=CUTS)
def test_law_07_any_stream_cut_anyhow_reads_as_the_specification_says_and_loses_no_byte(
    stream: bytes, at: list[int]
) -> None:
    events, raw = read(cut(stream, at))
    assert events == reference(stream)
    assert raw == stream


@given(stream=STREAMS)
def test_every_single_cut_point_of_any_stream(stream: bytes) -> None:
    wanted = reference(stream)
    for point in range(len(stream) + 1):
        assert read([stream[:point], stream[point:]]) == (wanted, stream)
    assert read([stream[at : at + 1] for at in range(len(stream))]) == (wanted, stream)


@given(junk=st.binary(max_size=300), at=CUTS)
def test_law_07_no_byte_of_anything_is_lost(junk: bytes, at: list[int]) -> None:
    assert read(cut(junk, at))[1] == junk
