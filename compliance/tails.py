"""What vouches for the newest records of a log, which no checkpoint covers yet: a MAC in the last record of each group.  Pure.

A record that ends a group, which is what one write and one sync put on the disk, has a field `seq_mac` after its `seq`:
HMAC-SHA256, its first 128 bits in hex, under a key derived from the signing key and the log's origin (HKDF, RFC 5869), over

    SIZE COUNT SUBTREES LEAVES LAST

the number of records before the group and of the group's own (eight bytes each), the roots of the perfect subtrees over
the former, the leaf hashes of the latter but the last, and the last one's line without its MAC.  So each MAC is over
everything before it, MACs included, and one of an older tail fits nowhere else.  It stands in the record itself, and so
it is on the disk with it or not at all.

Whoever owns the files, but not the key, can take records off the end, and add none.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from compliance.checkpoints import Checkpoint
from compliance.merkle import Frontier, leaf_hash, leaf_hashes

MAC_DIGITS = 32
"""Hex digits of a MAC: 128 bits."""
_HAS = b',"seq_mac":"'  # a quote inside a string is escaped, so this is a field and nothing else
_FIELD = re.compile(rb',"seq_mac":"([0-9a-f]{32})"')


class NotSigned(Exception):
    """Records are not those that were signed."""


class Voucher:
    """Makes and checks the MACs of one log."""

    def __init__(self, key: Ed25519PrivateKey, origin: str) -> None:
        secret = key.private_bytes_raw()
        self._tail = _derived(secret, f"spillway log tail 1\n{origin}")
        self._mark = _derived(secret, f"spillway log mark 1\n{origin}")

    def vouch(self, frontier: Frontier, lines: list[bytes], seq: int) -> list[bytes]:
        """Give the last of a group's lines, whose sequence is `seq`, the MAC; the group's leaf hashes."""
        line = lines[-1]
        leaves = leaf_hashes(lines[:-1])
        field = b',"seq":%d' % seq
        after = line.index(field) + len(field)
        lines[-1] = line = b'%b,"seq_mac":"%b"%b' % (line[:after], self.mac(frontier, leaves, line), line[after:])
        leaves.append(leaf_hash(line))
        return leaves

    def mac(self, frontier: Frontier, leaves: Sequence[bytes], last: bytes) -> bytes:
        """Of a group of records with these leaves, and this last line, after the records of `frontier`; hex digits."""
        sizes = frontier.size.to_bytes(8, "big") + (len(leaves) + 1).to_bytes(8, "big")
        said = b"".join([sizes, *frontier.hashes, *leaves, last])
        return hmac.digest(self._tail, said, "sha256").hex()[:MAC_DIGITS].encode()

    def mark_mac(self, mark: Mapping[str, Any]) -> str:
        """Of what is left for the next start, in hex."""
        said = json.dumps({name: value for name, value in mark.items() if name != "mac"}, sort_keys=True)
        return hmac.digest(self._mark, said.encode(), "sha256").hex()


class Chain:
    """Takes a log's lines in their order and says up to where they are signed or vouched for: that is `frontier`."""

    def __init__(self, voucher: Voucher, frontier: Frontier, signed: Checkpoint, *, marked: bool) -> None:
        """`frontier`: where to begin; `signed`: the newest checkpoint; `marked`: this version wrote the log before."""
        self.frontier = frontier
        self.unvouched = 0  # records of an earlier version, taken all the same
        self._voucher = voucher
        self._signed = signed
        self._waiting: list[bytes] = []  # leaf hashes of a group whose end has not come
        self._strict = marked or not signed.size
        self._broken = False
        self.check_signed()

    def check_signed(self) -> None:
        """Raises `NotSigned`."""
        if self.frontier.size == self._signed.size and self.frontier.root() != self._signed.root:
            raise NotSigned(f"the first {self._signed.size} records are not those that were signed")

    def leaf(self, leaf: bytes) -> None:
        """The leaf hash of a record that is not here any more: what was removed had been signed.  Raises `NotSigned`."""
        if self.frontier.size >= self._signed.size:
            raise NotSigned(f"record {self.frontier.size} was removed, and had never been signed")
        self.frontier.append(leaf)
        self._strict = True
        self.check_signed()

    def line(self, line: bytes) -> bool:
        """One more record; is everything up to it signed or vouched for?  Raises `NotSigned`."""
        if self.frontier.size < self._signed.size:
            self.frontier.append(leaf_hash(line))
            if self.frontier.size == self._signed.size:
                self._strict = (
                    self._strict or _HAS in line
                )  # each group ends with a MAC, and a checkpoint after a group
                self.check_signed()
            return True
        if self._broken:
            return False
        field = _FIELD.search(line)
        if field is None:
            self._waiting.append(leaf_hash(line))
            return False
        plain = line[: field.start()] + line[field.end() :]
        if not hmac.compare_digest(self._voucher.mac(self.frontier, self._waiting, plain), field[1]):
            self._broken = True
            return False
        self._grow([*self._waiting, leaf_hash(line)])
        self._strict = True
        return True

    def end(self) -> bool:
        """There are no more; True: those that waited are taken, since a version before this one left the log."""
        if self._strict or self._broken:
            return False
        self.unvouched = len(self._waiting)
        self._grow(self._waiting)
        return self.unvouched > 0

    def _grow(self, leaves: Sequence[bytes]) -> None:
        self.frontier.extend(leaves)
        self._waiting = []


def _derived(secret: bytes, use: str) -> bytes:
    return HKDF(SHA256(), 32, None, use.encode()).derive(secret)
