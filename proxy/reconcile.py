"""A vendor's usage and costs of a month beside the ledger's: quantities first, then money.  Pure.

What the vendor's report has under keys or projects that are not Spillway's, or of models that never passed it, went
round the proxy: it is named, never booked.  What remains is compared model by model, and the difference in money is
what a correction adds to the ledger, so that the ledger's sum is the vendor's.  Where the vendor counted more tokens
than the ledger, and estimates do not explain it, the surplus went round the proxy as well: only the part of the bill
that is for what passed is booked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

QUANTITY_TOLERANCE = Fraction(5, 1_000)
MONEY_TOLERANCE = Fraction(1, 100)
LEAST = 1_000_000
"""Pico-dollars below which a difference is not worth a correction: a millionth of a dollar."""
_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest)\Z")


class Used(Struct, frozen=True):
    """Tokens of one model under one key, as the vendor counted them; `input` has what no cache held."""

    model: str
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    requests: int = 0
    key: str = ""
    project: str = ""  # or workspace

    @property
    def tokens(self) -> int:
        return self.input + self.cache_read + self.cache_write + self.output


class Billed(Struct, frozen=True):
    """An item of the bill; `model` is empty where it is for something else."""

    amount: int  # pico-dollars
    item: str = ""
    model: str = ""
    project: str = ""


class Booked(Struct):
    """What the ledger has of one model."""

    attempts: int = 0
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    estimated: int = 0  # tokens of attempts whose counts are not the vendor's own
    cost: int = 0
    corrected: int = 0  # by earlier corrections

    @property
    def tokens(self) -> int:
        return self.input + self.cache_read + self.cache_write + self.output


class Model(Struct, frozen=True):
    """One model's comparison.  `verdict`: agrees, price, quantity, surplus (more was used than passed), unbilled, unseen."""

    name: str
    used: Used
    booked: Booked
    billed: int
    passed: int  # the part of it that is for what passed the proxy
    verdict: str
    correction: int = 0
    cause: str = ""

    @property
    def difference(self) -> int:
        return self.passed - self.booked.cost - self.booked.corrected


class Around(Struct, frozen=True):
    """Traffic that never passed the proxy."""

    why: str  # key, project, model, surplus
    used: Used
    amount: int = 0  # pico-dollars; 0: not known


class Reconciliation(Struct, frozen=True):
    models: list[Model]
    around: list[Around]
    others: list[Billed]  # items that are not for the tokens of a model
    billed: int  # for what passed
    booked: int

    @property
    def agrees(self) -> bool:
        return not self.around and self.words == "they agree"

    @property
    def words(self) -> str:
        """Whether the money of what passed agrees; what went round the proxy is said beside it."""
        if not within(self.billed, self.booked, MONEY_TOLERANCE):
            return "they do not agree"
        wrong = any(model.verdict not in ("agrees", "quantity") for model in self.models)
        return "the sums agree, single models do not" if wrong else "they agree"

    @property
    def corrections(self) -> list[Model]:
        return [model for model in self.models if model.cause]


Weigh = Callable[[Used], int]
"""What tokens are worth, to share out a bill that is not broken down far enough: at list prices, or their number."""


def base_name(model: str) -> str:
    """A model without the day of its snapshot: what is asked for as `gpt-4o` is reported as `gpt-4o-2024-08-06`."""
    return _SNAPSHOT.sub("", model)


def within(one: int, other: int, tolerance: Fraction) -> bool:
    """Do two amounts differ by no more than this share of the larger?"""
    return abs(one - other) <= max(abs(one), abs(other)) * tolerance


def reconcile(
    used: Iterable[Used],
    billed: Iterable[Billed],
    booked: Mapping[str, Booked],
    *,
    keys: Sequence[str] = (),
    projects: Sequence[str] = (),
    weigh: Weigh = lambda used: used.tokens,
) -> Reconciliation:
    """The vendor's side and the ledger's, by `base_name` of the model.  `keys` and `projects` are those that Spillway uses,
    in the vendor's words; with none of one kind, all of that kind are taken for its own."""
    ours: dict[str, Used] = {}
    everybodys: dict[str, Used] = {}
    around: list[Around] = []
    for row in used:
        name = base_name(row.model)
        everybodys[name] = _sum(everybodys.get(name, Used(name)), row)
        why = _foreign(row, booked, keys, projects)
        if why:
            around.append(Around(why, row))
        else:
            ours[name] = _sum(ours.get(name, Used(name)), row)
    bills, others = _bills(billed, everybodys, booked, projects)
    models = []
    for name in sorted({*ours, *booked}):
        bill = _part(bills.get(name, 0), _share(ours.get(name), everybodys.get(name), weigh))
        model = _compare(name, ours.get(name, Used(name)), booked.get(name, Booked()), bill, weigh)
        if model.verdict == "surplus":
            around.append(Around("surplus", _surplus(model), model.billed - model.passed))
        models.append(model)
    around = _priced(_gathered(around), bills, everybodys, weigh)
    total = sum(model.passed for model in models)
    return Reconciliation(
        models, around, others, total, sum(model.booked.cost + model.booked.corrected for model in models)
    )  # fmt: skip


def _foreign(row: Used, booked: Mapping[str, Booked], keys: Sequence[str], projects: Sequence[str]) -> str:
    if keys and row.key and row.key not in keys:
        return "key"
    if projects and row.project and row.project not in projects:
        return "project"
    return "" if base_name(row.model) in booked or not row.tokens else "model"


def _bills(
    billed: Iterable[Billed], used: Mapping[str, Used], booked: Mapping[str, Booked], projects: Sequence[str]
) -> tuple[dict[str, int], list[Billed]]:
    """(what each model was billed, items that are for no model); of projects that are not Spillway's nothing counts."""
    bills: dict[str, int] = {}
    others: list[Billed] = []
    for row in billed:
        if projects and row.project and row.project not in projects:
            continue
        name = base_name(row.model)
        if name and (name in used or name in booked):
            bills[name] = bills.get(name, 0) + row.amount
        elif row.amount:
            others.append(row)
    return bills, others


def _compare(name: str, used: Used, booked: Booked, billed: int, weigh: Weigh) -> Model:
    plain = Model(name, used, booked, billed, billed, "agrees")
    if not booked.attempts and not booked.corrected:
        return replace(plain, verdict="unseen")
    same = all(
        within(theirs, mine, QUANTITY_TOLERANCE)
        for theirs, mine in (
            (used.input + used.cache_read + used.cache_write, booked.input + booked.cache_read + booked.cache_write),
            (used.output, booked.output),
        )
    )
    money = within(billed, booked.cost + booked.corrected, MONEY_TOLERANCE)
    if same:
        return _corrected(replace(plain, verdict="agrees" if money else "price"), "price", billed)
    explained = (
        abs(used.tokens - booked.tokens) <= booked.estimated + max(used.tokens, booked.tokens) * QUANTITY_TOLERANCE
    )
    if explained:
        return _corrected(replace(plain, verdict="quantity"), "quantity", billed)
    if used.tokens > booked.tokens:
        passed = _part(billed, _passed(name, used, booked, weigh))
        return _corrected(replace(plain, verdict="surplus", passed=passed), "price", passed)
    return _corrected(replace(plain, verdict="unbilled"), "quantity", billed)


def _corrected(model: Model, cause: str, billed: int) -> Model:
    amount = billed - model.booked.cost - model.booked.corrected
    return replace(model, correction=amount, cause=cause) if abs(amount) >= LEAST else model


def _passed(name: str, used: Used, booked: Booked, weigh: Weigh) -> Fraction:
    """The part of what was used that passed the proxy."""
    mine = Used(name, booked.input, booked.cache_read, booked.cache_write, booked.output)
    whole = weigh(used)
    return Fraction(min(weigh(mine), whole), whole) if whole else Fraction(1)


def _surplus(model: Model) -> Used:
    used, booked = model.used, model.booked
    return Used(
        model.name,
        max(0, used.input - booked.input),
        max(0, used.cache_read - booked.cache_read),
        max(0, used.cache_write - booked.cache_write),
        max(0, used.output - booked.output),
        max(0, used.requests - booked.attempts),
    )


def _share(ours: Used | None, everybodys: Used | None, weigh: Weigh) -> Fraction:
    """The part of a model's bill that is for our keys: the bill is not broken down by key."""
    if ours is None or everybodys is None or not weigh(everybodys):
        return Fraction(1) if everybodys is None else Fraction(0)
    return Fraction(weigh(ours), weigh(everybodys))


def _part(amount: int, share: Fraction) -> int:
    return round(amount * share)


def _gathered(around: Iterable[Around]) -> list[Around]:
    """One row for each reason, key, project and model."""
    found: dict[tuple[str, str, str, str], Around] = {}
    for row in around:
        place = (row.why, row.used.key, row.used.project, base_name(row.used.model))
        before = found.get(place)
        found[place] = row if before is None else replace(before, used=_sum(before.used, row.used))
    return sorted(found.values(), key=lambda row: (-row.used.tokens, row.why, row.used.model))


def _priced(around: Iterable[Around], bills: Mapping[str, int], used: Mapping[str, Used], weigh: Weigh) -> list[Around]:
    """With the part of the model's bill that is for it."""
    rows = []
    for row in around:
        name = base_name(row.used.model)
        whole = weigh(used[name]) if name in used else 0
        known = row.amount or (_part(bills.get(name, 0), Fraction(weigh(row.used), whole)) if whole else 0)
        rows.append(replace(row, amount=known))
    return rows


def _sum(one: Used, other: Used) -> Used:
    return replace(
        one, input=one.input + other.input, cache_read=one.cache_read + other.cache_read,
        cache_write=one.cache_write + other.cache_write, output=one.output + other.output, requests=one.requests + other.requests,
    )  # fmt: skip
