"""The log on a disk that is full, broken or read-only: what was acknowledged is never lost, nothing else is promised,
and it goes on by itself.  On real file systems, where they may be mounted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from small_disk import SmallDisk, ext4, small_disk
from tests_records import decision, outcome

from compliance import verify
from compliance.journal import Journal, JournalDamaged, JournalError, JournalFailed, JournalFull, read
from compliance.records import KeyChanged, Refused

KEY = Ed25519PrivateKey.generate()


def journal(directory: Path, **options: Any) -> Journal:
    opened = Journal.open(directory, origin="test/slot-0", key=KEY, **options)
    with contextlib.suppress(RuntimeError):
        opened.bind(asyncio.get_running_loop())
    return opened


def refused(request: str) -> Refused:
    return Refused(
        action="", at=time.time_ns() // 1000, code="audit_unavailable", findings=(), key="", model="", organisation="", policy="",
        project="", request=request, rule="", status=503, surface="", tenant="", vetoes=(),
    )  # fmt: skip


def now(request: str, **more: Any) -> Any:
    return decision(request, at=time.time_ns() // 1000, **more)


async def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


def verified(directory: Path, records: int) -> None:
    (slot,) = verify.verify_directory(directory).slots
    assert (slot.problem, slot.records, slot.covered) == (None, records, records)
    assert [row.seq for row in read(directory)] == list(range(records))


async def fill_until_it_fails(log: Journal, disk: SmallDisk) -> list[str]:
    """Decisions that leave, one by one, each acknowledged or not; those that were."""
    acknowledged: list[str] = []
    for number in range(1000):
        if number == 5:  # what is left then is the room in the pages that the log has
            disk.fill()
        try:
            await log.wait_durable(log.append(now(f"r{number}", boundary="cloud")))
        except JournalFailed:
            return acknowledged
        acknowledged.append(f"r{number}")
    raise AssertionError("the disk is larger than was thought")


async def test_law_02_13_a_full_disk_refuses_what_leaves_keeps_what_happened_and_goes_on_by_itself(
    tmp_path: Path,
) -> None:
    said: list[str | None] = []
    with small_disk(tmp_path / "disk", "300k") as disk:
        log = journal(disk.path / "log", lag=3600)
        log.on_trouble(said.append)
        acknowledged = await fill_until_it_fails(log, disk)
        assert len(acknowledged) >= 5
        waiting = log.unwritten  # one that was not acknowledged, or none, where a checkpoint was what failed
        # nobody is promised anything any more, and nothing that must be recorded first is taken
        with pytest.raises(JournalFailed, match="No space left on device"):
            log.append(now("leaves", boundary="cloud"))
        with pytest.raises(JournalFailed):
            log.append(KeyChanged(actor="", at=0, change="created", key="k"))
        # what has happened is kept: outcomes, refusals, and local requests, whose records may lag
        ended = [log.append(outcome(request)) for request in acknowledged]
        log.append(refused("leaves"))
        log.append(now("stays", boundary="local"))
        log.append(outcome("stays"))
        with pytest.raises(JournalFailed):
            await log.wait_durable(ended[-1])
        assert log.unwritten == waiting + len(acknowledged) + 3
        await asyncio.sleep(0.6)  # two more tries
        assert not log.healthy and len(said) == 1
        disk.free()
        await until(lambda: log.healthy)
        assert log.unwritten == 0 and log.trouble is None
        await log.wait_durable(log.append(now("after", boundary="cloud")))
        log.append(outcome("after"))
        log.close()
        assert said[1:] == [None]
        rows = list(read(disk.path / "log"))
        assert {row.request for row in rows if row.kind == "decision"} >= {*acknowledged, "stays", "after"}
        assert sum(row.kind == "outcome" for row in rows) == len(acknowledged) + 2
        verified(disk.path / "log", len(rows))


async def test_law_13_a_kill_while_the_disk_is_full_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """As after SIGKILL: the files as they are, opened anew."""
    with small_disk(tmp_path / "disk", "300k") as disk:
        log = journal(disk.path / "log")
        acknowledged = await fill_until_it_fails(log, disk)
        assert len(acknowledged) >= 5
        copy = tmp_path / "copy"
        await asyncio.to_thread(os.system, f"cp -r {disk.path}/log {copy}")
        again = journal(copy)
        assert [row.request for row in again.interrupted] == acknowledged
        assert not again.clean
        again.close()
        disk.free()
        await until(lambda: log.healthy)
        log.close()
    assert len(list(read(copy))) == len(acknowledged)


async def test_law_13_a_full_disk_cannot_be_opened_and_harms_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "300k") as disk:
        log = journal(disk.path / "log")
        await log.wait_durable(log.append(now("r", boundary="cloud")))
        log.close()
        disk.fill()
        again = journal(disk.path / "log")  # nothing need be written for that
        with pytest.raises(JournalError):
            for number in range(1000):
                await again.wait_durable(again.append(now(f"again{number}", boundary="cloud")))
        with pytest.raises(JournalFailed, match="No space left on device"):
            again.close()
        disk.free()
        last = journal(disk.path / "log")
        assert last.next_seq >= 1
        last.append(outcome("r"))
        last.close()
        assert verify.verify_directory(disk.path / "log").slots[0].problem is None


async def test_law_13_a_disk_that_breaks_down_keeps_what_was_synced(tmp_path: Path) -> None:
    """EIO, as the kernel gives it; the file system is mounted anew, and the log goes on."""
    image = tmp_path / "image"
    with ext4(tmp_path / "disk", image) as disk:
        log = journal(disk.path / "log")
        for number in range(20):
            await log.wait_durable(log.append(now(f"r{number}", boundary="cloud")))
        await until(lambda: (disk.path / "log" / "frontier.json").exists())
        disk.break_down()
        with pytest.raises(JournalFailed, match="Input/output error"):
            await log.wait_durable(log.append(now("lost", boundary="cloud")))
        with pytest.raises(JournalFailed):
            log.close()
    with ext4(tmp_path / "disk", image) as disk:
        again = journal(disk.path / "log")
        assert [row.request for row in again.interrupted] == [f"r{number}" for number in range(20)]
        again.append(now("goes on", boundary="cloud"))
        again.close()
        verified(disk.path / "log", 21)


async def test_a_disk_that_is_read_only_at_the_start_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        log = journal(disk.path / "log")
        log.append(now("r"))
        log.close()
        disk.remount("ro")
        with pytest.raises(JournalFailed, match="Read-only file system"):
            journal(disk.path / "log")
        disk.remount("rw")
        journal(disk.path / "log").close()
        verified(disk.path / "log", 1)


async def test_a_checkpoint_that_cannot_be_written_stops_what_leaves_until_it_can(tmp_path: Path) -> None:
    """The permission is lost for one file: records could be written, but nobody would sign for them."""
    directory = tmp_path / "log"
    log = journal(directory)
    (directory / "checkpoints").mkdir()
    await log.wait_durable(log.append(now("r0", boundary="cloud")))
    await until(lambda: not log.healthy)
    with pytest.raises(JournalFailed, match="Is a directory"):
        log.append(now("r1", boundary="cloud"))
    (directory / "checkpoints").rmdir()
    await until(lambda: log.healthy)
    await log.wait_durable(log.append(now("r1", boundary="cloud")))
    log.close()
    verified(directory, 2)


async def test_law_13_after_a_failed_sync_everything_that_was_not_acknowledged_is_written_again(tmp_path: Path) -> None:
    """The kernel drops what it could not write and calls it clean: a second sync would succeed over a hole."""
    failing = threading.Event()
    log: Journal

    def sync(descriptor: int) -> None:
        if failing.is_set():
            size = os.fstat(descriptor).st_size
            os.ftruncate(descriptor, log._segment.offset)  # the dropped pages: a hole where the records were
            os.ftruncate(descriptor, size)
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(descriptor)

    log = journal(tmp_path / "log", sync=sync)
    await log.wait_durable(log.append(now("r0", boundary="cloud")))
    failing.set()
    with pytest.raises(JournalFailed):
        await log.wait_durable(log.append(now("r1", boundary="cloud")))
    log.append(outcome("r0"))
    failing.clear()
    await until(lambda: log.healthy)
    log.close()
    verified(tmp_path / "log", 3)


@given(data=st.data())
def test_law_13_whatever_fails_and_whenever_the_sequence_has_no_gap(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Syncs fail at any point, over segments of five records: acknowledged records are there, each record once."""
    fails = data.draw(st.lists(st.booleans(), min_size=1, max_size=12))
    calls = iter(fails)
    acknowledged: list[int] = []

    def sync(descriptor: int) -> None:
        if next(calls, False):
            raise OSError(errno.ENOSPC, "No space left on device")

    directory = tmp_path_factory.mktemp("log") / "log"
    log = Journal.open(
        directory, origin="test/slot-0", key=KEY, sync=sync, segment_records=5, group_window=0.0, retry=0.001
    )
    log.on_durable(lambda records: acknowledged.extend(record.seq for record in records))
    taken = 0
    for _ in range(data.draw(st.integers(1, 30))):
        with contextlib.suppress(JournalFailed):
            log.append(data.draw(st.sampled_from([outcome("r"), refused("r"), now("r", boundary="cloud")])))
            taken += 1
    while not log.healthy or log.unwritten:
        time.sleep(0.001)
    log.close()
    assert acknowledged == list(range(taken))
    verified(directory, taken)


def test_law_10_what_waits_for_a_full_disk_is_bounded_and_outcomes_have_room(tmp_path: Path) -> None:
    def sync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = journal(tmp_path / "log", sync=sync, max_pending=20, retry=3600)
    log.append(outcome("first"))
    while log.healthy:
        time.sleep(0.001)
    with pytest.raises(JournalFull):
        for number in range(20):
            log.append(refused(f"r{number}"))
    assert log.unwritten == 10
    for number in range(10):
        log.append(outcome(f"r{number}"))
    with pytest.raises(JournalFull):
        log.append(outcome("one too many"))
    with pytest.raises(JournalFailed, match="20 records are lost"):
        log.close()


async def test_law_13_local_requests_run_ahead_of_their_records_no_further_than_is_stated(tmp_path: Path) -> None:
    """While the disk is full they are taken for `lag` seconds, and the next start says that so much may be missing."""

    def sync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    directory = tmp_path / "log"
    log = journal(directory)
    log.append(now("before"))
    log.close()
    start = read_last(directory)
    log = journal(directory, sync=sync, lag=0.5, retry=3600)
    log.append(decision("a", at=start + 1_000_000))
    await until(lambda: not log.healthy)
    log.append(decision("b", at=start + 1_400_000))
    assert not log.behind
    with pytest.raises(JournalFailed):
        log.append(decision("c", at=start + 1_500_001))
    with pytest.raises(JournalFailed):
        log.close()
    assert read_last(directory) == start
    again = journal(directory, lag=0.5, clock=lambda: (start + 9_000_000) * 1000)
    assert not again.clean and again.may_miss <= 1_000_000
    again.close()


async def test_law_13_a_slow_disk_makes_local_requests_wait_once_they_are_too_far_ahead(tmp_path: Path) -> None:
    gate = threading.Event()
    log = journal(tmp_path / "log", sync=lambda _: gate.wait(30), lag=0.5)
    start = time.time_ns() // 1000
    log.append(decision("a", at=start))
    assert not log.behind
    log.append(decision("b", at=start + 400_000))
    assert not log.behind
    last = log.append(decision("c", at=start + 600_000))
    assert log.behind
    waiting = asyncio.create_task(log.wait_durable(last))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    gate.set()
    await waiting
    assert not log.behind
    log.close()


def read_last(directory: Path) -> int:
    at = 0
    for row in read(directory):
        at = row.at
    return at


@pytest.mark.parametrize("short_cut", ["{", "", None, "\0\0\0"])
def test_law_13_a_log_whose_short_cut_was_lost_is_hashed_anew_and_checked_against_what_was_signed(
    short_cut: str | None, tmp_path: Path
) -> None:
    directory = tmp_path / "log"
    log = journal(directory, segment_records=7)
    for number in range(20):
        log.append(now(f"r{number}"))
    log.close()
    path = directory / "frontier.json"
    path.unlink()
    if short_cut is not None:
        path.write_text(short_cut)
    again = journal(directory, segment_records=7)
    assert again.next_seq == 20 and len(again.interrupted) == 20
    again.append(outcome("r0"))
    again.close()
    verified(directory, 21)
    path.unlink()
    newest = max(directory.glob("segment-*"))
    newest.chmod(0o644)
    newest.write_bytes(newest.read_bytes().replace(b"completed", b"abandoned", 1))
    with pytest.raises(JournalDamaged, match="not those that were signed"):
        journal(directory, segment_records=7)
    newest.write_bytes(b"")
    with pytest.raises(JournalDamaged, match="its checkpoint says 21"):
        journal(directory, segment_records=7)


def test_law_13_a_hole_that_a_power_cut_left_is_cut_off_like_a_torn_line(tmp_path: Path) -> None:
    """The group that was being written, its first page lost: it was never acknowledged."""
    directory = tmp_path / "log"
    log = journal(directory)
    for number in range(3):
        log.append(now(f"r{number}"))
    log.close()
    (segment,) = directory.glob("segment-*")
    with open(segment, "ab") as file:
        file.write(b"\0" * 100 + b'"vetoes":[]}\n{"a":"record after the hole"}\n')
    again = journal(directory)
    assert again.next_seq == 3 and again.cut_bytes > 100
    again.close()
    verified(directory, 3)


def test_a_line_that_is_no_record_is_set_aside_and_said(tmp_path: Path) -> None:
    """The log's key vouches for what was acknowledged, so this was not; but nobody removes it in silence."""
    directory = tmp_path / "log"
    log = journal(directory)
    log.append(now("r"))
    log.close()
    (segment,) = directory.glob("segment-*")
    before = segment.read_bytes()
    with open(segment, "ab") as file:
        file.write(b'{"kind":"decision","seq":1}\n')
    again = journal(directory)
    assert (again.next_seq, again.unsigned, again.unauthenticated) == (1, 0, 1)
    again.close()
    assert segment.read_bytes() == before
    assert (directory / "unauthenticated-000000000001.jsonl").read_bytes() == b'{"kind":"decision","seq":1}\n'


async def test_a_short_cut_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    said: list[str | None] = []
    log = journal(directory)
    log.on_trouble(said.append)
    (directory / "frontier.json.part").mkdir()
    for number in range(3):
        await log.wait_durable(log.append(now(f"r{number}", boundary="cloud")))
    log.close()
    assert said == [] and not (directory / "frontier.json").exists()
    again = journal(directory)
    assert len(again.interrupted) == 3
    again.close()
    verified(directory, 3)
