"""FOCUS 1.4 Cost and Usage, checked by the specification's own static rules (focus_1_4_rules.json) over text as in a CSV.

Formats: the specification's attributes Numeric Format, Date/Time Format, String Handling, Unit Format, Key-Value Format,
Currency Format, Null Handling and column naming.  Rules that speak of the world (an invoice that exists, a region in which
something runs) cannot be checked over rows, and are none of these.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

TABLE = json.loads(Path(__file__).with_name("focus_1_4_rules.json").read_text())
RULES: list[list[Any]] = TABLE["rules"]
COLUMNS = {rule[2][1] for rule in RULES if rule[2][0] == "present"}
REMOVED = {"ProviderName", "PublisherName"}
"""Columns of 1.3 that 1.4 does not have."""
_NUMBER = re.compile(r"-?\d+(\.\d+)?(E-?\d+)?")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_UNIT = re.compile(r"(\d+ )?[A-Z][A-Za-z]*(-[A-Z][A-Za-z]*)?(/(\d+ )?[A-Z][A-Za-z]*)?( \([^)]*\))?")
_PLACEHOLDERS = {"", "n/a", "na", "null", "none", "not applicable", "unknown", "-"}
_DATA_UNITS = {"GB", "MB", "KB", "TB"}
Row = dict[str, str | None]


def read_csv(text: str) -> tuple[list[str], list[Row]]:
    """Columns, and rows in which an empty cell is null."""
    head, *body = list(csv.reader(io.StringIO(text)))
    assert all(len(row) == len(head) for row in body)
    return head, [{name: cell or None for name, cell in zip(head, row, strict=True)} for row in body]


def problems(
    columns: Sequence[str], rows: Sequence[Row], conditions: Collection[str], *, strict: bool = True
) -> list[str]:
    """What is wrong, as `rule, row: ...`; with `strict` also what the specification only recommends."""
    found = [f"columns: {name} is twice" for name in columns if columns.count(name) > 1]
    for name in columns:
        if name in REMOVED:
            found.append(f"columns: {name} is gone since 1.4")
        elif name not in COLUMNS and not re.fullmatch(r"x_[A-Za-z0-9]+", name):
            found.append(f"columns: {name} is none of the specification")
    for rule, keyword, check, when, needs in RULES:
        if not set(needs) <= set(conditions) or (keyword.startswith("SHOULD") and not strict):
            continue
        if check[0] == "present":
            if check[1] not in columns:
                found.append(f"{rule}: {check[1]} is missing")
        elif any(name not in columns for name in _names(check)):
            continue  # a column that is not there breaks only the rule of its presence
        elif check[0] == "distinct":
            found += _distinct(rule, check, when, rows)
        else:
            for number, row in enumerate(rows):
                if all(_holds(condition, row) for condition in when) and not _holds(check, row):
                    found.append(f"{rule}, row {number}: {check} fails on {[row.get(name) for name in _names(check)]}")
    for number, row in enumerate(rows):
        for name in columns:
            value = row[name]
            if value is not None and value.strip().lower() in _PLACEHOLDERS:
                found.append(f"NullHandling, row {number}: {name} holds a placeholder, {value!r}")
    return found


def _names(check: Sequence[Any]) -> list[str]:
    if check[0] in ("and", "or"):
        return [name for part in check[1:] for name in _names(part)]
    count = {"product": 3, "pairs": 2, "same": 2, "distinct": 2}.get(check[0], 1)
    return list(check[1 : 1 + count])


def _distinct(rule: str, check: Sequence[Any], when: Sequence[Any], rows: Iterable[Row]) -> list[str]:
    _, of, what, count = check
    found: dict[str | None, set[str | None]] = {}
    for row in rows:
        if all(_holds(condition, row) for condition in when):
            found.setdefault(row[of], set()).add(row[what])
    return [
        f"{rule}: {name!r} has {len(values)} of {what}: {sorted(map(str, values))}"
        for name, values in found.items()
        if len(values) != count
    ]


def _holds(check: Sequence[Any], row: Row) -> bool:
    what = check[0]
    if what == "and":
        return all(_holds(part, row) for part in check[1:])
    if what == "or":
        return any(_holds(part, row) for part in check[1:])
    value = row.get(check[1])
    if what in ("null", "not null"):
        return (value is None) is (what == "null")
    if what in ("is", "is not"):
        return (value == check[2]) is (what == "is")
    if what == "pairs":
        return [value, row.get(check[2])] in check[3]
    if what == "same":
        other = row.get(check[2])
        return value == other or (_number(value) is not None and _number(value) == _number(other))
    if value is None:
        return True  # what may not be null is said by a rule of its own
    if what == "one of":
        return value in check[2]
    if what == "at least":
        return (_number(value) or Decimal(0)) >= check[2]
    if what == "at most":
        return (_number(value) or Decimal(0)) <= check[2]
    if what == "product":
        one, other, result = (_number(row.get(name)) for name in check[1:4])
        assert one is not None and other is not None and result is not None
        return abs(one * other - result) <= Decimal("1e-9") * max(
            abs(result), Decimal(1)
        )  # as the official validator has it
    assert what in ("type", "format"), check
    return _formed(check[2], value)


def _formed(form: str, value: str) -> bool:
    if form in ("decimal", "numeric"):
        return _NUMBER.fullmatch(value) is not None
    if form == "time":
        return _TIME.fullmatch(value) is not None and datetime.fromisoformat(value) is not None
    if form == "string":
        return value == value.strip() and value.isprintable()
    if form == "unit":
        return _UNIT.fullmatch(value) is not None and (value.split("/")[0].endswith("s") or value in _DATA_UNITS)
    if form == "key-value":
        pairs = json.loads(value, object_pairs_hook=list)
        keys = [key for key, _ in pairs]
        return len(keys) == len(set(keys)) and all(isinstance(v, (str, int, float, bool, type(None))) for _, v in pairs)
    if form == "json":
        return isinstance(json.loads(value), dict)
    if form in ("currency", "national currency"):
        return value == "USD" or re.fullmatch(r"[A-Z]{3}", value) is not None
    raise AssertionError(form)


def _number(value: str | None) -> Decimal | None:
    return Decimal(value) if value is not None and _NUMBER.fullmatch(value) else None
