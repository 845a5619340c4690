"""What is promised of answers that are held: the share is never passed, and what goes out is what came (laws 6 and 7)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import ANTHROPIC_TOOLS, LLAMACPP, OPENAI_TOOLS, VLLM, VLLM_CONTINUOUS_USAGE
from scripted import chat_chunks, completion, message, message_events

from engines import anthropic, openai
from engines.base import Dialect
from policies.escalation import Share
from policies.schemas import fits
from proxy.held import LATE, TOO_LARGE, HeldSink, Reader

# --- the share ----------------------------------------------------------------------------------------------


@given(
    share=st.integers(0, 1000).map(lambda n: n / 1000),
    window=st.integers(1, 30),
    answers=st.lists(st.booleans(), max_size=200),
)
def test_the_share_is_never_passed_and_never_kept_back(share: float, window: int, answers: list[bool]) -> None:
    """Whatever comes: at most the share of any `window` answers in a row, and of all so far; and as much as that allows."""
    exact = Fraction(round(share * 1000), 1000)
    ledger = Share(share, window)
    up: list[bool] = []
    for wants in answers:
        may = (sum(up[-(window - 1) :]) if window > 1 else 0) + 1 <= exact * min(len(up) + 1, window)
        assert ledger.left is may
        if wants:
            assert ledger.take() is may
            up.append(may)
        else:
            ledger.stay()
            up.append(False)
        assert sum(up[-window:]) <= exact * min(len(up), window)
        assert sum(up) <= exact * len(up)
    assert ledger.taken == pytest.approx(sum(up[-window:]) / max(1, len(up[-window:])))


# --- what is held -------------------------------------------------------------------------------------------


class Client:
    """A client's sink that keeps what it gets."""

    def __init__(self) -> None:
        self.on_resume: Callable[[], None] | None = None
        self.started = False
        self.bytes_out = 0
        self.body = b""
        self.heads: list[tuple[int, Sequence[tuple[bytes, bytes]]]] = []
        self.finished = False

    def whole(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.begin(status, headers, body)
        self.finished = True

    def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]], first: bytes) -> bool:
        self.started = True
        self.heads.append((status, headers))
        return self.write(first)

    def write(self, data: bytes) -> bool:
        assert not self.finished
        self.body += data
        self.bytes_out += len(data)
        return False

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        raise AssertionError("nobody cuts it off")


STREAMS: dict[str, tuple[Dialect, bytes]] = {
    "llama.cpp": (openai.DIALECT, LLAMACPP),
    "vllm": (openai.DIALECT, VLLM),
    "vllm continuous usage": (openai.DIALECT, VLLM_CONTINUOUS_USAGE),
    "openai tools": (openai.DIALECT, OPENAI_TOOLS),
    "anthropic tools": (anthropic.DIALECT, ANTHROPIC_TOOLS),
    "openai": (openai.DIALECT, b"".join(chat_chunks(["hello ", "there"]))),
    "anthropic": (anthropic.DIALECT, b"".join(message_events(["hello ", "there"]))),
}
CUTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=40)
HEAD = ((b"x", b"y"),)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    points = sorted({point % len(data) for point in at} | {0})
    return [data[a:b] for a, b in zip(points, [*points[1:], len(data)], strict=True)]


def held(dialect: Dialect, client: Client, judge: Callable[[HeldSink], bool], limit: int = 1_000_000) -> HeldSink:
    return HeldSink(client, dialect, limit=limit, deadline=9.0, lower=lambda: True, judge=judge)


def give(sink: HeldSink, pieces: list[bytes], late: int | None = None) -> None:
    """These pieces of a stream; before the piece of number `late` its time is over."""
    for number, piece in enumerate(pieces):
        if number == late:
            sink.on_deadline(9.0)
        if number == 0:
            sink.begin(200, HEAD, piece)
        else:
            sink.write(piece)
    sink.finish()


@pytest.mark.parametrize("name", STREAMS)
@given(at=CUTS, limit=st.integers(0, 5000), late=st.none() | st.integers(0, 40), keep=st.booleans())
def test_law_07_what_is_held_goes_out_byte_for_byte(
    name: str, at: list[int], limit: int, late: int | None, keep: bool
) -> None:
    """However it comes in pieces, and whether it is judged, too large, or too late: the bytes of the engine, or none."""
    dialect, stream = STREAMS[name]
    client = Client()
    judged: list[HeldSink] = []

    def judge(sink: HeldSink) -> bool:
        assert not client.started  # law 6
        judged.append(sink)
        return keep

    sink = held(dialect, client, judge, limit)
    give(sink, cut(stream, at), late)
    assert client.started is sink.started is not sink.kept
    if sink.kept:
        assert keep and client.body == b"" and not sink.let_go
        sink.release()
    assert (client.body, client.finished, client.heads) == (stream, True, [(200, HEAD)])
    assert sink.bytes_out == client.bytes_out
    assert bool(judged) is (sink.let_go not in (TOO_LARGE, LATE))
    if len(stream) > limit:
        assert sink.let_go in (TOO_LARGE, LATE)


@pytest.mark.parametrize("name", STREAMS)
@given(at=CUTS)
def test_an_answer_reads_the_same_however_it_comes(name: str, at: list[int]) -> None:
    dialect, stream = STREAMS[name]
    readers = []
    for pieces in (cut(stream, at), [stream]):
        reader = Reader(dialect)
        for piece in pieces:
            reader.feed(piece)
        assert reader.done and not reader.failed and not reader.unread
        readers.append(reader.said())
    assert readers[0] == readers[1]
    assert readers[0][0].text or readers[0][0].calls


@pytest.mark.parametrize("name", STREAMS)
@given(point=st.integers(0, 10_000))
def test_law_05_an_answer_that_breaks_off_is_forgotten(name: str, point: int) -> None:
    """As the relay ends it: with an error event.  Another may follow it, and the client sees that one alone."""
    dialect, stream = STREAMS[name]
    client = Client()
    sink = held(dialect, client, lambda sink: False)
    last = dialect.error_event(_info())
    pieces = [stream[: point % (stream.rindex(b"data:") + 1)], last]
    framed = pieces[0][: pieces[0].rfind(b"\n\n") + 2] if b"\n\n" in pieces[0] else b""
    give(sink, [framed, last])
    assert not client.started and not sink.kept and sink.size == 0
    give(sink, [stream])
    assert (client.body, client.finished) == (stream, True)


def _info() -> Any:
    from engines.errors import TruncatedAnswer
    from proxy.errors import failure_info

    return failure_info(TruncatedAnswer("the stream ended without its terminal event"))


@given(
    text=st.text(max_size=200),
    spaces=st.integers(0, 3),
    limit=st.integers(0, 600),
    late=st.booleans(),
    keep=st.booleans(),
)
def test_law_07_a_whole_answer_goes_out_byte_for_byte(
    text: str, spaces: int, limit: int, late: bool, keep: bool
) -> None:
    for dialect, made in ((openai.DIALECT, completion(text)), (anthropic.DIALECT, message(text))):
        body = json.dumps(made, separators=("," + " " * spaces, ":")).encode()
        client = Client()
        sink = held(dialect, client, lambda sink, keep=keep: keep, limit)  # type: ignore[misc]
        if late:
            sink.on_deadline(9.0)
        sink.whole(200, HEAD, body)
        if sink.kept:
            assert not client.started
            assert [one.text for one in sink.reader.said()] == ([text] if text else [""])
            sink.release()
        assert (client.body, client.finished) == (body, True)


# --- schemas ------------------------------------------------------------------------------------------------

scalars = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=4))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


def schema_of(value: Any) -> dict[str, Any]:
    """A schema that a value fits, and hardly another one."""
    match value:
        case None:
            return {"type": "null"}
        case bool():
            return {"type": "boolean", "const": value}
        case int():
            return {"type": "integer", "minimum": value, "maximum": value}
        case str():
            return {"type": "string", "minLength": len(value), "maxLength": len(value)}
        case list():
            return {
                "type": "array",
                "prefixItems": [schema_of(one) for one in value],
                "items": False,
                "minItems": len(value),
            }
        case _:
            parts = {name: schema_of(one) for name, one in value.items()}
            return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}


def shape(value: Any) -> Any:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return ["list", *map(shape, value)]
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    return repr(value)


@given(one=values, other=values)
def test_a_value_fits_its_own_schema_and_no_other(one: Any, other: Any) -> None:
    assert fits(schema_of(one), one) is True
    assert fits(schema_of(one), other) is (shape(one) == shape(other) and _kinds(one) == _kinds(other))
    assert fits({"anyOf": [schema_of(other), schema_of(one)]}, one) is True
    assert fits({"not": schema_of(one)}, one) is False


def _kinds(value: Any) -> Any:
    if isinstance(value, list):
        return [_kinds(one) for one in value]
    if isinstance(value, dict):
        return {name: _kinds(one) for name, one in value.items()}
    return type(value).__name__


@given(schema=values, value=values)
def test_any_schema_is_looked_at_without_failing(schema: Any, value: Any) -> None:
    assert fits(schema, value) in (True, False, None)
