"""The log's laws: durable means synced, a kill loses nothing that was promised, a changed byte is caught."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from compliance import verify
from compliance.journal import (
    Journal,
    JournalDamaged,
    JournalFailed,
    JournalFull,
    JournalLocked,
    load_or_create_key,
    read,
)
from compliance.records import Decision, KeyChanged, Outcome, Stopped

KEY = Ed25519PrivateKey.generate()
ROOT = Path(__file__).resolve().parents[2]


def record(number: int) -> KeyChanged:
    return KeyChanged(actor="", at=number, change="created", key=f"key_{number}")


def write(directory: Path, count: int, **options: Any) -> None:
    journal = Journal.open(directory, origin="test/slot-0", key=KEY, **options)
    for number in range(count):
        journal.append(record(number))
    journal.close()


async def test_law_02_durable_means_that_the_sync_has_returned(tmp_path: Path) -> None:
    may_return, synced = threading.Event(), []

    def sync(descriptor: int) -> None:
        may_return.wait(5)
        os.fdatasync(descriptor)
        synced.append(time.monotonic())

    journal = Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY, sync=sync)
    journal.bind(asyncio.get_running_loop())
    waiting = asyncio.create_task(journal.wait_durable(journal.append(record(1))))
    await asyncio.sleep(0.05)
    assert not waiting.done() and journal.durable_seq == -1
    may_return.set()
    await waiting
    assert synced and journal.durable_seq == 0
    journal.close()


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3), st.booleans()), min_size=1, max_size=24))
def test_law_10_who_waits_is_not_kept_waiting_for_company_that_does_not_come(
    tmp_path_factory: pytest.TempPathFactory, clients: list[tuple[int, int, bool]]
) -> None:
    """No group is written for its age here: only since somebody waits, and the event loop for nothing else."""

    async def client(journal: Journal, rounds: int, turns: int, leaves: bool) -> None:
        for number in range(rounds):
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting = asyncio.ensure_future(journal.wait_durable(journal.append(record(number))))
            if leaves and number % 2:
                await asyncio.sleep(0)
                waiting.cancel()
                continue
            async with asyncio.timeout(20):
                await waiting

    async def serve() -> None:
        journal = Journal.open(
            tmp_path_factory.mktemp("log"), origin="test/slot-0", key=KEY, group_window=3600.0, sync=lambda _: None
        )
        journal.bind(asyncio.get_running_loop())
        await asyncio.gather(*(client(journal, *one) for one in clients))
        journal.close()

    asyncio.run(serve())


async def test_law_10_those_who_wait_on_a_busy_loop_share_a_write(tmp_path: Path) -> None:
    syncs = []
    journal = Journal.open(
        tmp_path / "log", origin="test/slot-0", key=KEY, group_window=3600.0, group_records=10_000, sync=syncs.append
    )
    journal.bind(asyncio.get_running_loop())

    async def client(turn: int) -> None:
        for _ in range(turn):  # each comes in a later turn of the loop
            await asyncio.sleep(0)
        await journal.wait_durable(journal.append(record(turn)))

    def busy(turns: int) -> None:
        time.sleep(0.0005)
        if turns:
            loop.call_soon(busy, turns - 1)

    loop = asyncio.get_running_loop()
    await journal.wait_durable(journal.append(record(0)))
    clients = [loop.create_task(client(turn)) for turn in range(64)]
    loop.call_soon(busy, 80)
    async with asyncio.timeout(20):
        await asyncio.gather(*clients)
    assert len(syncs) < 32
    journal.close()


async def test_law_02_what_became_durable_while_it_was_asked_for_is_not_waited_for(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY, group_window=0.0)
    loop = asyncio.get_running_loop()

    class Late:
        """The writer is through just after the waiter looked."""

        def create_future(self) -> asyncio.Future[None]:
            while journal.durable_seq < 0:
                time.sleep(0.001)
            return loop.create_future()

    journal.bind(Late())  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await journal.wait_durable(journal.append(record(1)))
    journal.close()


async def test_law_02_a_log_that_cannot_be_written_says_so_and_keeps_what_was_promised(tmp_path: Path) -> None:
    full = False

    def sync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.fdatasync(descriptor)

    journal = Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY, sync=sync)
    journal.bind(asyncio.get_running_loop())
    await journal.wait_durable(journal.append(record(1)))
    full = True
    with pytest.raises(JournalFailed):
        await journal.wait_durable(journal.append(record(2)))
    with pytest.raises(JournalFailed):
        journal.append(record(3))
    assert not journal.healthy
    with pytest.raises(JournalFailed, match="records are lost"):
        journal.close()
    report = verify.verify_directory(tmp_path / "log")
    assert report.slots[0].problem is None and report.slots[0].records == 1


def test_law_10_the_queue_is_bounded(tmp_path: Path) -> None:
    gate = threading.Event()
    journal = Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY, max_pending=10, sync=lambda _: gate.wait(5))
    with pytest.raises(JournalFull):
        for number in range(200):
            journal.append(record(number))
    gate.set()
    journal.close()


def test_a_slot_has_one_writer(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY)
    with pytest.raises(JournalLocked):
        Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY)
    journal.close()


def test_a_log_goes_on_over_segments_and_restarts(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    for _ in range(5):
        write(directory, 37, segment_records=25)
    assert [row.seq for row in read(directory)] == list(range(5 * 37))
    assert [row.seq for row in read(directory, 60, stop=64)] == [60, 61, 62, 63]
    assert len(list(directory.glob("segment-*"))) == 8
    report = verify.verify_directory(directory)
    assert report.slots[0].problem is None and report.slots[0].covered == 185
    assert report.status == verify.UNANCHORED


def test_time_never_runs_backwards_in_the_log(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY)
    for at in (100, 50, 70, 200):
        journal.append(KeyChanged(actor="", at=at, change="created", key="k"))
    journal.close()
    assert [row.at for row in read(tmp_path / "log")] == [100, 100, 100, 200]


def test_law_13_a_torn_line_is_cut_off_and_reported(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    write(directory, 10)
    with open(directory / "segment-000000000000.jsonl", "ab") as file:
        file.write(b'{"actor":"","at":9,"chan')
    journal = Journal.open(directory, origin="test/slot-0", key=KEY)
    assert (journal.cut_bytes, journal.next_seq) == (24, 10)
    journal.close()
    assert verify.verify_directory(directory).slots[0].problem is None


def test_a_log_cut_below_its_checkpoint_is_not_continued(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    write(directory, 10)
    path = directory / "segment-000000000000.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    with pytest.raises(JournalDamaged):
        Journal.open(directory, origin="test/slot-0", key=KEY)


CHILD = """
import os, sys, time
from pathlib import Path
from compliance.journal import Journal, load_or_create_key
from compliance.records import KeyChanged
directory = Path(sys.argv[1])
journal = Journal.open(directory / "log", origin="test/slot-0", key=load_or_create_key(directory / "key"), group_window=0.001)
journal.on_durable(lambda records: os.write(1, b"%d\\n" % records[-1].seq))
while True:
    journal.append(KeyChanged(actor="", at=time.time_ns() // 1000, change="created", key="k" * 40))
    if journal.next_seq % 50 == 0:
        time.sleep(0.0005)
"""


def test_law_13_sigkill_loses_nothing_that_was_durable(tmp_path: Path) -> None:
    dice = random.Random(3)
    promised = -1
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
        assert child.stdout is not None
        assert child.stdout.readline()
        time.sleep(dice.uniform(0.01, 0.15))
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        if said:
            promised = int(said[-1])
        journal = Journal.open(tmp_path / "log", origin="test/slot-0", key=load_or_create_key(tmp_path / "key"))
        assert journal.next_seq > promised
        assert not journal.clean
        journal.append(Stopped(at=0, slot="slot-0"))
        journal.close()
    assert verify.verify_directory(tmp_path / "log").slots[0].problem is None


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pristine") / "log"
    write(directory, 20, segment_records=8)
    write(directory, 15, segment_records=8)
    return directory


def fingerprint(directory: Path) -> str:
    return verify.verify_directory(directory).slots[0].fingerprint


@given(data=st.data())
def test_any_change_below_the_last_checkpoint_is_caught(pristine: Path, data: st.DataObject) -> None:
    """A changed byte, and a record swapped, dropped or repeated, with the key's fingerprint pinned."""
    pinned = fingerprint(pristine)
    copy = pristine.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(pristine, copy, copy_function=shutil.copyfile)  # without their modes
    path = copy / data.draw(
        st.sampled_from([*sorted(p.name for p in pristine.glob("segment-*")), "checkpoints", "key.pub"])
    )
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["flip", "swap", "drop", "repeat", "cut"]))
    lines = bytes(content).splitlines(keepends=True)
    if how == "flip" or path.suffix != ".jsonl":
        position = data.draw(st.integers(0, len(content) - 2))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
        changed = bytes(content)
    else:
        index = data.draw(st.integers(0, len(lines) - 1))
        if how == "swap" and len(lines) > 1:
            lines[index], lines[index - 1] = lines[index - 1], lines[index]
        elif how == "repeat":
            lines.insert(index, lines[index])
        elif how == "cut":
            lines = lines[:index]
        else:
            del lines[index]
        changed = b"".join(lines)
    path.write_bytes(changed)
    report = verify.verify_directory(copy, fingerprint=pinned)
    if path.name == "checkpoints" and report.slots and report.slots[0].problem is None:
        pytest.fail("a changed checkpoint was believed")
    assert report.status == verify.NOT_VERIFIED


def test_a_log_rewritten_by_the_owner_of_the_key_is_caught_by_an_earlier_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "log", 20)
    kept = (tmp_path / "log" / "checkpoints").read_bytes()
    shutil.rmtree(tmp_path / "log")
    journal = Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY)
    for number in range(25):
        journal.append(KeyChanged(actor="somebody else", at=number, change="created", key="k"))
    journal.close()
    assert verify.verify_directory(tmp_path / "log").status == verify.UNANCHORED  # alone it looks well
    report = verify.verify_directory(tmp_path / "log", since=kept)
    assert "rewritten" in (report.slots[0].problem or "")


def test_another_key_is_caught_when_the_fingerprint_is_pinned(tmp_path: Path) -> None:
    write(tmp_path / "log", 5)
    pinned = fingerprint(tmp_path / "log")
    assert verify.verify_directory(tmp_path / "log", fingerprint=pinned).status == verify.VERIFIED
    shutil.rmtree(tmp_path / "log")
    journal = Journal.open(tmp_path / "log", origin="test/slot-0", key=Ed25519PrivateKey.generate())
    journal.append(record(1))
    journal.close()
    assert verify.verify_directory(tmp_path / "log", fingerprint=pinned).status == verify.NOT_VERIFIED


def test_the_verifier_runs_from_a_copied_file(tmp_path: Path) -> None:
    write(tmp_path / "log", 5)
    copy = tmp_path / "elsewhere" / "verify.py"
    copy.parent.mkdir()
    shutil.copy(ROOT / "compliance" / "verify.py", copy)
    done = subprocess.run(
        [sys.executable, "-I", str(copy), str(tmp_path / "log")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == verify.UNANCHORED, done.stderr
    assert "consistent, but unanchored" in done.stdout
    assert (
        subprocess.run([sys.executable, "-I", str(copy), str(tmp_path / "nothing")], capture_output=True).returncode
        == verify.NOT_VERIFIED
    )


def test_decisions_without_an_outcome_are_found_at_the_next_start(tmp_path: Path) -> None:
    from tests_records import decision, outcome

    journal = Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY)
    for request in ("a", "b", "c"):
        journal.append(decision(request))
    journal.append(outcome("b"))
    journal.close()
    again = Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY)
    assert [row.request for row in again.interrupted] == ["a", "c"]
    again.append(outcome("a"))
    again.close()
    last = Journal.open(tmp_path / "log", origin="test/slot-0", key=KEY)
    assert [row.request for row in last.interrupted] == ["c"]
    last.close()
    assert {type(row) for row in read(tmp_path / "log")} == {Decision, Outcome}


def test_the_signing_key_is_for_its_owner_only(tmp_path: Path) -> None:
    first = load_or_create_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert load_or_create_key(tmp_path / "key").private_bytes_raw() == first.private_bytes_raw()
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(JournalFailed):
        load_or_create_key(tmp_path / "key")


def test_law_13_a_checkpoint_torn_by_a_crash_is_passed_over(pristine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(pristine, copy)
    whole = (copy / "checkpoints").read_bytes()
    for cut in (1, 2, 5, 60, 100, 150):
        (copy / "checkpoints").write_bytes(whole[:-cut])
        slot = verify.verify_directory(copy).slots[0]
        if whole[:-cut].endswith(b"\n"):
            continue
        assert (slot.problem, slot.records, slot.covered) == (None, 35, 20), cut


@pytest.mark.parametrize("cut", [1, 2, 5, 60, 100, 150, 10_000])
def test_law_13_a_log_goes_on_after_a_torn_checkpoint_and_verifies(cut: int, pristine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(pristine, copy)
    whole = (copy / "checkpoints").read_bytes()
    (copy / "checkpoints").write_bytes(whole[: max(0, len(whole) - cut)])
    write(copy, 3, segment_records=8)
    slot = verify.verify_directory(copy).slots[0]
    assert slot.problem is None
    assert slot.covered == slot.records > 35
