"""Known vectors of RFC 6962 (those of the certificate-transparency reference implementation), and proofs."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests_records import decision, outcome

from compliance.checkpoints import BadNote, key_hash, open_note, sign, verifier_key
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
    import base64

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(text.split("+", 2)[2])[1:])
    assert verifier_key("PeterNeumann", public) == text


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
