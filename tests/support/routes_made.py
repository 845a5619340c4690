"""Two routes that are easily told apart, for tests of decisions."""

from __future__ import annotations

CODING_AND_CARDS = [
    {
        "name": "coding",
        "description": "writing and repairing computer programs",
        "utterances": ["write a function that sorts a list", "fix the bug in this module", "why does my program crash",
                       "explain this regular expression", "add a unit test for the parser"],
    },
    {
        "name": "cards",
        "description": "bank cards that are lost, stolen or blocked",
        "utterances": ["I lost my card", "please block my card", "my card was stolen", "when does my new card come",
                       "the machine kept my card"],
    },
]  # fmt: skip
