"""Logs of experiments that nobody ran: draws, attempts, feedback and copies, by seeded chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance.journal import Journal, load_or_create_key, read, slots
from compliance.records import Assigned, Decision, Feedback, Outcome, Shadowed
from policies.experiment import draw, number
from proxy.instance import instance_name
from proxy.projections.ledger import rebuild

BEGIN = 1_767_225_600_000_000  # 2026-01-01
KEY = b"k" * 32
WHO: dict[str, Any] = {"organisation": "default", "project": "triage", "team": "care"}


def attempt(request: str, target: str, at: int, *, cost: int, total_us: int, **more: Any) -> tuple[Decision, Outcome]:
    """One attempt's two records."""
    boundary = "local" if target.startswith("gpu/") else "cloud"
    who = {**WHO, "key": "k1", **more}
    decision = Decision(
        action="allow", actor="", at=at, attempt=0, boundary=boundary, edits=(), findings=(), hold=0, model="gpt-4o",
        operation="chat", overflow="", policy="p", request=request, routing="", rule="", scopes=(), stream=False,
        surface="openai.chat", target=target, tenant="", trace="", vetoes=(), **who,
    )  # fmt: skip
    outcome = Outcome(
        at=at + total_us, attempt=0, boundary=boundary, bytes_in=1, bytes_out=1, cache_read=0, cache_write_1h=0, cache_write_5m=0,
        committed=True, connect_us=1_000, cost=cost, ending="completed", error="", findings=(), first_us=0, hold=0, input=500,
        model="gpt-4o", output=120, price="x", quality="exact", queue_us=0, reasoning=0, request=request, scopes=(), status=200,
        target=target, total_us=total_us, **who,
    )  # fmt: skip
    return decision, outcome


def split_records(
    count: int, seed: int, *, rates: tuple[float, float] = (0.92, 0.93), users: int = 0, phases: tuple[float, ...] = (0.5,),
    missing: tuple[float, float] = (0.1, 0.1), excluded: float = 0.05, broken: bool = False,
) -> list[Any]:  # fmt: skip
    """A split by request, or by so many users; `rates` are how often local's and the API's answers were accepted."""
    rng = np.random.default_rng(seed)
    found: list[Any] = []
    for n in range(count):
        at = BEGIN + n * 60_000_000
        phase = n * len(phases) // count
        kind, unit = ("user", f"u{rng.integers(users)}") if users else ("request", f"r{n}")
        drawn = draw(KEY, "cutover", kind, unit, phases[phase])
        request = f"req{n:06d}"
        out = rng.random() < excluded
        if broken and drawn.arm == "api" and rng.random() < 0.3:
            continue  # half of what failed was never written down
        found.append(
            Assigned(
                arm=drawn.arm,
                at=at,
                excluded="boundary" if out else "",
                experiment="cutover",
                key="k1",
                model="gpt-4o",
                phase=phase + 1,
                propensity=drawn.propensity,
                request=request,
                unit=drawn.unit,
                unit_kind=kind,
                **WHO,
            )
        )
        home = drawn.arm == "local" or out
        us = int(rng.lognormal(13.6 if home else 14.1, 0.4))
        cost = 0 if home else int(rng.gamma(4, 3e9))
        found += attempt(request, "gpu/l" if home else "sky/gpt-4o", at, cost=cost, total_us=us)
        index = 0 if home else 1
        if rng.random() >= missing[index]:
            good = rng.random() < rates[index]
            found.append(
                Feedback(at=at + 20_000_000, key="k1", metric="accepted", request=request, value="true" if good else "false", **WHO)
            )  # fmt: skip
    return sorted(found, key=lambda record: record.at)


def shadow_records(count: int, seed: int, *, agree: float = 0.95) -> list[Any]:
    """Copies of API answers to a local target."""
    rng = np.random.default_rng(seed)
    found: list[Any] = []
    for n in range(count):
        at, request = BEGIN + n * 60_000_000, f"req{n:06d}"
        found += attempt(request, "sky/gpt-4o", at, cost=int(rng.gamma(4, 3e9)), total_us=int(rng.lognormal(14.1, 0.4)))
        if number(KEY, "try-local", "shadow", request)[0] >= 0.5:
            continue
        why = "boundary" if rng.random() < 0.05 else "busy" if rng.random() < 0.04 else ""
        copy = "" if why else f"{request}-try-local"
        if copy:
            more = {"project": "experiment:try-local", "key": "experiment:try-local", "team": ""}
            found += attempt(copy, "gpu/l", at + 3_000_000, cost=0, total_us=int(rng.lognormal(13.6, 0.4)), **more)
        found.append(
            Shadowed(
                at=at + 9_000_000,
                copy=copy,
                experiment="try-local",
                how="json" if copy else "",
                key="k1",
                model="gpt-4o",
                propensity=500_000,
                request=request,
                score=(1000 if rng.random() < agree else int(rng.integers(0, 900))) if copy else -1,
                target="gpu/l",
                why=why,
                **WHO,
            )
        )
    return sorted(found, key=lambda record: record.at)


def written(directory: Path, records: list[Any]) -> None:
    """A log and its ledger in a directory, as a worker would have left them."""
    audit = directory / "audit"
    audit.mkdir(parents=True)
    key: Ed25519PrivateKey = load_or_create_key(directory / "audit" / "key")
    name = instance_name(audit)
    journal = Journal.open(audit / "slot-0", origin=f"{name}/slot-0", key=key)
    for record in records:
        journal.append(record)
    journal.close()
    (directory / "state").mkdir(exist_ok=True)
    rebuild(directory / "state" / "ledger.db", ((f"{name}/{log.name}", read(log)) for log in slots(audit)))
