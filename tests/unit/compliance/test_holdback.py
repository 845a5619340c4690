"""Text that is held back until it is decided: masks, pseudonyms turned back, bounds, and JSON that stays JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from held import guard, held_back, pieces_of

from compliance.detectors.model import Span
from compliance.holdback import CONTEXT, MAX_HELD, MAX_LANES, STRIDE, Guard, Holdback
from compliance.lane_text import mask_of

SSN = "078-05-1120"
NAMES = {"[NAME_k7f2]": 'Zoë "Q" O\'Hara', "[SSN_abcd]": SSN, "[NAME_2345]": "Ann\nLee"}


def one(text: str, **options: Any) -> str:
    """What a text becomes that comes in single characters, and that it is the same in one piece."""
    guarded = options.pop("guarded", guard())
    original = options.pop("original", None)
    out, _, _ = held_back(text, guarded, original, **options)
    assert held_back([text], guarded, original, **options)[0] == out
    return out


@pytest.mark.parametrize(
    ("text", "out"),
    [
        (f"SSN {SSN}.", "SSN [SSN]."),
        (f"{SSN}", "[SSN]"),
        (f"{SSN} and {SSN}, {SSN}", "[SSN] and [SSN], [SSN]"),
        ("card 4111 1111 1111 1111 and on", "card [CARD] and on"),
        ("mail a.b@example.org, or b@example.org", "mail [EMAIL], or [EMAIL]"),
        ("call (555) 234-5678 ext. 12 now", "call [PHONE] now"),
        ("no identifier: 12 apples, 3.5 and 1,000", "no identifier: 12 apples, 3.5 and 1,000"),
        ("", ""),
        ("０７８－０５－１１２０ is one", "[SSN] is one"),
    ],
)
def test_masks(text: str, out: str) -> None:
    assert one(text) == out


def test_kinds_that_may_pass_do_and_are_counted() -> None:
    out, holdback, _ = held_back(f"{SSN} a@example.org a@example.com", guard(allowed=["email"]))
    assert out == "[SSN] a@example.org a@example.com"
    assert {(f.type, f.path, f.end) for f in holdback.findings()} == {("ssn", "text", 1), ("email", "text", 2)}


def test_names_are_masked_under_health_context_only() -> None:
    text = "The patient is Alma Verhoeven and she is doing well today, as far as anybody can say at this early time."
    assert one(text) == text
    assert one(text, guarded=guard(health=True)) == text.replace("Alma Verhoeven", "[NAME]")


def test_what_is_closed_is_not_held() -> None:
    holdback = Holdback(guard(), None)
    end = holdback.feed("lane", "Nothing of this is anybody's, and so it goes out: ")
    assert holdback.ready("lane") == end
    holdback.feed("lane", "078-05-")
    assert holdback.ready("lane") <= end
    holdback.feed("lane", "1120, which ends it. ")
    assert holdback.ready("lane") > end + 11


@pytest.mark.parametrize("kind", ["ssn", "mrn"])
def test_an_answer_stops_before_the_identifier(kind: str) -> None:
    text = {"ssn": f"It is {SSN}, and", "mrn": "MRN: 83920174 is hers."}[kind]
    for pieces in (list(text), [text]):
        out, holdback, _ = held_back(pieces, guard(stops=True))
        assert holdback.stopped == kind
        assert not any(c.isdigit() for c in out)
        assert [finding.type for finding in holdback.findings()] == [kind]


# --- pseudonyms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [None, guard(), guard(health=True), guard(stops=True)])
def test_pseudonyms_are_turned_back_and_nothing_else(guarded: Guard | None) -> None:
    text = "Dear [NAME_k7f2], MRN: [SSN_abcd] [NAME_zzzz] [x] [[NAME_2345]] [NAME_ [1]."
    out, holdback, _ = held_back(text, guarded, NAMES.get)
    assert out == f'Dear Zoë "Q" O\'Hara, MRN: {SSN} [NAME_zzzz] [x] [Ann\nLee] [NAME_ [1].'
    assert held_back([text], guarded, NAMES.get)[0] == out
    assert holdback.findings() == () and holdback.stopped == ""


@pytest.mark.parametrize("guarded", [None, guard()])
def test_pseudonyms_in_arguments_are_escaped(guarded: Guard | None) -> None:
    value = {"to": "[NAME_k7f2]", "[SSN_abcd]": ["[NAME_2345] [NAME_zzzz]", 1], "ssn": "[SSN_abcd]"}
    for text in (json.dumps(value), json.dumps(value).replace("[NAME", "\\u005bNAME")):
        out, holdback, _ = held_back(text, guarded, NAMES.get, json=True)
        assert json.loads(out) == {
            "to": NAMES["[NAME_k7f2]"], SSN: ["Ann\nLee [NAME_zzzz]", 1], "ssn": SSN,
        }  # fmt: skip
        assert holdback.findings() == ()


def test_turning_back_alone_holds_only_what_begins_a_pseudonym() -> None:
    _, holdback, out = held_back(["a 078-05", "-1120 [", "1] [NA", "ME_k7", "f2] x"], None, NAMES.get)
    assert out == ["a 078-05", "-1120 [", '1] Zoë "Q" O\'Hara', "", " x"]
    assert holdback.held_most < 12


def test_what_passes_is_counted_without_what_was_turned_back() -> None:
    seen: list[tuple[str, str]] = []
    holdback = Holdback(None, NAMES.get, lambda name, text: seen.append((name, text)))
    for piece in ("ssn [SSN_", "abcd] and 123"):
        holdback.feed("0/content", piece)
    holdback.flush("0/content")
    assert "".join(text for _, text in seen) == "ssn xxxxxxxxxx and 123"


# --- JSON --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ({"ssn": SSN}, {"ssn": "[SSN]"}),
        ({"ssn": 78051120, "x": 1}, {"ssn": 78051120, "x": 1}),
        ({"ssn": 123456789, "x": [1, 2.5e3, True, None]}, {"ssn": "[SSN]", "x": [1, 2.5e3, True, None]}),
        ({"a": f'say "{SSN}" \\ \n to 🙂'}, {"a": 'say "[SSN]" \\ \n to 🙂'}),
        ({"a": ["x", f"{SSN} {SSN}"], SSN: 1}, {"a": ["x", "[SSN] [SSN]"], "[SSN]": 1}),
        ({"phone": 5552345678}, {"phone": "[PHONE]"}),
        ([SSN, SSN], ["[SSN]", "[SSN]"]),
    ],
)
@pytest.mark.parametrize("ascii", [True, False])
def test_masked_arguments_stay_json(value: Any, masked: Any, ascii: bool) -> None:
    for text in (json.dumps(value, ensure_ascii=ascii), json.dumps(value, ensure_ascii=ascii, indent=2)):
        assert json.loads(one(text, json=True)) == masked


def test_escaped_digits_and_surrogates_are_read() -> None:
    text = '{"a": "\\ud83d\\ude42 \\u0030\\u0037\\u0038-05-1120 \\/ \\\\"}'
    assert json.loads(one(text, json=True)) == {"a": "🙂 [SSN] / \\"}
    assert one('{"a": "\\ud83d x \\', json=True) == '{"a": "\\ud83d x \\'  # cut off by the engine: as it came


def test_arguments_that_are_no_json_are_masked_all_the_same() -> None:
    assert SSN not in one(f"{{ssn: {SSN}", json=True)
    assert SSN not in one(f'"\\x {SSN} "" {SSN}', json=True)


# --- bounds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("json_too", [False, True])
def test_law_10_past_the_bound_the_held_end_is_masked_to_the_end_of_its_word(json_too: bool) -> None:
    token = "Ab1" * MAX_HELD
    text = f'{{"a": "before {token} after", "b": 1}}' if json_too else f"before {token} after"
    out, holdback, _ = held_back(text, guard(), json=json_too)
    assert out == (text.replace(token, "[HELD]"))
    assert holdback.held_most <= MAX_HELD + 2 * STRIDE
    assert ("held", 1) in {(finding.type, finding.end) for finding in holdback.findings()}


def test_law_10_a_bare_number_past_the_bound_becomes_a_string() -> None:
    out, _, _ = held_back('{"a": ' + "1" * 3 * MAX_HELD + ', "b": 1}', guard(), json=True)
    assert json.loads(out) == {"a": "[HELD]", "b": 1}


def test_law_10_at_the_bound_an_answer_that_may_stop_does() -> None:
    _, holdback, _ = held_back("Ab1" * MAX_HELD, guard(stops=True))
    assert holdback.stopped == "held"


def test_law_10_lanes_are_bounded() -> None:
    holdback = Holdback(guard(), None)
    for number in range(MAX_LANES + 1):
        holdback.feed(f"{number}/text", "a ")
    assert holdback.stopped == "scan_failed"


@pytest.mark.parametrize("stops", [False, True])
def test_law_08_what_could_not_be_scanned_does_not_pass(stops: bool) -> None:
    def fails(text: str) -> list[Span] | None:
        return None

    guarded = Guard(fails, len, lambda kind: False, stops)
    out, holdback, _ = held_back("some words, and more", guarded)
    assert "words" not in out and (stops or out)
    assert holdback.stopped == ("scan_failed" if stops else "")


def test_law_08_what_cannot_be_read_stops_unless_the_rules_let_it_pass() -> None:
    for allowed, stopped in (([], "opaque"), (["opaque"], "")):
        holdback = Holdback(guard(allowed=allowed), None)
        holdback.skip("opaque")
        assert holdback.stopped == stopped and holdback.findings()[0].type == "opaque"


def test_a_sealed_lane_gives_out_what_holds_no_number_begun() -> None:
    holdback = Holdback(guard(), None)
    end = holdback.feed("a", "Let me look at it")
    assert holdback.ready("a") < end
    holdback.seal("a")
    assert holdback.ready("a") == end
    more = holdback.feed("a", f" {SSN[:7]}")
    holdback.seal("a")
    assert holdback.ready("a") < more
    holdback.force("a")
    assert holdback.ready("a") == more
    assert holdback.edited("a", end, more, f" {SSN[:7]}") == " [HELD]"


def test_a_label_is_seen_across_what_went_out() -> None:
    text = "Her number: " + " " * 3 + "MRN" + ":" + " 8392" + "0174 and on."
    assert one(text) == text.replace("83920174", "[MRN]")
    filler = "word " * (CONTEXT // 2)
    assert one(f"{filler}MRN: 83920174 {filler}") == f"{filler}MRN: [MRN] {filler}"


def test_masks_need_no_escape() -> None:
    assert (mask_of("uk_nhs"), mask_of('own"kind\n'), mask_of("")) == ("[UK_NHS]", "[OWNKIND]", "[HELD]")


def test_pieces() -> None:
    assert pieces_of("abcd", [1, 3]) == ["a", "bc", "d"]


@pytest.mark.parametrize("json_too", [False, True])
@pytest.mark.parametrize("lines", [2, 25, 50])
def test_a_private_key_is_masked_to_its_end(lines: int, json_too: bool) -> None:
    body = "".join(f"{'MIIEpAIBAAKCAQEA' * 4}\n" for _ in range(lines))
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{body}aB3d+Q==\n-----END RSA PRIVATE KEY-----"
    text = f"It is this:\n{key}\nKeep it. "
    out = one(json.dumps({"a": text}) if json_too else text, json=json_too)
    assert (json.loads(out)["a"] if json_too else out) == "It is this:\n[SECRET]\nKeep it. "
    cut = held_back([text[: len(text) // 2]], guard())[0]
    assert "MIIE" not in cut and "PRIVATE" not in cut
