"""Small logs of two slots with several restarts, for tests of evidence and search."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests_records import decision, outcome

from compliance.journal import Journal
from compliance.records import KeyChanged
from compliance.roster import sign_roster

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
DAY = 86_400 * 1_000_000
BEGIN = 1_767_225_600 * 1_000_000  # 2026-01-01
POLICY = b'{"a policy":"whole"}'
POLICY_HASH = "7c1ed6c607adac7449e36445801dba18"
RUNS = 5  # each ends with a checkpoint
REQUESTS = 9  # of a run: a decision and an outcome each


def write_logs(directory: Path, *, key: Ed25519PrivateKey = KEY, runs: int = RUNS, actor: str = "") -> list[Path]:
    """slot-0 and slot-1: a day a run, nine requests a day; `cli`: one key made; and a roster over all."""
    for number, slot in enumerate(("slot-0", "slot-1")):
        for run in range(runs):
            journal = Journal.open(directory / slot, origin=f"inst/{slot}", key=key, segment_records=25)
            for i in range(REQUESTS):
                at = BEGIN + run * DAY + i * 3_600_000_000
                request = f"r{number}-{run}-{i}"
                cloud = i % 3 == 0
                journal.append(
                    decision(
                        request, at=at, actor=actor, tenant=("clinic", "lab")[i % 2], project=f"app{i % 4}", policy=POLICY_HASH,
                        action="allow" if cloud else "keep_local", target="sky/gpt" if cloud else "gpu/llama",
                        boundary="cloud" if cloud else "local", findings=() if cloud else ("ssn:1:messages[0].content",),
                        vetoes=("sky/gpt:compliance",),
                    )
                )  # fmt: skip
                if i != 8:
                    journal.append(
                        outcome(
                            request, at=at + 1000, ending="failed" if i == 7 else "completed", cost=i, target="x",
                            error="=timeout" if i == 7 else "",
                        )
                    )  # fmt: skip
            journal.close()
    (directory / "instance").write_text("inst")
    journal = Journal.open(directory / "cli", origin="inst/cli", key=key)
    journal.append(KeyChanged(actor=actor or "admin", at=BEGIN + DAY, change="created", key="key_1"))
    journal.close()
    sign_roster(directory, "inst", key, keep=True)
    return sorted(path.parent for path in directory.glob("*/key.pub"))
