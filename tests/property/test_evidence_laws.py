"""No changed pack passes: hundreds of mutations, each against a pinned fingerprint or an earlier checkpoint.

`SPILLWAY_SOAK=1` runs twenty times as many.  Three adversaries: one without the key (who may sign with another), the
owner of the key who edits a pack but not the tree, and the owner who forked the log.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logs import BEGIN, DAY, KEY, POLICY, write_logs
from packs import changed, load, mutate, rehash, sign

from compliance import checkpoints, evidence, verify
from compliance.journal import Journal
from compliance.lookup import Query
from compliance.records import KeyChanged
from compliance.roster import sign_roster

TIMES = 20 if os.environ.get("SPILLWAY_SOAK") else 1
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
FINGERPRINT = sha256(KEY.public_key().public_bytes_raw()).hexdigest()
PERIOD = Query(begin=BEGIN + DAY + 1, end=BEGIN + DAY + 5 * 3_600_000_000)
CHOSEN = Query(tenant=("clinic",))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, dict[str, Path]]:
    """A directory, what an auditor kept of an early visit, and a pack of a period and one of chosen records."""
    directory = tmp_path_factory.mktemp("evidence")
    logs = write_logs(directory / "audit", runs=3)
    notes = [verify.read_notes(log / "checkpoints")[0] for log in logs]
    packs = {}
    for name, query in (("period", PERIOD), ("chosen", CHOSEN)):
        packs[name] = directory / name
        evidence.export(
            logs,
            packs[name],
            key=KEY,
            query=query,
            csv=True,
            since=b"".join(note + b"\n" for note in notes[:2]),
            policy=lambda _: POLICY,
        )
    return directory, b"".join(note + b"\n" for note in notes[:2]), packs


def replace_key(pack: dict[str, bytes], name: str, key: Ed25519PrivateKey) -> None:
    origin = f"inst/{name.partition('/')[0]}" if "/" in name else "inst/evidence"
    pack[name] = checkpoints.verifier_key(origin, key.public_key()).encode() + b"\n"


def trust(dice: random.Random, notes: bytes) -> dict[str, Any]:
    return dice.choice(
        ({"fingerprint": FINGERPRINT}, {"since": notes}, {"fingerprint": f"sha256:{FINGERPRINT}", "since": notes})
    )


def test_a_pack_that_nobody_changed_is_verified(kept: tuple[Path, bytes, dict[str, Path]]) -> None:
    _, notes, packs = kept
    for pack in packs.values():
        assert verify.verify_directory(pack).status == verify.UNANCHORED
        for trusted in ({"fingerprint": FINGERPRINT}, {"since": notes}, {"fingerprint": FINGERPRINT, "since": notes}):
            report = verify.verify_directory(pack, **trusted)
            assert report.status == verify.VERIFIED, verify.words(report)


def test_whoever_has_not_the_key_changes_nothing(kept: tuple[Path, bytes, dict[str, Path]]) -> None:
    """One file changed, dropped or added, the manifest made to fit or not, signed with another key or not."""
    _, notes, packs = kept
    dice = random.Random(1)
    wholes = {name: load(pack) for name, pack in packs.items()}
    for number in range(500 * TIMES):
        name = dice.choice(list(packs))
        before = wholes[name]
        after = dict(before)
        victim = dice.choice(list(after))
        how = dice.choice(("change", "change", "change", "change", "drop", "add", "move"))
        if how == "change":
            after[victim] = mutate(after[victim], dice, list(after.values()))
        elif how == "add":
            after[f"{dice.choice(('cli', 'slot-0', 'policies'))}/more"] = b"{}\n"
        else:
            content = after.pop(victim)
            if how == "move":
                after[f"{victim}.old"] = content
        if "manifest.json" in after and dice.random() < 0.6:
            try:
                rehash(after)
            except ValueError:
                pass  # the manifest itself was changed
            if dice.random() < 0.7 and "manifest.json" in after:
                sign(after, OTHER)
                for key in [file for file in after if file.endswith(".pub") and dice.random() < 0.7]:
                    replace_key(after, key, OTHER)
                    if dice.random() < 0.5:
                        try:
                            rehash(after)
                        except ValueError:
                            pass
                        sign(after, OTHER)
        if after == before:
            continue
        with changed(packs[name], before, after):
            report = verify.verify_directory(packs[name], **trust(dice, notes))
        assert report.status == verify.NOT_VERIFIED, (number, name, victim, how)


def test_the_owner_of_the_key_who_edits_a_pack_of_a_period_is_caught(kept: tuple[Path, bytes, dict[str, Path]]) -> None:
    """Every file of the log's is changed, and the manifest hashed and signed anew with the right key."""
    _, notes, packs = kept
    dice = random.Random(2)
    pack, before = packs["period"], load(packs["period"])
    of_logs = [name for name in before if "/" in name]
    for number in range(300 * TIMES):
        after = dict(before)
        victim = dice.choice(of_logs)
        after[victim] = mutate(after[victim], dice, [before[name] for name in of_logs])
        rehash(after)
        sign(after, KEY)
        with changed(pack, before, after):
            report = verify.verify_directory(pack, **trust(dice, notes))
        assert report.status == verify.NOT_VERIFIED, (number, victim, after[victim])


def test_records_taken_out_of_a_period_with_their_proofs_are_missed(kept: tuple[Path, bytes, dict[str, Path]]) -> None:
    _, notes, packs = kept
    dice = random.Random(3)
    pack, before = packs["period"], load(packs["period"])
    count = before["slot-0/records.jsonl"].count(b"\n")
    for _ in range(40 * TIMES):
        gone = set(dice.sample(range(count), dice.randint(1, count)))
        fewer = dice.choice((0, len(gone)))
        after = dict(before)
        del after["slot-0/records.csv"]
        for name in ("slot-0/records.jsonl", "slot-0/proofs.jsonl"):
            after[name] = b"".join(
                line for i, line in enumerate(before[name].splitlines(keepends=True)) if i not in gone
            )

        def edit(manifest: dict[str, Any], fewer: int = fewer, shift: int = dice.choice((0, len(gone)))) -> None:
            manifest["slots"][1]["records"] -= fewer
            manifest["slots"][1]["first"] += shift

        rehash(after, edit)
        sign(after, KEY)
        with changed(pack, before, after):
            report = verify.verify_directory(pack, **trust(dice, notes))
        assert report.status == verify.NOT_VERIFIED, gone


EDITS: list[Callable[[dict[str, Any]], Any]] = [
    lambda m: m.update({"from": m["from"] - 2 * DAY}),
    lambda m: m.update({"from": m["from"] + DAY // 12}),
    lambda m: m.update({"to": m["to"] + DAY}),
    lambda m: m.update({"to": m["to"] - DAY // 12}),
    lambda m: m.update({"from": "0"}),
    lambda m: m.update({"format": "spillway-evidence-pack/2"}),
    lambda m: m.update({"chosen": {"tenant": ["clinic"]}}),
    lambda m: m.update({"chosen": None}),
    lambda m: m.update({"slots": []}),
    lambda m: m.update({"slots": {}}),
    lambda m: m["slots"].pop(),
    lambda m: m["slots"].append(m["slots"][0]),
    lambda m: m["slots"][1].update({"size": m["slots"][1]["size"] + 1}),
    lambda m: m["slots"][1].update({"origin": "inst/cli"}),
    lambda m: m["slots"][1].update({"folder": "cli"}),
    lambda m: m["slots"][1].update({"folder": "../evidence"}),
    lambda m: m["slots"][1].update({"first": None}),
    lambda m: m["files"].update({"../audit/key": "0"}),
    lambda m: m["files"].pop("slot-0/records.jsonl"),
    lambda m: m.clear(),
]


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_an_edited_manifest_is_caught_whoever_signs_it(kept: tuple[Path, bytes, dict[str, Path]], number: int) -> None:
    _, notes, packs = kept
    before = load(packs["period"])
    for key in (None, OTHER, KEY):
        after = dict(before)
        rehash(after, EDITS[number])
        if key is not None:
            sign(after, key)
        with changed(packs["period"], before, after):
            for trusted in ({"fingerprint": FINGERPRINT}, {"since": notes}):
                report = verify.verify_directory(packs["period"], **trusted)
                assert report.status == verify.NOT_VERIFIED, (number, key)
                assert verify.words(report).count("NOT VERIFIED") >= 1


def test_a_log_forked_by_the_owner_of_the_key_is_caught_by_an_earlier_checkpoint(tmp_path: Path) -> None:
    """The log is written again with one record changed; packs of it are well by themselves."""
    dice = random.Random(4)

    def write(log: Path, other: int) -> list[bytes]:
        for run in range(6):
            journal = Journal.open(log, origin="inst/slot-0", key=KEY)
            for i in range(5):
                number = 5 * run + i
                actor = "somebody" if number == other else "admin"
                journal.append(KeyChanged(actor=actor, at=BEGIN + number, change="created", key=f"key_{number}"))
            journal.close()
        sign_roster(log.parent, "inst", KEY)
        return verify.read_notes(log / "checkpoints")

    notes = write(tmp_path / "true" / "slot-0", -1)
    for _ in range(25 * TIMES):
        shutil.rmtree(tmp_path / "fork", ignore_errors=True)
        other = dice.randrange(30)
        write(tmp_path / "fork" / "slot-0", other)
        pack = tmp_path / "fork" / "pack"
        evidence.export([tmp_path / "fork" / "slot-0"], pack, key=KEY, query=Query(begin=BEGIN + dice.randrange(30)))
        assert verify.verify_directory(pack, fingerprint=FINGERPRINT).status == verify.VERIFIED
        since = notes[dice.randrange(other // 5, 6)]  # covers the changed record
        assert verify.verify_directory(pack, since=since).status == verify.NOT_VERIFIED
        with pytest.raises(evidence.EvidenceError, match="no continuation"):
            evidence.export(
                [tmp_path / "fork" / "slot-0"], tmp_path / "no", key=KEY, query=Query(), since=since + b"\n"
            )
        # both histories in one pack
        before = load(pack)
        mixed = [since, *verify.split_notes(before["slot-0/checkpoints"])[1:]]
        after = before | {"slot-0/checkpoints": b"".join(note + b"\n" for note in mixed)}
        rehash(after)
        sign(after, KEY)
        with changed(pack, before, after):
            assert verify.verify_directory(pack, fingerprint=FINGERPRINT).status == verify.NOT_VERIFIED


def test_no_byte_of_a_signed_manifest_note_may_change(kept: tuple[Path, bytes, dict[str, Path]]) -> None:
    """Every byte replaced, left out, or put in at every place."""
    path = kept[2]["period"] / "manifest.note"
    note = path.read_bytes()
    others = range(256) if os.environ.get("SPILLWAY_SOAK") else (0, 10, 13, 32, 61, 97, 255)
    tried = {note[:at] + note[at + 1 :] for at in range(len(note))}
    tried |= {
        note[:at] + bytes([other]) + note[at + more :]
        for at in range(len(note) + 1)
        for other in others
        for more in (0, 1)
    }
    public = KEY.public_key()
    for changed_ in tried - {note}:
        with pytest.raises(verify.Broken):
            verify.open_single(changed_, "inst/evidence", public)
