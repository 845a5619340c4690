"""What a scanner needs of a detector, as a suite that anybody can run on one of their own:

    python tests/support/detector_contract.py my_package.detectors:make

or, in a test of theirs, `check(make())`.  `make` is what an entry point of the group `spillway.detectors` names: a
callable without arguments that gives an object with `find(text) -> list[Span]`.
"""

from __future__ import annotations

import importlib
import random
import sys
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from compliance.detectors.model import Span
from compliance.identifiers import NAMES
from compliance.scan import Detector

SLOWEST = 30.0
"""Seconds for the longest text: a request that takes longer passes its deadline, and stays local."""
_NOTE = "Patient: Brana Corbrack, DOB 02/03/1961, MRN 00012345, SSN 900-45-1234, card 4242 4242 4242 4242, lives in Springfield. "


class Broken(AssertionError):
    """The detector does not hold to the contract; the message says where."""


def texts() -> Iterator[str]:
    """Texts that must not disturb a detector."""
    yield from ("", " ", "\n", "a", "0", "plain words and nothing else", _NOTE)
    yield _NOTE.translate({32: 0xA0}) + "\u200b".join("900-45-1234") + "\u202e"  # spaces and marks that hide
    yield "näive ① 𝟗𝟎𝟎 " + _NOTE + " 🦉 \U0001f469\u200d\u2695\ufe0f " + _NOTE  # offsets are code points
    yield "\ud800 lone " + _NOTE  # what JSON's \ud800 becomes
    yield "\x00\x01\x7f" + _NOTE + "\ufffe\uffff"
    dice = random.Random(7)
    for alphabet in ("0123456789 -", "aA ', .:", "(){}[]\\\"'*+?|^$", "@./:#"):
        yield "".join(dice.choices(alphabet, k=2_000))
    yield _NOTE * 20


def hostile() -> Iterator[str]:
    """Long texts that a careless pattern is slow on."""
    yield "9" * 100_000
    yield "a@" * 50_000
    yield "A. " * 33_000
    yield " \t" * 50_000


def check(detector: Detector, kinds: Collection[str] = NAMES) -> None:
    """Raises `Broken` with what is wrong."""
    for text in texts():
        spans = _found(detector, text)
        _sound(spans, text, kinds)
        if spans != _found(detector, text):
            raise Broken(f"is not deterministic on {text[:40]!a}")
    _threads(detector)
    for text in hostile():
        began = time.monotonic()
        _sound(_found(detector, text), text, kinds)
        if time.monotonic() - began > SLOWEST:
            raise Broken(f"takes more than {SLOWEST:.0f} s for 100,000 characters of {text[:4]!a}")


def _found(detector: Detector, text: str) -> list[Span]:
    try:
        return list(detector.find(text))
    except (ValueError, RuntimeError, MemoryError):  # a text that it cannot look at: the scanner keeps it local
        return []


def _sound(spans: list[Span], text: str, kinds: Collection[str]) -> None:
    for span in spans:
        if not isinstance(span, Span):
            raise Broken(f"gives {type(span).__name__}, not Span")
        if span.type not in kinds:
            raise Broken(f"gives the kind {span.type!r}, which no rule can speak of")
        if not 0 <= span.start < span.end <= len(text):
            raise Broken(f"gives {span.start}-{span.end} of {len(text)} characters (code points)")
        if not 0 < span.confidence <= 1:
            raise Broken(f"gives the confidence {span.confidence}")
    if spans != sorted(spans, key=lambda span: span.start):
        raise Broken("gives spans out of order")


def _threads(detector: Detector) -> None:
    """Large bodies are scanned in threads, beside each other."""
    several = list(texts()) * 2
    alone = [_found(detector, text) for text in several]
    with ThreadPoolExecutor(4) as pool:
        if list(pool.map(lambda text: _found(detector, text), several)) != alone:
            raise Broken("gives something else when several threads ask")


def main(named: str) -> int:
    module, _, attribute = named.partition(":")
    make: Callable[[], Detector] = getattr(importlib.import_module(module), attribute)
    try:
        check(make())
    except Broken as broken:
        print(f"{named} {broken}", file=sys.stderr)
        return 1
    print(f"{named} holds to the contract of detectors")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
