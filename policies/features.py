"""Named features of a prompt: what can be said of it in some fifty microseconds, without a model.

Each is a plain number, so that a linear score over them can be explained word for word.  Counts are taken as
log(1 + count): the second number in a question says more than the twentieth.
"""

from __future__ import annotations

import re

import numpy as np

from policies.embedding import SAMPLE, Floats

VERSION = "features 1"
"""Changes with what is counted, so that no scorer reads another's features."""

_KINDS = (
    ("negation", "not no never none nor except without neither cannot n't false incorrect least"),
    ("multiples", "half twice double triple third quarter quarters thirds times percent fraction ratio average"),
    ("comparison", "more less fewer than older younger longer taller greater larger smaller as most faster higher"),
    ("distribution", "each every per all both apiece equally total altogether combined sum"),
    ("remainder", "left remaining remains rest after before until still already back again originally"),
    ("time", "hour hours minute minutes day days week weeks month months year years second seconds daily weekly"),
    ("money", "cost costs price dollars dollar pay paid pays spend spent earn earns sell sells buy buys profit"),
    ("condition", "if suppose assume assuming when unless given whether then instead otherwise while"),
    ("how", "how"),
    ("which", "which what who whom whose where"),
    ("why", "why explain reason because justify discuss describe compare analyze analyse evaluate"),
    ("proof", "prove proof theorem derive show lemma integral derivative equation matrix probability polynomial"),
    ("making", "write draft create generate compose design implement build translate summarize summarise rewrite"),
    ("statement", "statement statements true following according best correct likely"),
    ("person", "he she his her him they their them i my we you your"),
    ("small numbers", "one two three four five six seven eight nine ten dozen"),
)
_WORDS = {word: kind for kind, (_, words) in enumerate(_KINDS) for word in words.split()}

_MARKS = (
    ("question marks", "?"),
    ("commas", ","),
    ("money signs", "$£¥"),
    ("percent signs", "%"),
    ("brackets", "()[]"),
    ("code marks", "{};`<>_"),
    ("quotes", "\"'"),
    ("backslashes", "\\"),
    ("operators", "+*=^/×÷"),
    ("lines", "\n"),
    ("capitals", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
)

_MEASURES = (
    "length",
    "words",
    "sentences",
    "words a sentence",
    "numbers",
    "distinct numbers",
    "largest number",
    "decimals",
    "fractions",
    "choices",
    "length of choices",
    "blanks",
)
_SHARES = ("word length", "long words", "distinct words", "digits", "other alphabets")
NAMES = (*_MEASURES, *[f"words of {name}" for name, _ in _KINDS], *[name for name, _ in _MARKS], *_SHARES)
"""What each feature is called, in the order of `features`."""

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_FRACTION = re.compile(r"\d/\d")
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_CHOICE = re.compile(r"(?m)^\(?[A-J][.):] ?(.*)$")
_LONG = 8
"""Letters from which a word is long."""
_LAST_LATIN = "\u024f"


def features(text: str) -> Floats:
    """The features of a text in the order of `NAMES`: of its first `SAMPLE` characters, which is all that routing reads."""
    sample = text[:SAMPLE]
    words = _WORD.findall(sample.lower())
    numbers = _NUMBER.findall(sample)
    choices = _CHOICE.findall(sample)
    sentences = len(_SENTENCE.findall(sample))
    kinds = [0] * len(_KINDS)
    for kind in map(_WORDS.get, words):
        if kind is not None:
            kinds[kind] += 1
    sizes = list(map(len, words))
    count = len(words)
    whole = max(1, count)
    distinct = {number.replace(",", "") for number in numbers}
    plain = np.bincount(np.frombuffer(sample.encode("latin-1", "ignore"), np.uint8), minlength=256).astype(np.float32)
    counts = [
        len(sample),
        count,
        sentences,
        count / max(1, sentences),
        len(numbers),
        len(distinct),
        max([float(number[:18]) for number in distinct], default=0.0),
        len([number for number in distinct if "." in number]),
        len(_FRACTION.findall(sample)),
        len(choices),
        sum(map(len, choices)) / max(1, len(choices)),
        sample.count("__"),
        *kinds,
    ]
    shares = [
        sum(sizes) / whole,
        len([size for size in sizes if size >= _LONG]) / whole,
        len(set(words)) / whole,
        sum(map(len, numbers)) / max(1, len(sample)),
        0.0 if sample.isascii() else len([char for char in sample if char > _LAST_LATIN]) / max(1, len(sample)),
    ]
    return np.concatenate(
        (np.log1p(np.array(counts + (_TALLY @ plain).tolist(), np.float32)), np.array(shares, np.float32))
    )


def _tally() -> Floats:
    """(marks, 256): which bytes of Latin-1 are which mark."""
    table = np.zeros((len(_MARKS), 256), np.float32)
    for row, (_, marks) in zip(table, _MARKS, strict=True):
        row[np.frombuffer(marks.encode("latin-1"), np.uint8)] = 1
    return table


_TALLY = _tally()
