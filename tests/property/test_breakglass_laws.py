"""Whatever records the log holds, a capture is read only by who asked, in time, and with another operator's signature."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from compliance.breakglass import LAPSE, LONGEST, UNINTRODUCED, Glass, public_hex, signed, statement, valid
from compliance.records import BreakGlass, Operator, decode, encode

NAMES = ["ann", "bob", "cy", "dee", "eve"]
KEYS = {name: Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number, name in enumerate(NAMES)}
MINUTE = 60_000_000


def operator(name: str, by: str = "", *, at: int = 0, change: str = "added", signer: str | None = None) -> Operator:
    record = Operator(
        actor="root", at=at, by=by, change=change, public_key=public_hex(KEYS[name]), name=name, signature=""
    )
    return signed(record, KEYS[signer or by or name])


def step(
    what: str, by: str, *, at: int, opening: str = "o1", seconds: int = 600, until: int = 0, signer: str | None = None
) -> BreakGlass:
    record = BreakGlass(
        actor="root", at=at, by=by, opening=opening, reason="because", request="r1", seconds=seconds, signature="", step=what,
        until=until, why="",
    )  # fmt: skip
    return signed(record, KEYS[signer or by])


def approved(by: str = "bob", asker: str = "ann") -> list[Any]:
    return [
        operator("ann"), operator("bob"), operator("cy"), step("asked", asker, at=10), step("approved", by, at=20, until=20 + 10 * MINUTE),
    ]  # fmt: skip


def test_who_asked_reads_once_another_one_has_approved_and_until_the_time_is_over() -> None:
    glass = Glass(approved())
    assert glass.why_not_read("o1", "ann", 30) == ""
    assert glass.why_not_read("o1", "ann", 20 + 10 * MINUTE) == "it is expired"
    assert glass.why_not_read("o1", "bob", 30) == "only who asked may read"
    assert glass.why_not_read("o2", "ann", 30) == "there is no such request"
    assert Glass(approved(by="ann")).why_not_read("o1", "ann", 30) == "it is waiting"  # nobody approves his own
    assert Glass(approved()[:4]).why_not_approve("o1", "cy", 10 + LAPSE) == "it is expired"


def test_what_was_declined_stays_so_and_a_removed_approver_takes_his_word_along() -> None:
    declined = [*approved()[:4], step("declined", "cy", at=15), approved()[4]]
    assert Glass(declined).why_not_read("o1", "ann", 30) == "it is declined"
    removed = [*approved(), operator("bob", "cy", at=25, change="removed")]
    assert Glass(removed).why_not_read("o1", "ann", 30) == "who approved it is no operator any more"
    assert "choose another name" in Glass(removed).why_not_add("bob", "ann")


def test_nobody_approves_for_his_own_introducer_however_long_the_chain() -> None:
    records = [operator("ann"), operator("bob"), operator("cy"), operator("dee", "ann"), operator("eve", "dee")]
    for approver in ("dee", "eve"):
        glass = Glass([*records, step("asked", "ann", at=10)])
        assert "introduced by 'ann'" in glass.why_not_approve("o1", approver, 20)
        assert Glass([*records, step("asked", "bob", at=10)]).why_not_approve("o1", approver, 20) == ""
    gone = [*records, operator("dee", "ann", change="removed"), step("asked", "ann", at=10)]
    assert "introduced by 'ann'" in Glass(gone).why_not_approve("o1", "eve", 20)  # the chain outlives its links


def test_the_first_three_need_no_introducer_and_no_more_than_three_do_without() -> None:
    records = [operator(name) for name in NAMES]
    assert list(Glass(records).operators) == NAMES[:UNINTRODUCED]
    assert "introduced by one of them" in Glass(records[:3]).why_not_add("dee", "")
    assert Glass([*records[:3], operator("dee", "bob")]).operators["dee"].by == "bob"
    forged = operator("dee", "bob", signer="dee")  # says that bob introduced it, and signs itself
    assert "dee" not in Glass([*records[:3], forged]).operators


fields = st.sampled_from(["step", "opening", "request", "reason", "by", "seconds", "until", "signature"])


@given(fields, st.integers(0, 4))
def test_a_changed_record_counts_for_nothing(field: str, which: int) -> None:
    records = approved()
    broken = records[which]
    if not hasattr(broken, field):
        field = {"step": "change", "opening": "name"}.get(field, "public_key")
    was = getattr(broken, field)
    changed: Any = was + 1 if isinstance(was, int) else "00" * 64 if field in ("signature", "public_key") else f"{was}x"
    records[which] = replace(broken, **{field: changed})
    glass = Glass(records)
    if which == 2:  # cy took no part
        assert glass.why_not_read("o1", "ann", 30) == ""
    else:
        assert glass.why_not_read("o1", "ann", 30) != ""


moves = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(NAMES), st.sampled_from(["", *NAMES]), st.booleans()),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.sampled_from(["asked", "approved", "declined", "read"]), st.sampled_from(NAMES), st.sampled_from(["o1", "o2"]), st.booleans()),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.tuples(moves, st.integers(0, 20 * MINUTE)), max_size=25), st.integers(0, 40 * MINUTE))
def test_law_reading_takes_two_keys_whatever_was_recorded(script: list[tuple], later: int) -> None:
    """A model that is told every rightly signed record in order agrees on who may read; and two keys took part."""
    at, records = 0, []
    for (what, one, other, right), pause in script:
        at += pause
        if what in ("add", "remove"):
            signer = None if right else "eve"
            records.append(operator(one, other, at=at, change="added" if what == "add" else "removed", signer=signer))
        else:
            until = at + 10 * MINUTE if what == "approved" else 0
            records.append(step(what, one, at=at, opening=other, until=until, signer=None if right else "eve"))
    glass, now = Glass([decode(encode(record)) for record in records]), at + later
    for opening in ("o1", "o2"):
        for name in NAMES:
            if glass.why_not_read(opening, name, now):
                continue
            asked = [
                r
                for r in records
                if isinstance(r, BreakGlass) and r.step == "asked" and r.opening == opening and r.by == name
            ]
            said = [
                r
                for r in records
                if isinstance(r, BreakGlass) and r.step == "approved" and r.opening == opening and r.by != name
            ]
            assert any(valid(record, public_hex(KEYS[name])) for record in asked)
            fresh = [record for record in said if valid(record, public_hex(KEYS[record.by])) and record.until > now]
            assert fresh and {record.by for record in fresh} <= set(glass.operators) | set(NAMES)
            assert glass.openings[opening].approver in glass.operators and glass.openings[opening].approver != name


@given(st.integers(-10, 2 * LONGEST))
def test_an_approval_lasts_no_longer_than_what_was_asked_for(seconds: int) -> None:
    records = [*approved()[:3], step("asked", "ann", at=10, seconds=seconds)]
    glass = Glass(records)
    assert bool(glass.why_not_ask("ann", seconds)) == (not 0 < seconds <= LONGEST)
    longer = step("approved", "bob", at=20, seconds=seconds, until=20 + (max(seconds, 1) + 61) * 1_000_000)
    assert Glass([*records, longer]).why_not_read("o1", "ann", 30) != ""


def test_statements_of_different_steps_differ() -> None:
    said = [
        statement(step(what, "ann", at=1)) for what in ("asked", "approved", "declined", "read", "denied", "expired")
    ]
    assert len(set(said)) == 6
