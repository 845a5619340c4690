"""Trains the learned tier's model and writes it, with its training record.

    python training/train.py --lists lists.json --data ../shared/data --out compliance/models/names --minutes 20

PyTorch is needed here alone (CPU).  The same seed, thread count and number of steps give the same model.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from multiprocessing import Process, Queue
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from generate import Generator, Sample, code, natural  # noqa: E402

from compliance.detectors.learned_features import BUCKETS, FEATURES, FLAGS, ROWS, UNKNOWN_WORD, WORD, Features  # noqa: E402
from compliance.detectors.lexicon import Lexicon  # noqa: E402

LABELS = ("O", "NAME", "PLACE", "FACILITY", "ADDRESS", "ORG", "REGION")
CLEAN, SKIP = -2, -1
DILATIONS = (1, 2, 4, 8)


class Tagger(nn.Module):
    """Sums of hashed features, then convolutions of width 3 with growing gaps, each added to what went in."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, width)
        nn.init.normal_(self.table.weight, std=0.1)
        sizes = [width] + [hidden] * len(DILATIONS)
        self.layers = nn.ModuleList(
            nn.Conv1d(a, b, 3, dilation=d, padding=d) for a, b, d in zip(sizes, sizes[1:], DILATIONS, strict=False)
        )
        self.out = nn.Linear(hidden, len(LABELS))
        self.drop = nn.Dropout(0.15)

    def forward(self, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.table(rows).sum(2)) * mask[:, :, None]
        x = x.transpose(1, 2)
        keep = mask[:, None, :]
        for index, layer in enumerate(self.layers):
            y = torch.relu(layer(x)) * keep
            x = y if index == 0 else x + y
        return self.out(self.drop(x.transpose(1, 2)))


def encode(features: Features, sample: Sample, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, features) and targets.  Some of what is known of a token is dropped, so that context and shape are learned too."""
    text, spans, kind = sample
    places, rows = features.tokens(text)
    targets = np.full(len(rows), 0 if kind == "filled" else CLEAN, np.int64)
    array = np.array(rows, np.int32).reshape(-1, FEATURES)
    if not rows:
        return array, targets
    starts, ends = np.array(places).T
    for start, end, label in spans:
        if kind != "clean" and label != "O":
            targets[(starts < end) & (ends > start)] = SKIP if label == "?" else LABELS.index(label)
    named = (targets > 0) & (targets < 4)
    roll, other = dice.random(len(rows)), dice.random(len(rows))
    array[named & (roll < 0.4), WORD] = UNKNOWN_WORD
    array[named & (roll > 0.75), FLAGS] = BUCKETS  # as if it were in no list
    array[~named & (roll < 0.1), WORD] = UNKNOWN_WORD
    array[other < 0.08, :FLAGS] = UNKNOWN_WORD
    return array, targets


Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def batch(pieces: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
    longest = max(len(t) for _, t in pieces)
    rows = np.zeros((len(pieces), longest, FEATURES), np.int64)
    targets = np.full((len(pieces), longest), SKIP, np.int64)
    mask = np.zeros((len(pieces), longest), np.float32)
    for i, (r, t) in enumerate(pieces):
        rows[i, : len(t)], targets[i, : len(t)], mask[i, : len(t)] = r, t, 1
    return rows, targets, mask


def produce(batches: Queue[Batch], lists_file: Path, data: Path, seed: int) -> None:
    """Makes batches in a process of its own."""
    dice, noise = random.Random(seed), np.random.default_rng(seed)
    lists = json.loads(lists_file.read_text())
    generator = Generator(lists, dice)
    real = [*natural(data, set(lists["regions"])), *code(120)]
    features = Features(Lexicon())
    while True:
        samples = [
            generator.sample() if dice.random() < 0.55 else generator.renewed(dice.choice(real)) for _ in range(48)
        ]
        batches.put(batch([e for e in (encode(features, s, noise) for s in samples) if len(e[1])]))


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logs = torch.log_softmax(logits, -1)
    flat, want = logs.reshape(-1, len(LABELS)), targets.reshape(-1)
    known = want >= 0
    loss = -flat[known, want[known]].sum()
    clean = want == CLEAN
    if clean.any():
        loss = loss - torch.logsumexp(flat[clean][:, [0, 5, 6]], -1).sum()
    return loss / max(1, int((want != SKIP).sum()))


def export(model: Tagger, path: Path) -> None:
    """Int8 with one scale a row for the table, float16 for the rest."""
    table = model.table.weight.detach().numpy()
    scale = np.maximum(np.abs(table).max(1), 1e-8) / 127
    arrays = {"table": np.round(table / scale[:, None]).astype(np.int8), "scale": scale.astype(np.float32)}
    for index, layer in enumerate(model.layers):
        arrays[f"kernel{index}"] = layer.weight.detach().numpy().transpose(2, 1, 0).astype(np.float16)  # tap, in, out
        arrays[f"bias{index}"] = layer.bias.detach().numpy()
    arrays["out"] = model.out.weight.detach().numpy().T.astype(np.float16)
    arrays["out_bias"] = model.out.bias.detach().numpy()
    arrays["dilations"] = np.array(DILATIONS)
    np.savez(path.with_suffix(".npz"), **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lists", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("compliance/models/names"))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=0, help="instead of minutes")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model = Tagger(args.width, args.hidden)
    dense = [p for n, p in model.named_parameters() if n != "table.weight"]
    optimiser = torch.optim.AdamW(
        [{"params": [model.table.weight], "weight_decay": 0.0}, {"params": dense, "weight_decay": 0.01}], lr=3e-3
    )
    begun, step, seen, losses = time.monotonic(), 0, 0, []
    batches: Queue[Batch] = Queue(8)
    Process(target=produce, args=(batches, args.lists, args.data, args.seed), daemon=True).start()
    while True:
        done = step / args.steps if args.steps else (time.monotonic() - begun) / (60 * args.minutes)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 200) * max(0.02, 1 - done)
        rows, targets, mask = (torch.from_numpy(array) for array in batches.get())
        optimiser.zero_grad()
        loss = loss_of(model(rows, mask), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(dense, 1.0)
        optimiser.step()
        step += 1
        seen += int(mask.sum())
        losses.append(float(loss))
        if step % 200 == 0:
            print(step, seen, round(sum(losses[-200:]) / 200, 4), round(time.monotonic() - begun), flush=True)
        if step % 2000 == 0:
            export(model.eval(), args.out)
            model.train()
    export(model.eval(), args.out)
    record = {
        "labels": LABELS, "steps": step, "tokens": seen, "seed": args.seed, "width": args.width, "hidden": args.hidden,
        "minutes": round((time.monotonic() - begun) / 60, 1), "loss": round(sum(losses[-500:]) / len(losses[-500:]), 4),
        "torch": torch.__version__, "threads": args.threads,
    }  # fmt: skip
    args.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    print(record)


if __name__ == "__main__":
    main()
