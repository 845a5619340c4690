"""Events that differ in their text alone are decoded by their text alone: nothing may tell it from the long way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import ANTHROPIC_TOOLS, LLAMACPP, OPENAI_TOOLS, VLLM, VLLM_CONTINUOUS_USAGE

from compliance.answers import AnswerScanner
from compliance.scan import Scanner
from engines import anthropic, openai
from engines.base import Dialect
from engines.model import Frame, Operation
from proxy.session import StreamSession

DIALECTS: dict[str, Dialect] = {"openai": openai.DIALECT, "anthropic": anthropic.DIALECT}
SCANNER = Scanner()
WORDS = (
    " water", "water", "mine", "", "m", "c", "model", "content", "stop", "text_delta", "message_start", "default", ",", ":", "{", "}", '"', "\\", "a\\", 'a"', '","',
    '"model":"m"', "\n\n", "\r", "\u2028", "\x7f", "\x00", "é", "日本", "🙂", "[DONE]", "data: {}", "078-05-1120", "~", "x" * 1_100,
)  # fmt: skip
RAW = (
    b'"', b"\\", b'\\"', b"\\u00e9", b"\\ud83d\\ude42", b"\\ud83d", b"\\u006d", b"\xff", b"\xed\xa0\x80", b"\n", b"\n\n", b"\r\n\r\n", b"\r", b"\t",
    b'","content":"', b'"},"x":{"y":"', b'"}},{"index":1,"delta":{"content":"', b'","model":"evil', b"", b"a", b"/", b"\\/", b"\\n",
)  # fmt: skip
"""What may stand where a text's bytes stand, JSON or not."""
OPENAI = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"%b"}}],"created":1,"id":"c","model":"m"}\n\n',
    b'data:{"id":"c","choices":[{"delta":{"content":"%b"}}]}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":1,"delta":{"content":"%b"}}]}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":"stop"}]}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"first","content":"%b"}}]}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b","content":"last"}}]}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b","refusal":"no"}}]}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b"}},{"index":1,"delta":{"content":"other"}}]}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n',
    b'data: {"id":"c","model":"m","service_tier":"flex","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n',
    b'data: {"id":"c","model":"m","service_tier":"%b","choices":[{"index":0,"delta":{"content":"water"}}]}\n\n',
    b'data: {"id":"%b","model":"m","choices":[{"index":0,"delta":{"content":"\\u0077ater"}}]}\n\n',
    b'data: {"id":"c","model":"%b","choices":[{"index":0,"delta":{"content":" water"}}]}\n\n',
    b'data: {"id":"c","x":{"model":"a"},"choices":[{"index":0,"delta":{"content":"%b"}}],"model":"m","model":"n"}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"reasoning_content":"%b"}}]}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"%b"}}]}}]}\n\n',
    b'data: {"error":{"message":"%b"}}\n\n',
    b'event: error\ndata: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n',
    b': ping\n\ndata: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n',
    b'data: {"id":"c","model":"m",\ndata: "choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b"}}]}\r\n\r\n',
    b"data: {}\n\n", b"data: [DONE]\n\n", b": ping\n\n", b"\n", b"\r",
)  # fmt: skip
ANTHROPIC = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"},"message":{"model":"x"}}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","text":"%b"}}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"%b","text":"text_delta"}}\n\n',
    b'data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"%b"}}\n\n',
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"%b"}}\n\n',
    b'data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"%b"}}\n\n',
    b'data: {"type":"message_start","message":{"id":"i","model":"%b","usage":{"input_tokens":3}}}\n\n',
    b'data: {"type":"message_delta","delta":{"stop_reason":"%b"},"usage":{"output_tokens":4}}\n\n',
    b'data: {"type":"%b"}\n\n', b'data: {"type":"message_stop"}\n\n', b'data: {"type":"error","error":{"message":"%b"}}\n\n', b"data: [DONE]\n\n",
)  # fmt: skip


HOW: tuple[dict[str, bool], ...] = ({}, {"restore": True}, {"translate": True})


def filled(form: bytes, text: bytes) -> bytes:
    return form.replace(b"%b", text)


INSIDE = st.one_of(
    st.sampled_from(WORDS).map(lambda word: json.dumps(word, ensure_ascii=False).encode()[1:-1]),
    st.sampled_from(WORDS).map(lambda word: json.dumps(word).encode()[1:-1]),
    st.lists(st.sampled_from(RAW), min_size=1, max_size=3).map(b"".join),
)


def pieces_of(forms: Sequence[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Events of one or two forms, as an engine writes them, now and then damaged or cut elsewhere."""
    return st.lists(st.sampled_from(forms), min_size=1, max_size=2).flatmap(_pieces)


def _pieces(forms: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    event = st.builds(filled, st.sampled_from(forms), INSIDE)
    plain = st.builds(filled, st.just(forms[0]), st.sampled_from([b" water", b" more", b"mine"]))
    damaged = st.builds(_damaged, event, st.integers(0, 400), st.binary(max_size=2))
    cut = st.builds(_cut, event, plain, st.integers(0, 400))
    one = st.one_of(*[each.map(lambda piece: [piece]) for each in (plain, event, event, damaged)], cut)
    return st.lists(one, min_size=2, max_size=12).map(lambda runs: [piece for run in runs for piece in run if piece])


def _damaged(event: bytes, at: int, instead: bytes) -> bytes:
    at %= len(event)
    return event[:at] + instead + event[at + 1 :]


def _cut(event: bytes, after: bytes, at: int) -> list[bytes]:
    """A part of an event behind another, and perhaps its rest."""
    at %= len(event)
    return (
        [after + event[:at], after]
        if at % 2
        else [event[:at], after, event[at:]]
        if at % 3
        else [event[:at], event[at:]]
    )


def session_of(
    dialect: Dialect, *, restore: bool = False, translate: bool = False, alike: bool = True
) -> StreamSession:
    body = {"model": "mine", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    client = dialect
    if translate:
        client = openai.DIALECT if dialect is anthropic.DIALECT else anthropic.DIALECT
    session = StreamSession(
        client.parse(Operation.CHAT, json.dumps(body).encode(), {}), client, dialect, answer_id="1", created=1, restore_model=restore,
        strip_usage=True, scan=AnswerScanner(SCANNER),
    )  # fmt: skip
    session.kept = []
    if not alike:
        session._tries = 0
    return session


def said(session: StreamSession, pieces: Iterable[bytes]) -> list[Any]:
    """All that one can see of a session that is fed like this, after every piece."""
    seen: list[Any] = []
    for piece in pieces:
        out = session.feed(piece)
        seen.append((out, session.done, session.committed, session.told, session.usage, repr(session.error)))
        if session.done or session.error is not None:
            break
    seen.append((session.end(), repr(session.error), session.usage, session.usage_final))
    seen.append((session.text_length, "".join(session.kept or ()), session.findings()))
    return seen


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=6 * settings.default.max_examples)
@given(data=st.data(), how=st.sampled_from(HOW))
def test_law_07_no_event_is_read_otherwise_for_being_like_the_one_before(
    name: str, data: st.DataObject, how: dict[str, bool]
) -> None:
    pieces = data.draw(pieces_of(OPENAI if name == "openai" else ANTHROPIC))
    dialect = DIALECTS[name]
    assert said(session_of(dialect, **how), pieces) == said(session_of(dialect, **how, alike=False), pieces)


@pytest.mark.parametrize(
    ("name", "form"), [(n, f) for n, forms in (("openai", OPENAI), ("anthropic", ANTHROPIC)) for f in forms]
)
@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("first", [b" first", b"mine", b"m"])
def test_every_form_with_every_text_after_a_plain_one(
    name: str, form: bytes, how: dict[str, bool], first: bytes
) -> None:
    """What is learned from one event is put to each hostile one next."""
    dialect = DIALECTS[name]
    for text in [json.dumps(word).encode()[1:-1] for word in WORDS] + list(RAW):
        pieces = [filled(form, word) for word in (b" begin", first, text, b" after")]
        quick = said(session_of(dialect, **how), pieces)
        assert quick == said(session_of(dialect, **how, alike=False), pieces), text


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("recorded", [LLAMACPP, VLLM, VLLM_CONTINUOUS_USAGE, OPENAI_TOOLS, ANTHROPIC_TOOLS])
def test_recorded_streams_event_by_event(recorded: bytes, how: dict[str, bool]) -> None:
    dialect = anthropic.DIALECT if recorded is ANTHROPIC_TOOLS else openai.DIALECT
    pieces = [event + b"\n\n" for event in recorded.split(b"\n\n") if event]
    assert said(session_of(dialect, **how), pieces) == said(session_of(dialect, **how, alike=False), pieces)


class _Counting:
    """A decoder that counts what it is given."""

    def __init__(self, session: StreamSession) -> None:
        self._decoder = session._decoder
        self.frames = 0

    def feed(self, frame: Frame) -> Any:
        self.frames += 1
        return self._decoder.feed(frame)


@pytest.mark.parametrize(("name", "form"), [("openai", OPENAI[0]), ("openai", OPENAI[1]), ("anthropic", ANTHROPIC[0])])
@pytest.mark.parametrize("how", HOW, ids=str)
def test_alike_events_are_decoded_by_their_text_alone(name: str, form: bytes, how: dict[str, bool]) -> None:
    session = session_of(DIALECTS[name], **how)
    counting = session._decoder = _Counting(session)
    pieces = [filled(form, b" word%d" % number) for number in range(100)]
    out = b"".join([session.feed(piece) for piece in pieces])
    assert counting.frames <= 3 and session.text_length == sum(len(f" word{number}") for number in range(100))
    if how.get("translate"):
        assert out.count(b" word") == len(pieces)
    else:
        named = b'"mine"' if how.get("restore") and name == "openai" else b'"m"'
        assert out == b"".join(pieces).replace(b'"m"', named)


def test_a_key_that_is_no_text_breaks_no_stream() -> None:
    """Decoders skip what they do not know without a look at it."""
    form = b'data: {"id":"c","\x80odel":"m","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
    session = session_of(openai.DIALECT, restore=True)
    for word in (b" one", b" two"):
        assert session.feed(form % word) == form % word and session.error is None


def test_what_never_comes_again_is_not_learned_for_ever() -> None:
    session = session_of(openai.DIALECT)
    form = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":" water"}}],"obfuscation":"%d"}\n\n'
    for number in range(50):
        session.feed(form % number)
    assert session._tries == 0
