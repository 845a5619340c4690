"""Known vectors of RFC 6962 and of the C2SP formats, published by their reference implementations, and proofs."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from tests_records import decision, outcome

from compliance import verify
from compliance.checkpoints import BadNote, key_hash, open_note, open_text, sign, sign_text, verifier_key
from compliance.merkle import (
    EMPTY_ROOT,
    Frontier,
    Tree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)
from compliance.records import decode, encode
from compliance.verify import _canonical

LEAVES = [
    bytes.fromhex(h)
    for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_known_roots() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT
    for leaf, expected in zip(LEAVES, ROOTS, strict=True):
        frontier.append(leaf_hash(leaf))
        assert frontier.root().hex() == expected
    assert node_hash(b"N123", b"N456").hex() == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"


# (leaf, index, size, path, root) and (first, root, second, root, path) of the trees over LEAVES: the proofs that
# transparency-dev/merkle publishes as test data (testdata/inclusion, testdata/consistency)
_L0, _N01, _N47 = ROOTS[0], ROOTS[1], "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
_L1, _N23 = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
)
_L4, _N67 = (
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
)
_N45, _L6 = (
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
)
_L2, _L5 = (
    "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7",
    "4271a26be0d8a84f0bd54c8c302e7cb3a3b5d1fa6780a40bcce2873477dab658",
)
INCLUSION = [
    (_L0, 0, 1, [], ROOTS[0]), (_L0, 0, 8, [_L1, _N23, _N47], ROOTS[7]), (_L5, 5, 8, [_L4, _N67, ROOTS[3]], ROOTS[7]),
    (_L2, 2, 3, [_N01], ROOTS[2]), (_L1, 1, 5, [_L0, _N23, _L4], ROOTS[4]),
]  # fmt: skip
CONSISTENCY = [
    (1, ROOTS[0], 1, ROOTS[0], []), (1, ROOTS[0], 8, ROOTS[7], [_L1, _N23, _N47]), (6, ROOTS[5], 8, ROOTS[7], [_N45, _N67, ROOTS[3]]),
    (2, ROOTS[1], 5, ROOTS[4], [_N23, _L4]), (6, ROOTS[5], 7, ROOTS[6], [_N45, _L6, ROOTS[3]]),
]  # fmt: skip


@pytest.mark.parametrize(("leaf", "index", "size", "path", "whole"), INCLUSION)
def test_known_inclusion_proofs(leaf: str, index: int, size: int, path: list[str], whole: str) -> None:
    proof = [bytes.fromhex(node) for node in path]
    leaves = [leaf_hash(data) for data in LEAVES[:size]]
    assert inclusion_proof(leaves, index) == Tree(b"".join(leaves)).inclusion(index) == proof
    for check in (verify_inclusion, verify._included):
        given = bytes.fromhex(leaf), index, size, proof, bytes.fromhex(whole)
        assert check(*given)
        for wrong in _wrong(given):
            assert not check(*wrong), wrong
    assert not verify_inclusion(b"", 0, 1, [], b"") and not verify._included(b"", 0, 1, [], b"")


@pytest.mark.parametrize(("first", "before", "second", "after", "path"), CONSISTENCY)
def test_known_consistency_proofs(first: int, before: str, second: int, after: str, path: list[str]) -> None:
    proof = [bytes.fromhex(node) for node in path]
    leaves = [leaf_hash(data) for data in LEAVES[:second]]
    assert consistency_proof(leaves, first) == Tree(b"".join(leaves)).consistency(first) == proof
    for check in (verify_consistency, verify._consistent):
        given = first, bytes.fromhex(before), second, bytes.fromhex(after), proof
        assert check(*given)
        for wrong in _wrong(given):
            assert not check(*wrong), wrong
        assert not check(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])


def _wrong(given: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The mutations of the same test data: other numbers and hashes, nodes too many, too few, and in another order."""
    for position, value in enumerate(given):
        others: list[Any] = []
        if isinstance(value, bytes):
            others = [b"", bytes(32), value[:31], value[:31] + bytes([value[31] ^ 16]), EMPTY_ROOT]
        elif isinstance(value, list):
            others = [
                [*value, b""],
                [*value, bytes(32)],
                [bytes(32), *value],
                [*value, given[-1] if isinstance(given[-1], bytes) else given[3]],
            ]
            others += (
                [value[:-1], value[1:], [*value, *value], value[::-1]] if len(value) > 1 else [[]] if value else []
            )
            others += [[*value[:i], bytes([node[0] ^ 16]) + node[1:], *value[i + 1 :]] for i, node in enumerate(value)]
        elif position == 1:
            others = [-1, value ^ 1, 1 << 63]
        else:  # sizes near to the right one may have a path of the same form
            others = [-1, 0, 1 << 63]
        for other in others:
            if other != value:
                yield (*given[:position], other, *given[position + 1 :])


@pytest.mark.parametrize("size", range(1, 20))
def test_every_proof_verifies_and_no_other(size: int) -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    whole = root(leaves)
    for index in range(size):
        proof = inclusion_proof(leaves, index)
        assert verify_inclusion(leaves[index], index, size, proof, whole)
        assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, whole)
        assert not verify_inclusion(leaves[index], (index + 1) % (size + 1), size, proof, whole) or size == 1
        if proof:
            assert not verify_inclusion(leaves[index], index, size, proof[:-1], whole)
    for first in range(1, size + 1):
        before, proof = root(leaves[:first]), consistency_proof(leaves, first)
        assert verify_consistency(first, before, size, whole, proof)
        assert not verify_consistency(first, root([*leaves[: first - 1], leaf_hash(b"x")]), size, whole, proof)


def test_a_frontier_is_restored_only_in_its_shape() -> None:
    with pytest.raises(ValueError, match="perfect subtrees"):
        Frontier(3, [b"x"])


def test_a_checkpoint_is_a_signed_note() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    note = sign("example.com/log", 7, bytes(32), key)
    lines = note.decode().split("\n")
    assert lines[:4] == ["example.com/log", "7", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ""]
    assert lines[4].startswith("— example.com/log ")
    opened = open_note(note, "example.com/log", key.public_key())
    assert (opened.origin, opened.size, opened.root) == ("example.com/log", 7, bytes(32))
    assert (
        verifier_key("example.com/log", key.public_key()).split("+")[1]
        == key_hash("example.com/log", key.public_key()).hex()
    )
    for bad in (note.replace(b"\n7\n", b"\n8\n"), note.replace(b"example", b"exbmple"), b"", note[:-40]):
        with pytest.raises((BadNote, ValueError)):
            open_note(bad, "example.com/log", key.public_key())


def test_the_verifier_key_of_the_signed_note_specification() -> None:
    """The example of C2SP signed-note: name, hash and key as the specification's reference code makes them."""
    text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert verifier_key("PeterNeumann", public_key(text)) == text


def public_key(text: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.split("+", 2)[2])[1:])


def test_published_notes_are_verified() -> None:
    """Of golang.org/x/mod/sumdb/note, and the checkpoint of C2SP tlog-checkpoint as sum.golang.org signed it."""
    peter = public_key("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    note = f"{text}\n— PeterNeumann {signature}\n".encode()
    assert open_text(note, "PeterNeumann", peter) == text
    assert verify._verified(note, "PeterNeumann", peter) == text.split("\n")[:-1]
    with pytest.raises(BadNote):
        open_note(note, "PeterNeumann", peter)  # no checkpoint
    google = public_key("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
    root_ = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
    signature = "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8="
    note = f"go.sum database tree\n20852163\n{root_}\n\n— sum.golang.org {signature}\n".encode()
    opened = open_note(note, "sum.golang.org", google)
    assert (opened.origin, opened.size, opened.root) == ("go.sum database tree", 20_852_163, base64.b64decode(root_))
    assert verify._verified(note, "sum.golang.org", google)[1] == "20852163"
    for at in range(len(note)):
        for bit in (1, 32):
            changed = note[:at] + bytes([note[at] ^ bit]) + note[at + 1 :]
            with pytest.raises((BadNote, ValueError)):
                open_note(changed, "sum.golang.org", google)
            with pytest.raises(verify.Broken):
                verify._verified(changed, "sum.golang.org", google)


def test_signatures_of_others_are_passed_over_and_a_text_may_have_empty_lines() -> None:
    """C2SP signed-note: unknown signatures are ignored, and the last empty line is where the text ends."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    other = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    text = "one\n\n— not a signature\n\ntwo\n"
    note = sign_text("a/log", text, key)
    witnessed = note.replace(
        "— a/log".encode(), sign_text("a/witness", text, other).split(b"\n\n")[-1] + "— a/log".encode()
    )
    for signed in (note, witnessed):
        assert open_text(signed, "a/log", key.public_key()) == text
        assert verify._verified(signed, "a/log", key.public_key()) == text.split("\n")[:-1]
    with pytest.raises(BadNote):
        open_text(note, "a/witness", other.public_key())


def test_records_are_canonical_as_they_are_encoded() -> None:
    for record in (decision("é\u2028", vetoes=("a:b",)), outcome("x", cost=1 << 62)):
        line = encode(record)
        assert _canonical(line, "here")["kind"] == record.kind
        assert decode(line) == record


def test_a_whole_tree_proves_what_the_definitions_prove() -> None:
    for size in range(40):
        leaves = [leaf_hash(bytes([number])) for number in range(size)]
        tree = Tree(b"".join(leaves))
        assert (tree.size, tree.root()) == (size, root(leaves))
        for index in range(size):
            assert tree.inclusion(index) == inclusion_proof(leaves, index)
            assert tree.consistency(index + 1) == consistency_proof(leaves, index + 1)
    for wrong in (-1, 39):
        with pytest.raises(IndexError):
            tree.inclusion(wrong)
        with pytest.raises(IndexError):
            tree.consistency(wrong + 1)


def test_the_verifiers_tree_grows_by_any_steps_to_the_same_root() -> None:
    dice = random.Random(1)
    for _ in range(200):
        tree, leaves = verify._Tree(), [leaf_hash(bytes([dice.randrange(256)])) for _ in range(dice.randrange(140))]
        done = 0
        while done < len(leaves):
            step = dice.choice((1, 1, 2, 3, 8, dice.randrange(1, 70)))
            tree.extend(b"".join(leaves[done : done + step]))
            done = min(done + step, len(leaves))
            assert (tree.size, tree.root()) == (done, root(leaves[:done]))
        assert tree.root() == root(leaves)
