"""Whatever is done to the files of a directory of logs: the verifier answers "not verified", or says just what it said before.

Bytes, lines, notes, files and whole slots are changed, taken away, repeated, moved, exchanged and mixed with those of an
earlier day, one or several at once.  What says the same was looked at, and is of two kinds: an end that was never finished,
as a crash leaves it (also the last of `rosters`, which `roster` repeats), and files in folders that are no log.
`SPILLWAY_SOAK=1` tries thousands.
"""

from __future__ import annotations

import os
import random
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logs import BEGIN, DAY, KEY
from tests_records import decision, outcome

from compliance import checkpoints, retention, verify
from compliance.holds import Holds
from compliance.journal import Journal
from compliance.records import KeyChanged, Retention
from compliance.roster import sign_roster

TIMES = 25 if os.environ.get("SPILLWAY_SOAK") else 1
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
FINGERPRINT = sha256(KEY.public_key().public_bytes_raw()).hexdigest()
UNREAD = frozenset({"lock", "frontier.json", "roster.lock", "instance"})
"""Files that say nothing to an auditor."""
Files = dict[str, bytes]


def write(directory: Path, day: int, each: int = 3) -> None:
    for slot in ("slot-0", "slot-1"):
        journal = Journal.open(directory / slot, origin=f"inst/{slot}", key=KEY, segment_records=9)
        for i in range(each):
            at = BEGIN + day * DAY + i * 1_000_000
            journal.append(decision(f"{slot}-{day}-{i}", at=at))
            journal.append(outcome(f"{slot}-{day}-{i}", at=at + 1))
        journal.close()
    sign_roster(directory, "inst", KEY, keep=day % 2 == 0)


def keys(directory: Path, *records: Any) -> None:
    journal = Journal.open(directory / "cli", origin="inst/cli", key=KEY)
    for record in records or (KeyChanged(actor="op", at=BEGIN, change="created", key="k"),):
        journal.append(record)
    journal.close()


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Files], bytes]:
    """A directory of logs with sealed, open and removed segments, its files at the end of each day, and what an auditor kept
    of an early one."""
    directory = tmp_path_factory.mktemp("days") / "audit"
    found, kept = [], b""
    clock = [BEGIN]
    patch = pytest.MonkeyPatch()
    patch.setattr("compliance.roster.time.time_ns", lambda: clock[0] * 1000)
    keys(directory)
    for day in range(6):
        clock[0] = BEGIN + day * DAY + 5_000_000
        write(directory, day)
        if day == 3:
            for one in retention.plan([directory / "slot-0", directory / "slot-1"], BEGIN + 2 * DAY, Holds()):
                keys(
                    directory,
                    Retention(
                        actor="op", at=BEGIN + day * DAY, before=BEGIN + 2 * DAY, first=one.segment.first, last=one.segment.last,
                        origin=one.origin, since=one.since, until=one.until,
                    ),
                )  # fmt: skip
                retention.remove(one)
            sign_roster(directory, "inst", KEY)
        found.append(load(directory))
        if day == 1:
            kept = (directory / "roster").read_bytes() + b"\n"
    patch.undo()
    assert any(name.endswith(".leaves") for name in found[-1])
    return directory, found, kept


def load(directory: Path) -> Files:
    return {
        file.relative_to(directory).as_posix(): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and file.name not in UNREAD
    }


def put(directory: Path, files: Files) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def said(report: verify.Report) -> Any:
    """All that a report proves; what no checkpoint covers it only counts."""
    rosters = report.rosters
    return (
        report.status, [(s.directory, s.origin, s.fingerprint, s.covered, s.checkpoints, s.removed, s.retentions) for s in report.slots],
        rosters and (rosters.count, rosters.number, rosters.at, rosters.marks),
    )  # fmt: skip


# --- what is done to them -------------------------------------------------------------------------------------


def bytes_(content: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    data = bytearray(content)
    at = dice.randrange(len(data) + 1)
    to = min(len(data), at + dice.choice((1, 1, 2, 5, 40, 200)))
    how = dice.choice(("flip", "set", "insert", "delete", "truncate", "repeat", "zero", "graft", "tail", "crlf"))
    if how == "flip" and data:
        data[at % len(data)] ^= 1 << dice.randrange(8)
    elif how == "set" and data:
        data[at % len(data)] = dice.choice((0, 9, 10, 13, 32, 43, 47, 48, 61, 226, 255, dice.randrange(256)))
    elif how == "insert":
        data[at:at] = bytes(dice.choice((10, 13, 32, 0, dice.randrange(256))) for _ in range(dice.choice((1, 1, 2, 3))))
    elif how == "delete":
        del data[at:to]
    elif how == "truncate":
        del data[at:]
    elif how == "repeat":
        data[to:to] = data[at:to]
    elif how == "zero":
        data[at:to] = bytes(to - at)
    elif how == "graft":
        other = dice.choice(others)
        begin = dice.randrange(len(other) + 1)
        data[at:to] = other[begin : begin + to - at]
    elif how == "tail":
        other = dice.choice(others)
        data += other[-dice.randrange(1, 400) :]
    else:
        data[at:] = bytes(data[at:]).replace(b"\n", b"\r\n", 1)
    return bytes(data)


def lines(content: bytes, dice: random.Random, separator: bytes) -> bytes:
    """Lines, or notes, which end with a blank line, taken out, exchanged, repeated or merged."""
    parts = content.split(separator)
    i, j = dice.randrange(len(parts)), dice.randrange(len(parts))
    how = dice.choice(("drop", "swap", "repeat", "reverse", "first", "merge"))
    if how == "drop":
        del parts[i]
    elif how == "swap":
        parts[i], parts[j] = parts[j], parts[i]
    elif how == "repeat":
        parts.insert(j, parts[i])
    elif how == "reverse":
        parts.reverse()
    elif how == "first":
        del parts[i:]
        parts.append(b"")
    else:
        parts[i : i + 2] = [b"".join(parts[i : i + 2])]
    return separator.join(parts)


def change(files: Files, history: list[Files], dice: random.Random) -> Files:
    after = dict(files)
    name = dice.choice(sorted(after))
    others = [content for content in after.values() if content]
    slots = sorted({name.partition("/")[0] for name in after if "/" in name})
    how = dice.choice(
        ("bytes",) * 8
        + ("lines", "lines", "gone", "moved", "exchanged", "older", "older", "slot", "slots", "note", "more")
    )
    if how == "bytes":
        after[name] = bytes_(after[name], dice, others)
    elif how == "lines":
        after[name] = lines(after[name], dice, dice.choice((b"\n", b"\n", b"\n\n")))
    elif how == "gone":
        del after[name]
    elif how == "moved":
        folder, _, last = name.rpartition("/")
        other = f"{dice.choice(slots)}/{last}" if folder else f"{last}.old"
        after[other] = after.pop(name)
    elif how == "exchanged":
        other = dice.choice(sorted(after))
        after[name], after[other] = after[other], after[name]
    elif how == "older":  # of one file, several, or all of a slot
        then = dice.choice(history[:-1])
        chosen = dice.choice(
            ([name], [one for one in after if one.rpartition("/")[2] == name.rpartition("/")[2]], ["roster", "rosters"])
        )
        for one in chosen:
            after.pop(one, None)
            if one in then:
                after[one] = then[one]
    elif how == "slot":
        then, slot = dice.choice(history), dice.choice(slots)
        keep = {one: content for one, content in then.items() if one.startswith(f"{slot}/")}
        after = {one: content for one, content in after.items() if not one.startswith(f"{slot}/")}
        after |= dice.choice(({}, keep, {one.replace(slot, "slot-7"): content for one, content in keep.items()}))
    elif how == "slots":  # two names exchanged
        one, two = dice.sample(slots, 2)
        other = {one: two, two: one}
        after = {
            (f"{other[folder]}/{last}" if (folder := path.partition("/")[0]) in other else path): content
            for path, content in after.items()
            for last in [path.partition("/")[2]]
        }
    elif how == "note":  # signed by somebody else
        origin = f"inst/{name.partition('/')[0]}" if "/" in name else "inst/roster"
        mine = checkpoints.sign(origin, dice.randrange(60), sha256(b"x").digest(), OTHER) + b"\n"
        target = dice.choice([one for one in sorted(after) if one.endswith(("checkpoints", "roster", "rosters"))])
        after[target] = mine + after[target] if dice.random() < 0.3 else after[target] + mine
    else:
        folder = f"{dice.choice([*slots, 'slot-9'])}/"
        after[folder + dice.choice(("key.pub", "checkpoints", "segment-000000000099.jsonl", "segment-x"))] = (
            dice.choice(others)
        )
    return after


def test_nothing_that_is_done_to_the_files_is_verified_as_something_else(
    days: tuple[Path, list[Files], bytes], tmp_path: Path
) -> None:
    _, history, kept = days
    copy = tmp_path / "audit"
    trusts: tuple[dict[str, Any], ...] = (
        {"fingerprint": FINGERPRINT}, {"since": kept}, {"fingerprint": FINGERPRINT, "since": kept},
    )  # fmt: skip
    put(copy, history[-1])
    expected = [said(verify.verify_directory(copy, **trust)) for trust in trusts]
    assert [status for status, *_ in expected] == [verify.VERIFIED] * 3
    dice = random.Random(19)
    uncaught: list[str] = []
    for number in range(400 * TIMES):
        after = history[-1]
        for _ in range(dice.choice((1, 1, 1, 1, 2, 3))):
            after = change(after, history, dice)
        if after == history[-1]:
            continue
        put(copy, after)
        which = dice.randrange(3)
        report = verify.verify_directory(copy, **trusts[which])
        if report.status == verify.NOT_VERIFIED:
            continue
        if said(report) != expected[which] and not older(after, history):
            changed = sorted(
                name for name in history[-1].keys() | after.keys() if after.get(name) != history[-1].get(name)
            )
            uncaught.append(f"{number}: {changed}\n{verify.words(report)}")
    assert not uncaught, "\n\n".join(uncaught[:3])


def older(after: Files, history: list[Files]) -> bool:
    """Is this how all of it once was?  Only what was kept outside tells."""
    return after in history[:-1]
