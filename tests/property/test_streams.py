"""Framing, decoding and encoding at every cut point: however a stream arrives in pieces, it means the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import ANTHROPIC_TOOLS, LLAMACPP, OPENAI_TOOLS, VLLM, VLLM_CONTINUOUS_USAGE

from compliance.answers import AnswerScanner
from compliance.scan import Scanner
from engines import anthropic, openai
from engines.base import Dialect
from engines.errors import MalformedAnswer
from engines.model import Done, Event, Operation, Request
from engines.sse import Framer, parse
from proxy.session import Restoring, Session, StreamSession, WholeSession

STREAMS: dict[str, tuple[Dialect, bytes]] = {
    "llama.cpp": (openai.DIALECT, LLAMACPP),
    "vllm": (openai.DIALECT, VLLM),
    "vllm continuous usage": (openai.DIALECT, VLLM_CONTINUOUS_USAGE),
    "openai tools": (openai.DIALECT, OPENAI_TOOLS),
    "anthropic tools": (anthropic.DIALECT, ANTHROPIC_TOOLS),
}


def cut(data: bytes, at: list[int]) -> list[bytes]:
    points = sorted({point % (len(data) + 1) for point in at})
    return [data[a:b] for a, b in zip([0, *points], [*points, len(data)], strict=True)]


CUTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=40)


def events_of(dialect: Dialect, pieces: list[bytes]) -> list[Event]:
    framer, decoder = Framer(), dialect.decoder()
    frames = [frame for piece in pieces for frame in framer.feed(piece)] + framer.flush()
    return [event for frame in frames for event in decoder.feed(frame)]


@pytest.mark.parametrize("name", STREAMS)
@given(at=CUTS)
def test_any_cutting_gives_the_same_events_and_the_same_bytes(name: str, at: list[int]) -> None:
    dialect, stream = STREAMS[name]
    framer = Framer()
    raw = b"".join(frame.raw for piece in cut(stream, at) for frame in framer.feed(piece)) + framer.rest
    assert raw == stream
    assert events_of(dialect, cut(stream, at)) == events_of(dialect, [stream])


@pytest.mark.parametrize("name", STREAMS)
def test_every_single_cut_point(name: str) -> None:
    dialect, stream = STREAMS[name]
    whole = events_of(dialect, [stream])
    assert isinstance(whole[-1], Done)
    for point in range(len(stream)):
        assert events_of(dialect, [stream[:point], stream[point:]]) == whole


@given(
    lines=st.lists(
        st.sampled_from([b"data: a", b"data:b", b"data: \xc3\xa9", b": ping", b"event: x", b"id: 1", b"", b"data: {}"]),
        max_size=12,
    ),
    ends=st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=12, max_size=12),
    at=CUTS,
)
def test_line_ends_of_all_kinds_cut_anywhere(lines: list[bytes], ends: list[bytes], at: list[int]) -> None:
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))

    def frames(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
        framer = Framer()
        found = [frame.raw for piece in pieces for frame in framer.feed(piece)]
        return found + [frame.raw for frame in framer.flush()], framer.rest

    assert frames(cut(stream, at)) == frames([stream])
    found, rest = frames([stream])
    assert b"".join(found) + rest == stream


@given(junk=st.binary(max_size=400), at=CUTS)
def test_hostile_bytes_are_an_error_or_events_but_never_a_crash(junk: bytes, at: list[int]) -> None:
    for dialect in (openai.DIALECT, anthropic.DIALECT):
        try:
            events_of(dialect, cut(b"data: " + junk + b"\n\n", at))
            events_of(dialect, [b'data: {"id":"' + junk.replace(b"\n", b"").replace(b'"', b"") + b'"}\n\n'])
        except MalformedAnswer:
            pass


def test_fields_of_an_event() -> None:
    frame = parse(b"\xef\xbb\xbfevent: x\r\ndata:a\r\ndata:  b\rid: 1\nretry: 5\n: c\n\n")
    assert (frame.event, frame.data) == ("x", b"a\n b")


def test_an_event_past_the_limit_is_an_error() -> None:
    framer = Framer(limit=100)
    with pytest.raises(MalformedAnswer):
        for _ in range(30):
            framer.feed(b"data: xxxxxx")


def request(dialect: str, **more: Any) -> Request:
    body = {"model": "mine", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hi"}], **more}
    return {"openai": openai.DIALECT, "anthropic": anthropic.DIALECT}[dialect].parse(
        Operation.CHAT, json.dumps(body).encode(), {}
    )


def session_output(
    stream: bytes, pieces: list[bytes], client: Dialect, engine: Dialect, **options: Any
) -> tuple[bytes, StreamSession]:
    session = StreamSession(
        request(client.name),
        client,
        engine,
        answer_id="1",
        created=1,
        **{"restore_model": False, "strip_usage": False, **options},
    )
    out = b"".join(session.feed(piece) for piece in pieces)
    return out + session.end(), session


@pytest.mark.parametrize("name", STREAMS)
@given(at=CUTS)
def test_law_07_where_dialects_match_the_bytes_are_the_same_however_they_were_cut(name: str, at: list[int]) -> None:
    dialect, stream = STREAMS[name]
    out, session = session_output(stream, cut(stream, at), dialect, dialect)
    assert out == stream
    assert session.done and session.error is None and session.usage is not None


@pytest.mark.parametrize("name", STREAMS)
@given(at=CUTS)
def test_translation_does_not_depend_on_the_cutting(name: str, at: list[int]) -> None:
    dialect, stream = STREAMS[name]
    other = anthropic.DIALECT if dialect is openai.DIALECT else openai.DIALECT
    out, session = session_output(stream, cut(stream, at), other, dialect)
    assert (out, session.usage) == (session_output(stream, [stream], other, dialect)[0], session.usage)
    assert session.error is None


@pytest.mark.parametrize("name", STREAMS)
@given(point=st.integers(min_value=0, max_value=5000))
def test_law_05_a_stream_cut_off_anywhere_is_never_a_success(name: str, point: int) -> None:
    dialect, stream = STREAMS[name]
    point %= len(stream) - 2
    for client in (openai.DIALECT, anthropic.DIALECT):
        out, session = session_output(stream, [stream[:point]], client, dialect)
        assert session.error is not None and not session.done
        assert b"[DONE]" not in out and b"message_stop" not in out


@given(at=CUTS)
def test_the_usage_that_only_we_asked_for_is_stripped_and_the_clients_model_restored(at: list[int]) -> None:
    out, _ = session_output(VLLM, cut(VLLM, at), openai.DIALECT, openai.DIALECT, restore_model=True, strip_usage=True)
    assert b'"choices":[]' not in out and b"tiny-llama" not in out
    assert out.count(b'"model":"mine"') == VLLM.count(b'"choices":[{')
    assert out.endswith(b"data: [DONE]\n\n")


NAMES = st.sampled_from(["m", "mine", "a/b", 'with "quotes"', "model", "é"])
MEMBERS = st.lists(
    st.one_of(
        st.tuples(st.just("model"), NAMES),
        st.tuples(st.sampled_from(["id", "object"]), st.sampled_from(["c", "d", '"model":"m"'])),
        st.tuples(st.just("choices"), st.just([{"model": "m", "delta": {"content": '{"model":"m"}'}}])),
    ),
    max_size=4,
    unique_by=lambda member: member[0],
)


@given(events=st.lists(MEMBERS, min_size=1, max_size=6), dialect=st.sampled_from([openai.DIALECT, anthropic.DIALECT]))
def test_a_model_is_restored_as_if_each_event_were_the_first(events: list[Any], dialect: Dialect) -> None:
    restoring = Restoring(dialect, "mine")
    for members in events:
        raw = b"data: " + json.dumps(dict(members), ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
        assert restoring.event(raw) == dialect.restore_model(raw, "mine")


@given(at=CUTS)
def test_a_last_event_that_ends_in_carriage_returns_counts(at: list[int]) -> None:
    """Whether a CR at the very end is a whole line end is known only when nothing follows."""
    stream = next(iter(STREAMS.values()))[1].replace(b"\n\n", b"\r\r")
    out, session = session_output(stream, cut(stream, at), openai.DIALECT, openai.DIALECT)
    assert out == stream and session.done and session.error is None


@pytest.mark.parametrize(
    ("delta", "finding"),
    [
        ({"function_call": {"name": "f", "arguments": '{"ssn":"078-05-1120"}'}}, ("ssn", "opaque", 1)),
        ({"audio": {"id": "a", "transcript": "my number is 078-05-1120"}}, ("ssn", "opaque", 1)),
        ({"audio": {"id": "a", "data": "AAAA"}}, ("opaque", "opaque", 1)),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_law_08_what_has_no_neutral_word_is_scanned_or_not_called_clean(
    delta: dict[str, Any], finding: tuple[str, str, int], streamed: bool
) -> None:
    scan = AnswerScanner(Scanner())
    session: Session
    if streamed:
        first = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        last = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        stream = b"".join(b"data: %b\n\n" % json.dumps(row).encode() for row in (first, last)) + b"data: [DONE]\n\n"
        out, session = session_output(stream, [stream], openai.DIALECT, openai.DIALECT, scan=scan)
        assert (out, session.error) == (stream, None)
    else:
        row = {"id": "1", "model": "m", "choices": [{"index": 0, "message": delta, "finish_reason": "stop"}]}
        body = json.dumps(row).encode()
        whole = WholeSession(
            request("openai", stream=False), openai.DIALECT, openai.DIALECT, answer_id="1", created=1, restore_model=False,
            limit=10_000, scan=scan,
        )  # fmt: skip
        whole.feed(body)
        assert (whole.end(), whole.error) == (body, None)
        session = whole
    assert [(found.type, found.path, found.end) for found in session.findings()] == [finding]
