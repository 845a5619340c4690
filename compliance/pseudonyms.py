"""Keyed pseudonyms: what stands in the place of an identifier in a text that leaves, and the way back.  Pure.

`[NAME_kqfz]` is the kind of the identifier and base32 (its letters) of a MAC (HMAC-SHA256) over its kind and
normalised value, under the key of one conversation's scope.  The same value has the same pseudonym in that scope, whatever came before
it, so that a conversation's prefix stays the same from turn to turn (prompt caches) also when its first turns are cut
off.  Without the key nothing can be worked out, though most identifiers are short enough to be tried all.

A client's text that looks like a pseudonym already gets a pseudonym itself (`[TEXT_...]`), so that nothing that a
client or a model writes of its own accord is taken for one: only what was put into *this* exchange is turned back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterable

from msgspec import Struct

MAX_PSEUDONYM = 64
"""Characters of the longest pseudonym: what an answer must hold back to see one whole."""
MIN_CODE = 4
"""Letters of the MAC in a pseudonym: 18 bits, against 10,000 values of a scope.  More on a collision."""
MAX_CODE = 16
_MAX_TYPE = 40

PSEUDONYM = re.compile(r"\[[A-Z][A-Z0-9_]{0,40}_[a-z2-7]{4,16}\]", re.ASCII)
"""What a pseudonym looks like: at most `MAX_PSEUDONYM` characters, no bracket inside, none of them JSON escapes."""

LITERAL = "text"
"""The kind of what looked like a pseudonym in a client's own text."""

NUMBERS = frozenset(
    """
    ssn itin uk_nhs uk_nino ca_sin de_tax fr_nir es_nif es_nuss pl_pesel nl_bsn au_medicare au_tfn in_aadhaar mbi npi
    dea udi imei card iban routing phone fax mrn plan account serial passport licence certificate vin plate it_cf
    record_id
    """.split()  # noqa: SIM905  a list of words reads best as words
)
"""Kinds whose value is its digits and letters alone, however they are grouped."""
EXACT = frozenset({LITERAL, "secret", "url"})
"""Kinds in which the case of a letter tells one value from another."""

_NOT_TYPE = re.compile(r"[^A-Z0-9]+")
_GROUPING = re.compile(r"[\W_]+")
_SPACE = re.compile(r"\s+")
_NO_DIGITS = dict.fromkeys(map(ord, "234567="))
"""A word such as MRN with digits right after it is what detectors look for, here and wherever the text goes."""


class ScopeFull(Exception):
    """More values than a scope may have: its requests are not redacted, so they stay local."""


class Known(Struct, frozen=True, gc=False):
    """One value of a scope, as the client first spelled it.  It carries an identifier: never log it."""

    pseudonym: str
    kind: str
    value: str

    def __repr__(self) -> str:  # the default one would print the identifier
        return f"Known({self.pseudonym!r})"


class Scope:
    """One conversation's scope for one exchange: the values known so far, and what this exchange adds.

    `added` must be kept before anything leaves.  Not for several threads at once.
    """

    __slots__ = ("_ages", "_assigned", "_issued", "_key", "_limit", "_taken", "added", "identity", "known")

    def __init__(self, identity: str, key: bytes, known: Iterable[Known] = (), *, limit: int = 10_000) -> None:
        self.identity = identity  # names the scope in the store; says nothing of whose it is
        self.known = tuple(known)  # of earlier exchanges
        self.added: list[Known] = []
        self._key = key
        self._limit = limit
        self._assigned: dict[tuple[str, str], str] = {}
        self._ages: dict[tuple[str, str], int] = {}
        self._taken: set[str] = set()
        self._issued: dict[str, str] = {}
        for one in self.known:
            self._give((one.kind, normalised(one.kind, one.value)), one.pseudonym)

    def pseudonym(self, kind: str, value: str) -> str:
        """The pseudonym of a value; raises `ScopeFull`.  From here on `original` leads back to it."""
        place = kind, normalised(kind, value)
        found = self._assigned.get(place)
        if found is None:
            found = self._assign(*place)
            self._give(place, found)
            self.added.append(Known(found, kind, value))
        self._issued.setdefault(found, value)
        return found

    def escape(self, text: str) -> str:
        """A client's text, with what looks like a pseudonym in it replaced by one of its own."""
        if "[" not in text:
            return text
        return PSEUDONYM.sub(lambda match: self.pseudonym(LITERAL, match.group()), text)

    def original(self, pseudonym: str) -> str | None:
        """What stood in this exchange's request where the pseudonym now stands; None: it was not put there.

        Values of other exchanges are not given, even where they have the same scope: pseudonyms are short, and a
        model could be made to try them all.
        """
        return self._issued.get(pseudonym)

    @property
    def issued(self) -> int:
        """How many different pseudonyms this exchange's request holds."""
        return len(self._issued)

    def age(self, kind: str, value: str) -> int:
        """Which of the scope's values this is, from the first on; of one that it does not have, more than any."""
        return self._ages.get((kind, normalised(kind, value)), len(self._ages))

    def _give(self, place: tuple[str, str], pseudonym: str) -> None:
        self._ages.setdefault(place, len(self._ages))
        self._assigned[place] = pseudonym
        self._taken.add(pseudonym)

    def _assign(self, kind: str, form: str) -> str:
        if len(self._assigned) >= self._limit:
            raise ScopeFull
        message = kind.encode("utf-8", "surrogatepass") + b"\0" + form.encode("utf-8", "surrogatepass")
        digest = hmac.new(self._key, message, hashlib.sha256).digest()
        code = base64.b32encode(digest).decode("ascii").lower().translate(_NO_DIGITS)
        for length in range(MIN_CODE, min(MAX_CODE, len(code)) + 1):
            made = f"[{type_of(kind)}_{code[:length]}]"
            if made not in self._taken:
                return made
        raise ScopeFull  # 75 bits have met: it does not happen


def type_of(kind: str) -> str:
    """The word for a kind in its pseudonyms: `NAME`, `UK_NHS`; an operator's own kinds are made to fit."""
    word = _NOT_TYPE.sub("_", kind.upper()).strip("_")[:_MAX_TYPE].rstrip("_")
    return word if word[:1].isalpha() and word.isascii() else f"X_{word}"[:_MAX_TYPE].rstrip("_")


def normalised(kind: str, value: str) -> str:
    """A value in the form that is compared: what two spellings of one identifier have in common."""
    if kind in EXACT:
        return value
    folded = unicodedata.normalize("NFKC", value).casefold()
    if kind in NUMBERS:
        return _GROUPING.sub("", folded) or folded
    return _SPACE.sub(" ", folded).strip()
