"""Token counts estimated from text, by OpenAI's encodings.  The ranks are shipped (`ranks/`, with their NOTICE).

Nothing is downloaded and nothing is written: tiktoken is given the ranks, whose hashes are checked as it would.  An
encoding takes 0.3 to 0.8 s to load and 45 to 80 MB, so a worker leaves it to a process of its own, which is this module:
`python -m engines.tokens` reads a question a line, `{"encoding", "texts"}`, and writes a line for each, `{"counts"}` or
`{"failure"}` (see `proxy.tokenizing`).

Other vendors' models have other encodings: for them, and for sampled texts, a count is an estimate.
"""

from __future__ import annotations

import binascii
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

SAMPLE = 8_192
"""Characters that are looked at of a text: 0.4 ms of English, 3 ms of the worst.  Of a longer one it is this many, from
`SLICES` places, scaled to the whole."""
SLICES = 4
_FOLDER = Path(__file__).parent / "ranks"


class Unusable(Exception):
    """The ranks cannot be used; the message says why."""


class _Encoding(Struct, frozen=True):
    sha256: str
    pattern: str


_WORD = r"[^\r\n\p{L}\p{N}]?"
ENCODINGS = {
    "cl100k_base": _Encoding(
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    ),
    "o200k_base": _Encoding(
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        "|".join(
            [
                _WORD + r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                _WORD + r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"\p{N}{1,3}",
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
                r"\s*[\r\n]+",
                r"\s+(?!\S)",
                r"\s+",
            ]
        ),
    ),
}
"""Patterns as in tiktoken's `tiktoken_ext/openai_public.py`."""
LATEST = "o200k_base"
_OLDER = ("gpt-4-", "gpt-3.5", "text-embedding-3", "text-embedding-ada")


def encoding_of(model: str) -> str:
    """The encoding of an engine's model; for models that are not OpenAI's the newer one, which is nearer to theirs."""
    return "cl100k_base" if model == "gpt-4" or model.startswith(_OLDER) else LATEST


class Tokens:
    """The encodings of one process, each loaded when it is first asked for."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._folder = folder
        self._loaded: dict[str, Any] = {}

    def count(self, text: str, encoding: str) -> int:
        """About how many tokens a text has; raises `Unusable`."""
        found = self._loaded.get(encoding)
        if found is None:
            found = self._loaded[encoding] = _load(self._folder, encoding)
        counted = sum([len(found.encode_ordinary(part)) for part in _sample(text)])
        return counted if len(text) <= SAMPLE else -(-counted * len(text) // SAMPLE)


def installed() -> bool:
    """Is what the encodings need there?"""
    return all(importlib.util.find_spec(name) is not None for name in ("tiktoken", "zstandard"))


def _sample(text: str) -> Iterator[str]:
    if len(text) <= SAMPLE:
        yield text
        return
    size = SAMPLE // SLICES
    step = (len(text) - size) / (SLICES - 1)
    for number in range(SLICES):
        start = round(step * number)
        yield text[start : start + size]


def _load(folder: Path, name: str) -> Any:
    try:
        import tiktoken
        import zstandard
    except ImportError:
        raise Unusable("tiktoken is not installed: pip install 'spillway[tokens]'") from None
    row = ENCODINGS.get(name)
    if row is None:
        raise Unusable(f"there is no encoding {name!r}")
    path = folder / f"{name}.tiktoken.zst"
    try:
        data = zstandard.ZstdDecompressor().decompress(path.read_bytes())
    except (OSError, zstandard.ZstdError) as error:
        raise Unusable(f"{path} cannot be read: {error}") from None
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise Unusable(f"{path} does not hold what it should")
    return tiktoken.Encoding(name, pat_str=row.pattern, mergeable_ranks=_ranks(data), special_tokens={})


def _ranks(data: bytes) -> dict[bytes, int]:
    ranks = {}
    decode = binascii.a2b_base64
    for line in data.splitlines():
        token, _, rank = line.partition(b" ")
        ranks[decode(token)] = int(rank)
    return ranks


class _Question(Struct):
    encoding: str
    texts: list[str]


def main(folder: Path = _FOLDER) -> None:
    """Answer questions until there are no more."""
    tokens = Tokens(folder)
    for line in sys.stdin.buffer:
        answer: dict[str, Any]
        try:
            question = msgspec.json.decode(line, type=_Question)
            answer = {"counts": [tokens.count(text, question.encoding) for text in question.texts]}
        except Unusable as unusable:
            answer = {"failure": str(unusable)}
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
