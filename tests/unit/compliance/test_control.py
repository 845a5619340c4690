"""What operators decided is read from every log but the workers', the oldest first."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance.control import control_records, holds_in_force, is_control
from compliance.journal import Journal
from compliance.records import HoldChanged, KeyChanged

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def hold(name: str, at: int, *, change: str = "placed") -> HoldChanged:
    return HoldChanged(
        actor="root", at=at, begin=0, change=change, end=0, hold=name, reason='"kind":"hold"', scope="tenant", value="clinic"
    )  # fmt: skip


def write(logs: Path, slot: str, *records: object) -> None:
    journal = Journal.open(logs / slot, origin=f"inst/{slot}", key=KEY, segment_records=2)
    for record in records:
        journal.append(record)
    journal.close()


def test_records_of_several_operators_logs_come_in_the_order_of_their_time(tmp_path: Path) -> None:
    named = KeyChanged(actor='"kind":"hold"', at=3, change="created", key="k")  # speaks of the kind, and is none
    write(tmp_path, "cli", hold("h1", 2), named, hold("h3", 9), hold("h4", 11))
    write(tmp_path, "admin", hold("h2", 5), hold("h1", 10, change="released"))
    write(tmp_path, "slot-0", hold("from a worker", 1))
    assert [record.hold for record in control_records(tmp_path, ["hold"])] == ["h1", "h2", "h3", "h1", "h4"]
    assert [one.id for one in holds_in_force(tmp_path)] == ["h2", "h3", "h4"]
    assert [record.key for record in control_records(tmp_path, ["key_changed"])] == ["k"]
    assert control_records(tmp_path / "nowhere", ["hold"]) == []


def test_a_workers_log_is_told_by_its_name() -> None:
    assert [is_control(Path(name)) for name in ("slot-0", "slot-12", "cli", "admin", "slot-x", "slot-")] == [
        False, False, True, True, True, True,
    ]  # fmt: skip
