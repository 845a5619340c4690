"""RFC 6962 Merkle trees: hashing, the incremental frontier, inclusion and consistency proofs.  Pure.

Source: RFC 6962, section 2.1 (the same tree as RFC 9162, section 2.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash of one entry: SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """The hash of each entry."""
    return [sha256(b"\x00" + entry).digest() for entry in entries]


class Frontier:
    """What must be kept of a tree to append to it: the roots of its perfect subtrees, largest first."""

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        if len(hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} perfect subtrees, not {len(hashes)}")
        self.size = size
        self.hashes = list(hashes)

    def append(self, leaf: bytes) -> None:
        """Add a leaf's hash; amortised O(1)."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaf hashes in their order; the calls are spared that `append` and `node_hash` would cost each."""
        hashes, size = self.hashes, self.size
        for leaf in leaves:
            carry = size
            while carry & 1:
                leaf = sha256(b"\x01" + hashes.pop() + leaf).digest()
                carry >>= 1
            hashes.append(leaf)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """The tree's root; O(log n)."""
        if not self.hashes:
            return EMPTY_ROOT
        result = self.hashes[-1]
        for subtree in reversed(self.hashes[:-1]):
            result = node_hash(subtree, result)
        return result


class Tree:
    """A whole tree, each of its nodes kept: any number of proofs, each in O(log n).  64 bytes a leaf."""

    def __init__(self, leaves: bytes | bytearray) -> None:
        """`leaves`: leaf hashes, one after another."""
        self.size = len(leaves) // 32
        self._levels = [bytes(leaves)]  # the last node of a level that has no neighbour goes up as it is
        while len(below := self._levels[-1]) > 32:
            above = bytearray()
            for at in range(0, len(below), 64):
                pair = below[at : at + 64]
                above += sha256(b"\x01" + pair).digest() if len(pair) == 64 else pair
            self._levels.append(bytes(above))

    def root(self) -> bytes:
        """The root over all leaves."""
        return self._levels[-1] or EMPTY_ROOT

    def inclusion(self, index: int) -> list[bytes]:
        """As `inclusion_proof`."""
        if not 0 <= index < self.size:
            raise IndexError(f"no leaf {index} in a tree of {self.size}")
        siblings = [level[32 * (at := (index >> k) ^ 1) : 32 * at + 32] for k, level in enumerate(self._levels)]
        return [sibling for sibling in siblings if sibling]

    def consistency(self, first: int) -> list[bytes]:
        """As `consistency_proof`."""
        if not 0 < first <= self.size:
            raise IndexError(f"no prefix of {first} in a tree of {self.size}")
        proof: list[bytes] = []
        low, high, whole = 0, self.size, True
        while first != high:
            split = low + _split(high - low)
            if first <= split:
                proof.append(self._node(split, high))
                high = split
            else:
                proof.append(self._node(low, split))
                low, whole = split, False
        return proof[::-1] if whole else [self._node(low, high), *proof[::-1]]

    def _node(self, low: int, high: int) -> bytes:
        """The root over [low, high), a subtree of this tree."""
        height = (high - low - 1).bit_length()
        at = 32 * (low >> height)
        return self._levels[height][at : at + 32]


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """PATH(m, D[n]) of section 2.1.1; the nearest sibling first."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"no leaf {index} in a tree of {len(leaves)}")
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(leaves[:split], index), root(leaves[split:])]
    return [*inclusion_proof(leaves[split:], index - split), root(leaves[:split])]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> bool:
    """Does `proof` show that `leaf` is entry `index` of the tree of `size` with root `expected`?  (RFC 9162, 2.1.3.2)"""
    if not 0 <= index < size or len(leaf) != 32:
        return False
    node, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            result = node_hash(result, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and result == expected


def consistency_proof(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """PROOF(m, D[n]) of section 2.1.2: the first `first` leaves are a prefix of `leaves`."""
    if not 0 < first <= len(leaves):
        raise IndexError(f"no prefix of {first} in a tree of {len(leaves)}")
    return _subproof(first, leaves, whole=True)


def _subproof(first: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    if first == len(leaves):
        return [] if whole else [root(leaves)]
    split = _split(len(leaves))
    if first <= split:
        return [*_subproof(first, leaves[:split], whole=whole), root(leaves[split:])]
    return [*_subproof(first - split, leaves[split:], whole=False), root(leaves[:split])]


def verify_consistency(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Is the tree of `first` leaves a prefix of the tree of `second`?  (RFC 9162, 2.1.4.2)"""
    if first == second > 0:
        return not proof and first_root == second_root
    if not 0 < first < second or not proof:
        return False
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    node, last = first - 1, second - 1
    while node & 1:
        node >>= 1
        last >>= 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and old == first_root and new == second_root


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1
