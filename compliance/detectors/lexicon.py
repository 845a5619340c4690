"""Which words are given names, surnames, towns, regions or common words: a hash table of some 200,000 words.

The table is `compliance/models/lexicon.bin`, made by `training/lexicon.py` (sources and licences: beside it).  It
holds the CRC-32 of each word, never the word: 5 bytes a slot.  Two words may share a CRC; one in 20,000 words that
are in no list is taken for one that is.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from zlib import crc32

GIVEN = 1
SURNAME = 2
TOWN = 4  # the whole name of a town; words of it are joined by one space
FREQUENT = 8  # one of the frequent given names or surnames
COMMON = 16  # a frequent English word in lower case
WORD = 32  # any English word, and the words of other kinds of text
REGION = 64  # countries, states, peoples, languages, months, days
TOWN_PART = 128  # one word of a town's name of several words

_MAGIC = b"SPLX1\n"


class Lexicon:
    """Words in lower case -> flags.  Read-only, so thread-safe."""

    def __init__(self, path: Path | None = None) -> None:
        data = (path or Path(__file__).parent.parent / "models" / "lexicon.bin").read_bytes()
        if not data.startswith(_MAGIC):
            raise ValueError("not a lexicon")
        bits = data[len(_MAGIC)]
        self._size = 1 << bits
        at = len(_MAGIC) + 1
        if len(data) != at + 5 * self._size:
            raise ValueError("a lexicon of the wrong length")
        # Little-endian on disk.  A copy that starts at an even address is what `cast` wants.
        self._keys = memoryview(data[at : at + 4 * self._size]).cast("I")
        self._flags = data[at + 4 * self._size :]

    def flags(self, word: str) -> int:
        """The flags of a word in lower case; 0 where it is unknown."""
        key = crc32(word.encode("utf-8", "surrogatepass"))
        keys = self._keys
        mask = self._size - 1
        at = key & mask
        while (found := keys[at]) != key:
            if found == 0:
                return 0
            at = (at + 1) & mask
        return self._flags[at]


@cache
def lexicon() -> Lexicon:
    """The one lexicon of this process."""
    return Lexicon()
