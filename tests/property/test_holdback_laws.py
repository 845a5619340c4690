"""Laws 1, 5, 7 and 8 of answers that are held back: however a stream is cut, the same goes out, and no part of an
identifier with it; what did not change keeps its bytes; and what the engine can say, known or not, is looked at."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from held import SCANNER, guard, held_back, pieces_of
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import ANTHROPIC_TOOLS, LLAMACPP, OPENAI_TOOLS, VLLM, VLLM_CONTINUOUS_USAGE

from compliance.holdback import Guard
from engines import anthropic, openai
from engines.base import Dialect
from engines.errors import AnswerBlocked
from engines.field_kinds import ANSWERS, FieldKind, planted, stream
from engines.model import Operation, Request
from proxy.holding import MAX_EVENTS, SEALED_AFTER, Answering
from proxy.session import StreamSession, WholeSession

DIALECTS: dict[str, Dialect] = {"openai": openai.DIALECT, "anthropic": anthropic.DIALECT}
IDENTIFIERS = {
    "ssn": "078-05-1120", "card": "4111 1111 1111 1111", "email": "ann.b@example.org", "phone": "(555) 234-5678", "mrn": "MRN: 83920174",
    "iban": "DE89 3704 0044 0532 0130 00", "secret": "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "address": "12 Main Street, Springfield, IL 62701",
    "url": "https://example.org/p/83920174", "date": "March 5, 2021",
}  # fmt: skip
"""Each with the digits or letters that must not be seen."""
WORDS = st.lists(
    st.sampled_from(
        ["the", "plan", "is", "to go", "naïve", "🙂", "and,", "then.", "A", "12", "x1", '"', "\\", "\n", "日本"]
    ),
    max_size=8,
)
MANY_CUTS = st.lists(st.integers(0, 10_000), max_size=60)
ORIGINALS = {"[NAME_k7f2]": 'Zoë "Q" O\'Hara', "[SSN_abcd]": "219-09-9999"}


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """(text, the identifiers in it), apart from one another."""
    parts: list[str] = []
    kinds = draw(st.lists(st.sampled_from(sorted(IDENTIFIERS)), max_size=4))
    for kind in kinds:
        parts += [*draw(WORDS), "which is", IDENTIFIERS[kind], ";"]
    return " ".join([*parts, *draw(WORDS)]), [IDENTIFIERS[kind] for kind in kinds]


def runs_of(identifier: str) -> list[str]:
    """Parts of an identifier that nothing else of these texts holds."""
    size = 6
    return [
        identifier[at : at + size]
        for at in range(len(identifier) - size + 1)
        if sum(c.isdigit() for c in identifier[at : at + size]) > 2
    ]


@given(case=texts(), cuts=MANY_CUTS, health=st.booleans())
def test_any_cutting_of_a_text_gives_the_same_and_no_part_of_an_identifier(
    case: tuple[str, list[str]], cuts: list[int], health: bool
) -> None:
    text, identifiers = case
    whole, _, _ = held_back([text], guard(health=health))
    out, holdback, _ = held_back(pieces_of(text, cuts), guard(health=health))
    assert out == whole
    for identifier in identifiers:
        assert not [run for run in runs_of(identifier) if run in out]
    if not identifiers and not health:
        assert out == text
    assert holdback.stopped == ""
    assert not [
        span for span in SCANNER.spans(out, health=health) if span.type in ("ssn", "card", "iban", "email", "phone")
    ]


@given(case=texts(), cuts=MANY_CUTS, ascii=st.booleans())
def test_masked_arguments_parse_however_they_are_cut(case: tuple[str, list[str]], cuts: list[int], ascii: bool) -> None:
    text, identifiers = case
    value = {
        "note": text,
        "list": [text[:40], 12, None],
        "number": 5552345678 if identifiers else 1,
        "nested": {"a": {"b": text}},
    }
    raw = json.dumps(value, ensure_ascii=ascii)
    out, _, _ = held_back(pieces_of(raw, cuts), guard(), json=True)
    assert out == held_back([raw], guard(), json=True)[0]
    masked = json.loads(out)
    assert masked.keys() == value.keys() and isinstance(masked["list"], list)
    for identifier in identifiers:
        assert not [run for run in runs_of(identifier) if run in masked["note"]]
    if not identifiers:
        assert out == raw


@given(case=texts(), cuts=MANY_CUTS, guarded=st.sampled_from([None, guard()]), json_too=st.booleans())
def test_pseudonyms_come_back_however_they_are_cut(
    case: tuple[str, list[str]], cuts: list[int], guarded: Guard | None, json_too: bool
) -> None:
    plain = case[0].replace("[", "(")
    text = f"{plain} [NAME_k7f2] {plain} [SSN_abcd], [NAME_zzzz] end"
    raw = json.dumps({"a": text}) if json_too else text
    out, _, _ = held_back(pieces_of(raw, cuts), guarded, ORIGINALS.get, json=json_too)
    said = json.loads(out)["a"] if json_too else out
    assert said.count(ORIGINALS["[NAME_k7f2]"]) == said.count(ORIGINALS["[SSN_abcd]"]) == said.count("[NAME_zzzz]") == 1
    if guarded is None:
        assert said == text.replace("[NAME_k7f2]", ORIGINALS["[NAME_k7f2]"]).replace(
            "[SSN_abcd]", ORIGINALS["[SSN_abcd]"]
        )


# --- whole streams -----------------------------------------------------------------------------------------------


def request(dialect: str, **more: Any) -> Request:
    body = {"model": "mine", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hi"}], **more}
    return DIALECTS[dialect].parse(Operation.CHAT, json.dumps(body).encode(), {})


def passed(stream: Sequence[bytes], client: str, engine: str, answering: Answering) -> tuple[bytes, StreamSession]:
    session = StreamSession(
        request(client, stream_options={"include_usage": True}) if client == "openai" else request(client),
        DIALECTS[client], DIALECTS[engine], answer_id="1", created=1, restore_model=False, strip_usage=False, answering=answering,
    )  # fmt: skip
    out = b""
    for piece in stream:
        out += session.feed(piece)
        if session.error is not None:
            break
    return out + session.end(), session


RECORDED = {
    "llama.cpp": ("openai", LLAMACPP), "vllm": ("openai", VLLM), "vllm continuous usage": ("openai", VLLM_CONTINUOUS_USAGE),
    "openai tools": ("openai", OPENAI_TOOLS), "anthropic tools": ("anthropic", ANTHROPIC_TOOLS),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("how", ["mask", "stop", "restore"])
@settings(max_examples=10)
@given(cuts=MANY_CUTS)
def test_law_07_streams_without_identifiers_keep_their_bytes(name: str, how: str, cuts: list[int]) -> None:
    engine, recorded = RECORDED[name]
    answering = Answering(None if how == "restore" else guard(stops=how == "stop"), ORIGINALS.get)
    points = sorted({0, len(recorded), *(cut % len(recorded) for cut in cuts)})
    out, session = passed([recorded[a:b] for a, b in itertools.pairwise(points)], engine, engine, answering)
    assert out == recorded
    assert session.done and session.error is None and session.usage is not None and session.findings() == ()


def openai_stream(rows: Sequence[tuple[int, dict[str, Any]]], choices: int, **more: Any) -> list[bytes]:
    def event(choice: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        row = {"index": choice, "delta": delta, "finish_reason": finish, **(more if delta else {})}
        return b"data: " + json.dumps({"id": "1", "model": "m", "created": 1, "choices": [row]}).encode() + b"\n\n"

    done = [event(choice, {}, "stop") for choice in range(choices)]
    return [*(event(choice, delta) for choice, delta in rows), *done, b"data: [DONE]\n\n"]


def anthropic_stream(blocks: Sequence[tuple[dict[str, Any], list[dict[str, Any]]]]) -> list[bytes]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    rows: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage},
        }
    ]
    for index, (block, deltas) in enumerate(blocks):
        rows.append({"type": "content_block_start", "index": index, "content_block": block})
        rows += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        rows.append({"type": "content_block_stop", "index": index})
    rows.append(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        }
    )
    rows.append({"type": "message_stop"})
    return [f"event: {row['type']}\ndata: {json.dumps(row)}\n\n".encode() for row in rows]


def rows_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]


def said(client: str, body: bytes) -> dict[str, str]:
    """What a reader puts together, by part."""
    parts: dict[str, str] = {}

    def add(name: str, text: str | None) -> None:
        parts[name] = parts.get(name, "") + (text or "")

    for row in rows_of(body):
        if client == "anthropic":
            delta, block = row.get("delta", {}), row.get("content_block", {})
            add("0/text", delta.get("text") or block.get("text"))
            add("0/reasoning", delta.get("thinking"))
            if "partial_json" in delta:
                add(f"0/call/{row['index']}", delta["partial_json"])
            continue
        for choice in row.get("choices", []):
            delta = choice["delta"]
            add(f"{choice['index']}/text", delta.get("content"))
            add(f"{choice['index']}/reasoning", delta.get("reasoning_content"))
            for call in delta.get("tool_calls", []):
                add(f"{choice['index']}/call/{call['index']}", call["function"].get("arguments"))
    return {name: text for name, text in parts.items() if text}


TEXT = "Sure: SSN 078-05-1120, MRN: 83920174; then (555) 234-5678 or mail ann.b@example.org. Fine."
OUT = "Sure: SSN [SSN], MRN: [MRN]; then [PHONE] or mail [EMAIL]. Fine."
ARGUMENTS = json.dumps({"ssn": "078-05-1120", "n": 12345, "q": 'a "b" \u00e9', "phone": 5552345678})
DIGITS = (b"1120", b"8392", b"0174", b"5678", b"ann.b")


@settings(max_examples=6)
@given(data=st.data())
def test_interleaved_choices_and_parallel_calls_in_openais_dialect(data: st.DataObject) -> None:
    """Choices and tool calls come in any order of pieces; each is put together as if it had come alone."""
    lanes: dict[tuple[int, str], list[str]] = {}
    for choice in range(2):
        for part, text in (("content", TEXT), ("reasoning_content", TEXT), ("0", ARGUMENTS), ("1", ARGUMENTS)):
            lanes[choice, part] = pieces_of(text, data.draw(st.lists(st.integers(0, 200), max_size=4)))
    order = data.draw(st.permutations([key for key, pieces in lanes.items() for _ in pieces]))
    rows: list[tuple[int, dict[str, Any]]] = []
    for choice, part in order:
        piece = lanes[choice, part].pop(0)
        if part.isdigit():
            call = {
                "index": int(part),
                "id": f"c{part}",
                "type": "function",
                "function": {"name": "f", "arguments": piece},
            }
            rows.append((choice, {"tool_calls": [call]}))
        else:
            rows.append((choice, {part: piece}))
    out, session = passed(openai_stream(rows, 2), "openai", "openai", Answering(guard()))
    assert session.error is None and session.done
    assert not [digits for digits in DIGITS if digits in out]
    parts = said("openai", out)
    for choice in range(2):
        assert parts[f"{choice}/text"] == parts[f"{choice}/reasoning"] == OUT
        for call in range(2):
            assert json.loads(parts[f"{choice}/call/{call}"]) == {
                "ssn": "[SSN]",
                "n": 12345,
                "q": 'a "b" \u00e9',
                "phone": "[PHONE]",
            }


@pytest.mark.parametrize("client", DIALECTS)
@settings(max_examples=8)
@given(cuts=st.tuples(MANY_CUTS, MANY_CUTS, MANY_CUTS))
def test_blocks_of_anthropics_dialect(client: str, cuts: tuple[list[int], list[int], list[int]]) -> None:
    thinking, text, arguments = [pieces_of(part, at) for part, at in zip((TEXT, TEXT, ARGUMENTS), cuts, strict=True)]
    stream = anthropic_stream(
        [
            (
                {"type": "thinking", "thinking": "", "signature": ""},
                [{"type": "thinking_delta", "thinking": piece} for piece in thinking],
            ),
            ({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in text]),
            (
                {"type": "tool_use", "id": "t", "name": "f", "input": {}},
                [{"type": "input_json_delta", "partial_json": piece} for piece in arguments],
            ),
        ]
    )
    out, session = passed(stream, client, "anthropic", Answering(guard()))
    assert session.error is None and session.done
    assert not [digits for digits in DIGITS if digits in out]
    parts = said(client, out)
    assert parts["0/text"] == parts["0/reasoning"] == OUT
    (call,) = [text for name, text in parts.items() if "call" in name]
    assert json.loads(call)["ssn"] == "[SSN]" and json.loads(call)["phone"] == "[PHONE]"


@pytest.mark.parametrize(("client", "engine"), [(c, e) for c in DIALECTS for e in DIALECTS])
@pytest.mark.parametrize("stops", [False, True])
def test_every_cut_point_of_a_streamed_answer(client: str, engine: str, stops: bool) -> None:
    """The text in two deltas, cut at each of its characters."""
    for cut in range(len(TEXT) + 1):
        parts = [TEXT[:cut], TEXT[cut:]]
        if engine == "openai":
            stream = openai_stream([(0, {"content": part}) for part in parts], 1)
        else:
            stream = anthropic_stream(
                [({"type": "text", "text": ""}, [{"type": "text_delta", "text": part} for part in parts])]
            )
        out, session = passed(stream, client, engine, Answering(guard(stops=stops)))
        assert not [digits for digits in DIGITS if digits in out], cut
        if stops:
            assert isinstance(session.error, AnswerBlocked) and "Sure: SSN ".startswith(
                said(client, out).get("0/text", "")
            )
        else:
            assert said(client, out)["0/text"] == OUT and session.error is None


@pytest.mark.parametrize(("client", "engine"), [(c, e) for c in DIALECTS for e in DIALECTS])
@given(point=st.integers(0, 5000))
def test_law_05_a_stream_cut_off_anywhere_gives_out_no_part_of_an_identifier(
    client: str, engine: str, point: int
) -> None:
    pieces = list(TEXT)
    if engine == "openai":
        stream = b"".join(openai_stream([(0, {"content": piece}) for piece in pieces], 1))
    else:
        stream = b"".join(
            anthropic_stream([({"type": "text", "text": ""}, [{"type": "text_delta", "text": p} for p in pieces])])
        )
    out, session = passed([stream[: point % (len(stream) - 2)]], client, engine, Answering(guard()))
    assert session.error is not None and not session.done
    text = said(client, out).get("0/text", "")
    assert OUT.startswith(text)


# --- what a dialect can say --------------------------------------------------------------------------------------

KINDS = [
    pytest.param(dialect, kind, id=f"{dialect}-{kind.name}")
    for (dialect, operation), kinds in ANSWERS.items()
    for kind in kinds
    if operation is Operation.CHAT and kind.speaks
]


@pytest.mark.parametrize(("dialect", "kind"), KINDS)
@pytest.mark.parametrize("stops", [False, True])
def test_law_08_every_kind_of_field_of_an_answer_is_looked_at(dialect: str, kind: FieldKind, stops: bool) -> None:
    ssn = "078-05-1120"
    answering = Answering(guard(stops=stops))
    if kind.events:
        out, session = passed([stream(kind, f" {ssn} ")], dialect, dialect, answering)
        assert ssn.encode() not in out
        assert session.findings() and (stops <= (session.error is not None))
    if kind.body is not None:
        whole = WholeSession(
            request(dialect, stream=False), DIALECTS[dialect], DIALECTS[dialect], answer_id="1", created=1, restore_model=False,
            limit=1 << 20, answering=answering,
        )  # fmt: skip
        whole.feed(json.dumps(planted(kind.body, f" {ssn} ")).encode())
        body = whole.end()
        assert ssn.encode() not in body
        assert whole.findings() and (stops <= (whole.error is not None))
        assert not body or json.loads(body)


def test_tokens_that_repeat_a_masked_text_are_taken_out() -> None:
    def logprobs(text: str) -> dict[str, Any]:
        return {"content": [{"token": text, "logprob": -1.0, "bytes": list(text.encode()), "top_logprobs": []}]}

    pieces = ["Fine. ", "It is ", "078-05", "-1120 ", "and ", "so ", "on."]
    rows = []
    for piece in pieces:
        (row,) = openai_stream([(0, {"content": piece})], 0, logprobs=logprobs(piece))[:1]
        rows.append(row)
    elsewhere = openai_stream([(0, {"content": "x "})], 0, logprobs=logprobs("078-05-1120"), token_ids=[1, 2])[:1]
    out, session = passed([*rows, *elsewhere, *openai_stream([], 1)], "openai", "openai", Answering(guard()))
    assert session.error is None
    assert b"1120" not in out and str(list(b"1120"))[1:-1].encode() not in out
    assert rows[0] in out and rows[-1] in out and rows[2] not in out
    assert elsewhere[0] not in out and out.count(b"null") >= 4


@pytest.mark.parametrize("name", ["comment", "odd lines", "id"])
def test_law_08_what_stands_beside_an_events_data_is_looked_at(name: str) -> None:
    data = openai_stream([(0, {"content": "Fine. "})], 1)
    odd = {
        "comment": b": it is 078-05-1120\n\n",
        "odd lines": b": 078-05-1120\n" + data[0],
        "id": b"id: 078-05-1120\n" + data[0],
    }[name]
    out, session = passed([data[0], odd, *data[1:]], "openai", "openai", Answering(guard()))
    assert b"1120" not in out and session.error is None


@pytest.mark.parametrize("level", ["event", "choice", "delta", "unknown"])
def test_law_08_names_of_members_are_looked_at(level: str) -> None:
    key = {"Her SSN is 078-05-1120": 1}
    delta = {
        "content": "Fine. ",
        **(key if level == "delta" else {}),
        **({"x": [{"y": key}]} if level == "unknown" else {}),
    }
    choice = {"index": 0, "delta": delta, "finish_reason": None, **(key if level == "choice" else {})}
    event = {"id": "1", "choices": [choice], **(key if level == "event" else {})}
    stream = [b"data: %b\n\n" % json.dumps(event).encode(), *openai_stream([], 1)]
    out, session = passed(stream, "openai", "openai", Answering(guard()))
    assert b"1120" not in out
    assert (session.error is not None) == (level == "event")


def test_law_08_a_key_that_stands_twice_is_no_answer() -> None:
    event = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"078-05-1120 ","content":"x "}}]}\n\n'
    out, session = passed([event, *openai_stream([], 1)], "openai", "openai", Answering(guard()))
    assert b"1120" not in out and session.error is not None


def test_law_10_the_queue_is_bounded() -> None:
    """One choice waits for the end of an identifier; the others go on for ever."""
    rows = [
        (0, {"content": "078-05"}),
        *((1, {"content": "on and "}) for _ in range(MAX_EVENTS + 10)),
        (0, {"content": "-1120 x"}),
    ]
    out, session = passed(openai_stream(rows, 2), "openai", "openai", Answering(guard()))
    assert session.error is None and b"1120" not in out and b"078" not in out
    assert session._holding is not None and session._holding.most_events <= MAX_EVENTS + 1
    assert said("openai", out)["0/text"].startswith("[HELD]")


def test_what_is_over_does_not_keep_waiting_what_comes_after() -> None:
    """Reasoning ends in a word that could go on; the text behind it does not wait for the answer's end."""
    rows = [
        (0, {"reasoning_content": "So I will look"}),
        *((0, {"content": "on and "}) for _ in range(SEALED_AFTER + 4)),
    ]
    stream = openai_stream(rows, 1)
    out, _ = passed(stream[: len(rows)], "openai", "openai", Answering(guard()))
    assert out.startswith(b"".join(stream[: SEALED_AFTER - 2]))
    assert passed(stream, "openai", "openai", Answering(guard()))[0] == b"".join(stream)


def whole(dialect: str, client: str, body: bytes, answering: Answering) -> tuple[bytes, WholeSession]:
    session = WholeSession(
        request(client, stream=False), DIALECTS[client], DIALECTS[dialect], answer_id="1", created=1, restore_model=False,
        limit=1 << 22, answering=answering,
    )  # fmt: skip
    session.feed(body)
    return session.end(), session


@pytest.mark.parametrize("client", DIALECTS)
def test_a_whole_message_is_one_text_over_its_blocks(client: str) -> None:
    content = [
        {"type": "text", "text": "It is 078-05"},
        {"type": "text", "text": "-1120, dear [NAME_k7f2]."},
        {
            "type": "tool_use",
            "id": "t",
            "name": "f",
            "input": {"ssn": 123456789, "to": "[NAME_k7f2]", "x": [1.50, "\u00e9"]},
        },
    ]
    raw = json.dumps(
        {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": content,
            "stop_reason": "tool_use",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
    )
    out, session = whole("anthropic", client, raw.encode(), Answering(guard(), ORIGINALS.get))
    assert session.error is None
    assert b"1120" not in out and b"078" not in out and b"[NAME_" not in out
    if client == "anthropic":
        name = json.dumps(ORIGINALS["[NAME_k7f2]"], ensure_ascii=False)[1:-1]
        expected = (
            raw.replace("078-05", "[SSN]")
            .replace("-1120", "")
            .replace("123456789", '"[SSN]"')
            .replace("[NAME_k7f2]", name)
        )
        assert out.decode() == expected
    else:
        (call,) = json.loads(out)["choices"][0]["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {
            "ssn": "[SSN]",
            "to": ORIGINALS["[NAME_k7f2]"],
            "x": [1.5, "é"],
        }


def test_a_large_answer_is_looked_at_once() -> None:
    text = (TEXT + " And on it goes, for many words. ") * 2000
    body = json.dumps(
        {
            "id": "1",
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        }
    )
    begun = time.process_time()
    out, _ = whole("openai", "openai", body.encode(), Answering(guard()))
    assert time.process_time() - begun < 4  # word by word it takes minutes
    assert json.loads(out)["choices"][0]["message"]["content"] == text.replace(TEXT, OUT)
    streamed, _ = passed(openai_stream([(0, {"content": text})], 1), "openai", "openai", Answering(guard()))
    assert said("openai", streamed)["0/text"] == text.replace(TEXT, OUT)
