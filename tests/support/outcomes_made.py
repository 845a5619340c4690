"""Labelled prompts that are made up: those with more steps gain more from the strong model, and the rest is noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from policies import gain
from policies.gain import Scorer

WIDTH = 8
DAY = "2026-01-02"


def made_rows(count: int, seed: int = 0, *, noise: bool = False) -> list[dict[str, Any]]:
    """`noise`: outcomes have nothing to do with the prompts."""
    dice = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        steps = int(dice.integers(0, 8))
        names = [f"box {number + 1000 * step}" for step in range(steps)]
        parts = [
            f"If {name} holds {dice.integers(2, 99)} apples, half of them more than before, then it is sold."
            for name in names
        ]
        text = " ".join([f"Question {number}:", *parts, "How many are left?"])
        hard = float(dice.random()) if noise else steps / 8
        weak = int(dice.random() > hard)
        rows.append({"text": text, "strong": int(dice.random() > 0.05), "weak": weak, "steps": steps})
    return rows


def made_scorer(seed: int = 0, rows: int = 300) -> tuple[Scorer, Any, Any]:
    """(a scorer, its features, its vectors) of plain random numbers."""
    dice = np.random.default_rng(seed)
    named = dice.normal(size=(rows, len(gain.names_of("prompt"))))
    vectors = dice.normal(size=(rows, WIDTH))
    gains = np.sign(named[:, 0] + vectors[:, 0] + dice.normal(size=rows))
    return gain.fit("prompt", named, vectors, gains, embedding="e", made=DAY), named, vectors
