"""Holds are what the log says: rebuilt from its records in any order, and nothing under one is let go."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests_records import decision, outcome

from compliance.holds import SCOPES, Hold, Holds, holds
from compliance.records import HoldChanged, decode, encode

ids = st.sampled_from(["h1", "h2", "h3", "h4"])
values = st.sampled_from(["a", "b", "c"])
times = st.integers(0, 50)


@st.composite
def changes(draw: st.DrawFn) -> list[HoldChanged]:
    """Holds that are placed once each, and some of them released later."""
    found = []
    for number, hold in enumerate(draw(st.lists(ids, unique=True))):
        scope = draw(st.sampled_from(SCOPES))
        begin = draw(times)
        fields: dict[str, Any] = {
            "scope": scope, "value": "" if scope == "period" else draw(values), "begin": begin if scope == "period" else 0,
            "end": begin + draw(st.integers(1, 20)) if scope == "period" else 0, "reason": "case", "actor": "root", "hold": hold,
        }  # fmt: skip
        found.append(HoldChanged(at=number, change="placed", **fields))
        if draw(st.booleans()):
            found.append(HoldChanged(at=100 + number, change="released", **fields))
    return found


@given(changes(), st.randoms())
def test_law_holds_are_rebuilt_from_the_log_in_any_order(records: list[HoldChanged], dice: Any) -> None:
    among = [*records, decision("r1", at=5), outcome("r1", at=6)]
    shuffled = list(among)
    dice.shuffle(shuffled)
    again = holds([decode(encode(record)) for record in shuffled])
    assert list(again) == list(holds(among))
    released = {record.hold for record in records if record.change == "released"}
    assert {hold.id for hold in again} == {record.hold for record in records} - released
    assert len(again) == len(list(again)) and all(again[hold.id] is hold for hold in again)


@given(changes(), values, values, values, times, st.integers(0, 9))
def test_law_nothing_under_a_hold_is_let_go(
    records: list[HoldChanged], subject: str, tenant: str, request: str, begin: int, length: int
) -> None:
    found = holds(records)
    covering = [hold for hold in found if _covers(hold, subject, tenant, request, begin, begin + length)]
    blocked = found.blocks(subject=subject, tenant=tenant, request=request, span=(begin, begin + length))
    assert blocked == (covering[0] if covering else None)
    record = decision(request, at=begin, tenant=tenant, subject=subject)
    assert (found.blocks_record(record) is not None) == any(
        _covers(hold, subject, tenant, request, begin, begin) for hold in found
    )


def _covers(hold: Hold, subject: str, tenant: str, request: str, first: int, last: int) -> bool:
    if hold.scope == "period":
        return bool(set(range(hold.begin, hold.end)) & set(range(first, last + 1)))
    return {"subject": subject, "tenant": tenant, "request": request}[hold.scope] == hold.value


def test_what_is_not_named_is_not_looked_at() -> None:
    empty = HoldChanged(actor="", at=1, begin=0, change="placed", end=0, hold="h", reason="", scope="tenant", value="")
    assert holds([empty]).blocks(subject="", tenant="", request="") is None
    assert not list(Holds()) and Holds().blocks(tenant="a", span=(0, 10)) is None
