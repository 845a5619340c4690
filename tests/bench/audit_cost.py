"""What the audit log costs: CPU of a request's two records, and what a million records take to verify.

    .venv/bin/python tests/bench/audit_cost.py --records 1000000 --json audit_cost.json

Everything runs on one core, but for the last row, where the verifier may use all that there are.  CPU times are of the
whole process, its writer thread included; synchronisations are real, on the disk that the directory is on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance import checkpoints, verify
from compliance.journal import SEGMENT_RECORDS, Journal
from compliance.merkle import Frontier
from compliance.records import Decision, Outcome, encode
from compliance.tails import Voucher

GOAL_REQUEST = 45.0  # microseconds of CPU
GOAL_VERIFY = 10.0  # seconds for a million records
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BEGIN = 1_767_225_600 * 1_000_000
CONNECTIONS = 256
CHECKPOINT_EVERY = 200
"""Records between two checkpoints of the synthetic log: a hundred requests a second."""
GROUP = 8
"""Records of it that were written and synchronised together, and so have one MAC."""
_SCOPES = ("organisation:acme|day", "team:cardiology|month")


def decision(number: int, at: int, boundary: str) -> Decision:
    """As the proxy writes them, for a request with two identifiers."""
    local = boundary == "local"
    return Decision(
        action="keep_local" if local else "allow", actor="a1b2c3d4e5f60718", at=at, attempt=0, boundary=boundary, edits=(),
        findings=("ssn:1:messages[0].content", "name:2:messages[1].content") if local else (), hold=1_500_000_000, key="key_1a2b3c4d",
        model="gpt-4o", operation="chat", organisation="acme", overflow="", policy="7c1ed6c607adac7449e36445801dba18", project="intake",
        request=f"5f0c9a1b2c3d{number:08x}", routing="r", rule="default", scopes=_SCOPES, stream=True, surface="openai.chat",
        target="gpu/llama-3.1-70b" if local else "sky/gpt-4o", team="cardiology", tenant="clinic", trace="",
        vetoes=("sky/gpt-4o:compliance",) if local else (),
    )  # fmt: skip


def outcome(number: int, at: int, boundary: str) -> Outcome:
    """How that attempt ended."""
    return Outcome(
        at=at, attempt=0, boundary=boundary, bytes_in=4321, bytes_out=2310, cache_read=0, cache_write_1h=0, cache_write_5m=0,
        committed=True, connect_us=312, cost=123_456_789, ending="completed", error="", findings=(), first_us=91_234,
        hold=1_500_000_000, input=1234, key="key_1a2b3c4d", model="gpt-4o", organisation="acme", output=321, price="sky/gpt-4o",
        project="intake", quality="exact", queue_us=0, reasoning=0, request=f"5f0c9a1b2c3d{number:08x}", scopes=_SCOPES, status=200,
        target="gpu/llama-3.1-70b", team="cardiology", tenant="clinic", total_us=812_345,
    )  # fmt: skip


def write_log(directory: Path, count: int) -> None:
    """A slot's log of so many records as a journal leaves it, faster: nothing is synchronised."""
    directory.mkdir(parents=True)
    (directory / "key.pub").write_text(checkpoints.verifier_key("bench/slot-0", KEY.public_key()) + "\n")
    tree, voucher, group = Frontier(), Voucher(KEY, "bench/slot-0"), list[bytes]()
    with open(directory / "checkpoints", "wb") as notes:
        for first in range(0, count, SEGMENT_RECORDS):
            last = min(first + SEGMENT_RECORDS, count) - 1
            with open(directory / f"segment-{first:012d}-{last:012d}.jsonl", "wb") as file:
                for seq in range(first, last + 1):
                    number, at = seq // 2, BEGIN + seq * 5000
                    boundary = "local" if number % 3 else "cloud"
                    record = outcome(number, at, boundary) if seq & 1 else decision(number, at, boundary)
                    record.seq = seq
                    group.append(encode(record))
                    if len(group) < GROUP and seq < last:
                        continue
                    leaves = voucher.vouch(tree, group, seq)
                    file.write(b"\n".join(group) + b"\n")
                    group.clear()
                    for leaf in leaves:
                        tree.append(leaf)
                    if tree.size % CHECKPOINT_EVERY == 0 or tree.size == count:
                        notes.write(checkpoints.sign("bench/slot-0", tree.size, tree.root(), KEY) + b"\n")


@contextmanager
def one_core() -> Iterator[None]:
    """This process, and what it starts, on the core where it is now."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """(wall seconds, CPU seconds of this process and its children, result)."""
    began, cpu = time.perf_counter(), sum(os.times()[:4])
    result = work()
    return time.perf_counter() - began, sum(os.times()[:4]) - cpu, result


def journal_cost(directory: Path, requests: int, boundary: str) -> float:
    """Microseconds of CPU a request: its two records made, queued, written, synchronised and hashed into the tree.

    Those that leave wait for their decision's record, as the proxy does, which costs the event loop something as well.
    """
    journal = Journal.open(directory, origin="bench/slot-0", key=KEY)

    async def client(numbers: Sequence[int]) -> None:
        for number in numbers:
            seq = journal.append(decision(number, time.time_ns() // 1000, boundary))
            if boundary == "local":
                await asyncio.sleep(0)
            else:
                await journal.wait_durable(seq)
            journal.append(outcome(number, time.time_ns() // 1000, boundary))
            if journal.unwritten > 8192:
                await asyncio.sleep(0.005)

    async def serve() -> None:
        journal.bind(asyncio.get_running_loop())
        await asyncio.gather(*(client(range(first, requests, CONNECTIONS)) for first in range(CONNECTIONS)))

    _, cpu, _ = timed(lambda: asyncio.run(serve()))
    journal.close()
    return cpu / requests * 1e6


def idle_cost(requests: int) -> float:
    """Microseconds of CPU a request of the same without a log: tasks and turns of the event loop."""

    async def client(numbers: Sequence[int]) -> None:
        for _ in numbers:
            await asyncio.sleep(0)

    async def serve() -> None:
        await asyncio.gather(*(client(range(first, requests, CONNECTIONS)) for first in range(CONNECTIONS)))

    _, cpu, _ = timed(lambda: asyncio.run(serve()))
    return cpu / requests * 1e6


def verification(directory: Path, processes: int) -> tuple[float, float, verify.Report]:
    """(wall seconds, CPU seconds, report) of one verification against a pinned fingerprint."""
    fingerprint = sha256(KEY.public_key().public_bytes_raw()).hexdigest()
    return timed(lambda: verify.verify_directory(directory, fingerprint=fingerprint, processes=processes))


def main() -> int:
    """Print the table; write the same as JSON where asked for.  1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--directory", type=Path, help="where to work; default: a temporary directory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="audit-cost-", dir=options.directory))
    rows: list[dict[str, Any]] = []
    try:
        with one_core():
            idle = idle_cost(options.requests)
            for boundary, name in (
                ("local", "two records, nobody waits"),
                ("cloud", "two records, the decision durable first"),
            ):
                cost = journal_cost(work / boundary, options.requests, boundary) - idle
                rows.append(row(name, cost, "us CPU a request", GOAL_REQUEST))
            write_log(work / "slot-0", options.records)
            wall, cpu, report = verification(work / "slot-0", 1)
        assert report.status == verify.VERIFIED and report.slots[0].records == options.records, verify.words(report)
        scale = 1_000_000 / options.records
        name = f"verify {options.records} records"
        rows.append(row(f"{name}, one core", cpu * scale, "s CPU a million", GOAL_VERIFY))
        rows[-1] |= {"wall_s": round(wall * scale, 2), "checkpoints": report.slots[0].checkpoints}
        wall, cpu, _ = verification(work / "slot-0", os.cpu_count() or 1)
        rows.append(
            row(f"{name}, {os.cpu_count()} cores", wall * scale, "s a million")
        )  # on a busy host it measures that
        rows[-1]["cpu_s"] = round(cpu * scale, 2)
    finally:
        shutil.rmtree(work)
    for line in rows:
        judged = f"goal {line['goal']:g}  {'ok' if line['ok'] else 'MISSED'}" if line["goal"] else ""
        print(f"{line['case']:<42} {line['value']:>8.2f}  {line['unit']:<17} {judged}".rstrip())
    if options.json is not None:
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    return 0 if all(line["ok"] for line in rows) else 1


def row(case: str, value: float, unit: str, goal: float | None = None) -> dict[str, Any]:
    """One line of the table."""
    return {"case": case, "value": round(value, 2), "unit": unit, "goal": goal, "ok": goal is None or value <= goal}


if __name__ == "__main__":
    raise SystemExit(main())
