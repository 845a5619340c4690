"""Records that no checkpoint covers yet: what was acknowledged is taken over after any crash, and nothing that anybody added."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests_records import decision, outcome

from compliance import checkpoints, journal, tails, verify
from compliance.control import control_records, holds_in_force
from compliance.journal import Journal, JournalDamaged, read
from compliance.merkle import Frontier, leaf_hash
from compliance.records import HoldChanged, Stopped, encode
from compliance.recovery import Recovery
from compliance.segments import open_path, segments
from compliance.tails import Voucher

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
ORIGIN = "test/slot-0"
TIMES = 20 if os.environ.get("SPILLWAY_SOAK") else 1


@pytest.fixture(autouse=True)
def no_checkpoint_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first group is signed at once; those after it would be within a second."""
    monkeypatch.setattr(journal, "CHECKPOINT_INTERVAL", 3600.0)


def opened(directory: Path, **options: Any) -> Journal:
    return Journal.open(directory, origin=ORIGIN, key=KEY, **options)


def written(log: Journal, *records: Any) -> None:
    """One group of these."""
    for record in records:
        log.append(record)
    while log.unwritten:
        time.sleep(0.0005)


def killed(directory: Path, groups: list[int], **options: Any) -> list[bytes]:
    """A log as SIGKILL leaves it, groups of so many records, the first of them signed; the bytes of each group."""
    log = opened(directory.with_name("live"), group_records=10**6, group_window=0.02, **options)
    ends, number = [0], 0
    path = directory.with_name("live")
    for count in groups:
        records = [decision(f"r{number + i}", at=time.time_ns() // 1000) for i in range(count)]
        number += count
        written(log, *records)
        ends.append(sum(one.path.stat().st_size for one in segments(path)))
    while not (path / "frontier.json").exists():
        time.sleep(0.001)
    shutil.copytree(path, directory)
    log.close()
    shutil.rmtree(path)
    whole = b"".join(one.path.read_bytes() for one in segments(directory))
    return [whole[begin:end] for begin, end in itertools.pairwise(ends)]


def kept(directory: Path) -> bytes:
    return b"".join(one.path.read_bytes() for one in segments(directory))


def set_aside(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.glob("unauthenticated-*")))


def is_genuine(directory: Path) -> None:
    (slot,) = verify.verify_directory(directory).slots
    assert (slot.problem, slot.records) == (None, slot.covered)


def forged(directory: Path, **fields: Any) -> bytes:
    """A record that goes on where the log ends."""
    last = json.loads(kept(directory).splitlines()[-1])
    made = decision("forged", at=last["at"], **fields)
    made.seq = last["seq"] + 1
    return encode(made) + b"\n"


def test_law_13_what_was_acknowledged_and_not_signed_is_taken_over(tmp_path: Path) -> None:
    groups = killed(tmp_path / "log", [2, 1, 3, 4])
    log = opened(tmp_path / "log")
    assert (log.next_seq, log.unsigned, log.unvouched, log.unauthenticated, log.clean) == (10, 8, 0, 0, False)
    log.close()
    assert kept(tmp_path / "log") == b"".join(groups) and not set_aside(tmp_path / "log")
    is_genuine(tmp_path / "log")


def test_law_13_over_segments_sealed_since_the_checkpoint(tmp_path: Path) -> None:
    groups = killed(tmp_path / "log", [2, 7, 6, 1], segment_records=4)
    assert len(segments(tmp_path / "log")) == 4
    log = opened(tmp_path / "log", segment_records=4)
    assert (log.next_seq, log.unsigned, log.unauthenticated) == (16, 14, 0)
    log.close()
    assert kept(tmp_path / "log") == b"".join(groups)
    is_genuine(tmp_path / "log")


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[bytes]]]:
    patch = pytest.MonkeyPatch()
    patch.setattr(journal, "CHECKPOINT_INTERVAL", 3600.0)
    directory = tmp_path_factory.mktemp("crashed") / "log"
    yield directory, killed(directory, [2, 1, 3, 2])
    patch.undo()


@given(data=st.data())
def test_law_13_a_write_that_a_crash_tore_anywhere_loses_nothing_before_it(
    crashed: tuple[Path, list[bytes]], data: st.DataObject
) -> None:
    """Any part of the last group may have reached the disk: its first bytes, or pages of it with holes between."""
    pristine, groups = crashed
    copy = pristine.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(pristine, copy)
    last = bytearray(groups[-1])
    cut = data.draw(st.integers(0, len(last)))
    torn = last[:cut]
    for _ in range(data.draw(st.integers(0, 2))):
        begin = data.draw(st.integers(0, max(0, cut - 1)))
        end = data.draw(st.integers(begin, cut))
        torn[begin:end] = bytes(end - begin)
    before = b"".join(groups[:-1])
    open_path(copy, 0).write_bytes(before + torn)
    log = opened(copy)
    log.append(Stopped(at=0, slot="s"))
    log.close()
    whole = bytes(torn) == groups[-1]
    assert kept(copy).startswith(before + (groups[-1] if whole else b""))
    assert kept(copy).count(b"\n") == before.count(b"\n") + (groups[-1].count(b"\n") if whole else 0) + 1
    is_genuine(copy)


def test_nothing_that_was_added_or_changed_is_ever_signed(crashed: tuple[Path, list[bytes]]) -> None:
    """By who owns the files and not the key; everything up to the group before the change is kept."""
    pristine, groups = crashed
    dice = random.Random(11)
    ends = [len(b"".join(groups[: number + 1])) for number in range(len(groups))]
    whole = b"".join(groups)
    signed = ends[0]
    lines = whole.splitlines(keepends=True)
    stolen = Voucher(OTHER, ORIGIN)
    for number in range(150 * TIMES):
        copy = pristine.parent / "attacked"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(pristine, copy)
        how = dice.choice(("append", "flip", "drop", "repeat", "swap", "insert", "edit", "splice"))
        changed = list(lines)
        at = dice.randrange(2, len(lines))
        if how == "append":
            changed.append(forged(copy, target=dice.choice(("a", "b"))))
        elif how == "flip":
            line = bytearray(changed[at])
            line[dice.randrange(len(line) - 1)] ^= 1 << dice.randrange(8)
            changed[at] = bytes(line)
        elif how == "drop":
            del changed[at]
        elif how == "repeat":
            changed.insert(at, changed[dice.randrange(len(lines))])
        elif how == "swap":
            other = dice.randrange(2, len(lines))
            changed[at], changed[other] = changed[other], changed[at]
        elif how == "edit":
            changed[at] = changed[at].replace(b'"allow"', b'"block"')
        else:  # a forged line with a MAC: one of another record, or of another key
            made = forged(copy)[:-1]
            if how == "splice":
                mac = tails._FIELD.search(dice.choice([line for line in lines if b"seq_mac" in line]))
                assert mac is not None
                seq = b',"seq":%d' % len(lines)
                made = made.replace(seq, seq + mac[0])
            else:
                frontier = Frontier()
                for line in lines:
                    frontier.append(leaf_hash(line[:-1]))
                mine = [made]
                stolen.vouch(frontier, mine, len(lines))
                made = mine[0]
            changed.append(made + b"\n")
        after = b"".join(changed)
        if after == whole:
            continue
        open_path(copy, 0).write_bytes(after)
        same = next(
            (i for i, (a, b) in enumerate(zip(after, whole, strict=False)) if a != b), min(len(after), len(whole))
        )
        log = opened(copy)
        log.append(Stopped(at=0, slot="s"))
        log.close()
        left = kept(copy)[: -len(kept(copy).splitlines(keepends=True)[-1])]
        assert left in [whole[:end] for end in ends], (number, how)
        assert len(left) >= max(end for end in ends if end <= max(same, signed)), (number, how)
        assert left + set_aside(copy) == after or how == "flip"  # a flipped line end or control may end the reading
        assert log.unauthenticated == set_aside(copy).count(b"\n")
        is_genuine(copy)


def test_an_older_tail_fits_nowhere_once_the_log_has_gone_on(crashed: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    pristine, groups = crashed
    shutil.copytree(pristine, tmp_path / "log")
    log = opened(tmp_path / "log")
    written(log, Stopped(at=0, slot="s"))
    log.close()
    before = kept(tmp_path / "log")
    for number in range(1, len(groups)):
        path = segments(tmp_path / "log")[-1].path
        path.write_bytes(before + b"".join(groups[number:]))
        again = opened(tmp_path / "log")
        assert (again.next_seq, again.unsigned) == (9, 0)
        assert again.unauthenticated == b"".join(groups[number:]).count(b"\n")
        again.close()
        assert kept(tmp_path / "log") == before


def test_a_log_that_was_stopped_cleanly_takes_nothing_more(tmp_path: Path) -> None:
    log = opened(tmp_path / "log")
    written(log, decision("a", at=1))
    log.close()
    line = forged(tmp_path / "log")
    with open(open_path(tmp_path / "log", 0), "ab") as file:
        file.write(line + b'{"torn')
    again = opened(tmp_path / "log")
    assert (again.next_seq, again.unsigned, again.unauthenticated, again.cut_bytes) == (1, 0, 1, 6)
    again.close()
    assert set_aside(tmp_path / "log") == line
    third = opened(tmp_path / "log")
    assert third.unauthenticated == 0
    third.close()


def test_a_log_that_somebody_made_is_not_taken_for_an_old_one(tmp_path: Path) -> None:
    """No checkpoint, no mark, no MAC: nothing of it was ever this key's."""
    (tmp_path / "log").mkdir()
    line = decision("forged", at=1)
    line.seq = 0
    open_path(tmp_path / "log", 0).write_bytes(encode(line) + b"\n")
    log = opened(tmp_path / "log")
    assert (log.next_seq, log.unauthenticated) == (0, 1)
    log.close()
    assert not kept(tmp_path / "log") and set_aside(tmp_path / "log")


# --- segments, hashes and the mark, forged --------------------------------------------------------------------


def test_a_forged_segment_is_set_aside_whole_and_one_that_was_prolonged_is_cut(
    crashed: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    pristine, groups = crashed
    for number, (ours, theirs) in enumerate([(8, 2), (8, 0)]):
        log = tmp_path / f"log-{number}"
        shutil.copytree(pristine, log)
        made = []
        for seq in range(8, 12):
            record = decision("forged", at=1 << 60)
            record.seq = seq
            made.append(encode(record) + b"\n")
        open_path(log, 0).rename(log / f"segment-000000000000-{ours + theirs - 1:012d}.jsonl")
        first = segments(log)[0].path
        first.write_bytes(first.read_bytes() + b"".join(made[:theirs]))
        open_path(log, ours + theirs).write_bytes(b"".join(made[theirs:]))
        again = opened(log)
        assert (again.next_seq, again.unsigned, again.unauthenticated) == (8, 6, 4)
        written(again, Stopped(at=0, slot="s"))
        again.close()
        assert set_aside(log) == b"".join(made)
        assert kept(log).startswith(b"".join(groups)) and kept(log).count(b"\n") == 9
        is_genuine(log)


def test_leaf_hashes_of_records_that_were_never_signed_are_not_believed(
    crashed: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    pristine, _ = crashed
    shutil.copytree(pristine, tmp_path / "log")
    open_path(tmp_path / "log", 0).rename(tmp_path / "log" / "segment-000000000000-000000000007.jsonl")
    (tmp_path / "log" / "segment-000000000008-000000000008.leaves").write_bytes(leaf_hash(b"forged"))
    with pytest.raises(JournalDamaged, match="never been signed"):
        opened(tmp_path / "log")


@pytest.mark.parametrize(
    "change",
    [
        {"size": 9, "frontier": [leaf_hash(b"a").hex(), leaf_hash(b"b").hex()]}, {"last_kind": "stopped"}, {"last_at": 1 << 60},
        {"oldest_open": 100}, {"lag_us": 0}, {"mac": "00" * 32}, {"mac": None}, {"size": 10**9},
    ],
)  # fmt: skip
def test_a_mark_that_the_key_does_not_vouch_for_shortens_nothing(
    change: dict[str, Any], crashed: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    pristine, groups = crashed
    shutil.copytree(pristine, tmp_path / "log")
    path = tmp_path / "log" / "frontier.json"
    mark = json.loads(path.read_text()) | change
    path.write_text(json.dumps(mark))
    log = opened(tmp_path / "log")
    assert (log.next_seq, log.clean, len(log.interrupted), log.unsigned) == (8, False, 8, 6)
    assert log._last_at < 1 << 59
    log.close()
    assert kept(tmp_path / "log") == b"".join(groups)


def test_law_13_what_cannot_be_set_aside_on_a_full_disk_is_cut_off_and_counted(
    crashed: tuple[Path, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pristine, groups = crashed

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shutil.copytree(pristine, tmp_path / "log")
    with open(open_path(tmp_path / "log", 0), "ab") as file:
        file.write(forged(tmp_path / "log"))
    monkeypatch.setattr(Recovery, "_set_aside", full)
    log = opened(tmp_path / "log")
    assert (log.next_seq, log.unauthenticated) == (8, 1)
    log.close()
    assert kept(tmp_path / "log") == b"".join(groups)


# --- logs of a version that made no MACs ------------------------------------------------------------------------


def as_before(directory: Path, groups: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A log as an earlier version left it after a kill."""
    with monkeypatch.context() as patch:
        patch.setattr(Voucher, "vouch", lambda self, frontier, lines, seq: [leaf_hash(line) for line in lines])
        patch.setattr(Voucher, "mark_mac", lambda self, mark: "")
        killed(directory, groups)
    mark = json.loads((directory / "frontier.json").read_text())
    (directory / "frontier.json").write_text(json.dumps({name: value for name, value in mark.items() if name != "mac"}))
    assert b"seq_mac" not in kept(directory)


def test_a_log_of_an_earlier_version_goes_on_and_says_what_nothing_vouched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_before(tmp_path / "log", [2, 3], monkeypatch)
    log = opened(tmp_path / "log")
    assert (log.next_seq, log.unsigned, log.unvouched, log.unauthenticated) == (5, 3, 3, 0)
    written(log, outcome("r0"), outcome("r1"))
    shutil.copytree(tmp_path / "log", tmp_path / "killed")
    log.close()
    is_genuine(tmp_path / "log")
    # from then on it is as any other, also where the mark is lost
    for lost in (False, True):
        copy = tmp_path / f"copy-{lost}"
        shutil.copytree(tmp_path / "killed", copy)
        if lost:
            (copy / "frontier.json").unlink()
        again = opened(copy)
        assert (again.next_seq, again.unvouched, again.unauthenticated) == (7, 0, 0)
        again.close()
        with open(segments(copy)[-1].path, "ab") as file:
            file.write(forged(copy))
        third = opened(copy)
        assert (third.next_seq, third.unauthenticated) == (7, 1)
        third.close()
        is_genuine(copy)


def test_an_earlier_version_that_stopped_cleanly_leaves_nothing_to_vouch_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_before(tmp_path / "log", [4], monkeypatch)
    log = opened(tmp_path / "log")
    assert (log.next_seq, log.unsigned, log.unvouched, log.unauthenticated) == (4, 0, 0, 0)
    log.close()


# --- what operators decided --------------------------------------------------------------------------------------


def hold(change: str, at: int) -> HoldChanged:
    return HoldChanged(
        actor="root", at=at, begin=0, change=change, end=0, hold="h1", reason="case", scope="tenant", value="clinic"
    )


def test_no_line_in_a_file_lifts_a_hold(tmp_path: Path) -> None:
    log = Journal.open(tmp_path / "cli", origin="inst/cli", key=KEY)
    written(log, hold("placed", 1))
    written(log, hold("placed", 2))
    assert len(control_records(tmp_path, ["hold"], KEY)) == 2  # also what a running command has not signed yet
    log.close()
    path = segments(tmp_path / "cli")[0].path
    before = path.read_bytes()
    release = hold("released", 3)
    release.seq = 2
    path.write_bytes(before + encode(release) + b"\n")
    assert [one.id for one in holds_in_force(tmp_path, KEY)] == ["h1"]
    assert not len(holds_in_force(tmp_path))  # who has not the key cannot tell
    for line in (before.replace(b'"placed"', b'"raised"'), before[: before.index(b"\n") + 1], b""):
        path.write_bytes(line)
        with pytest.raises(OSError, match="signed") as told:
            holds_in_force(tmp_path, KEY)
        assert told.value.errno == errno.EBADMSG
    path.write_bytes(before)
    (tmp_path / "cli" / "key.pub").write_text(checkpoints.verifier_key("inst/cli", OTHER.public_key()) + "\n")
    with pytest.raises(OSError, match="expected key"):
        holds_in_force(tmp_path, OTHER)


def test_each_group_ends_with_a_mac_and_only_there(crashed: tuple[Path, list[bytes]]) -> None:
    _, groups = crashed
    for group in groups:
        lines = group.splitlines()
        assert [b'"seq_mac"' in line for line in lines] == [False] * (len(lines) - 1) + [True]
    assert [row.request for row in read(crashed[0])] == [f"r{number}" for number in range(8)]
