"""Amounts with units, as people write them: 2s, 1500ms, $20000, 5%, $2.50/M, 64MB.  Pure.

A bare number where a unit is needed is a mistake, and the message says which units there are.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

PICO = 1_000_000_000_000
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_BYTES = {"KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_NUMBER = re.compile(r"\s*(\$?)\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z%/]*)\s*")


def duration(value: Any) -> float:
    """Seconds of `2s`, `1500ms`, `5m`, `1h`, `30d`."""
    dollar, number, unit = _parts(value, "a duration needs a unit: ms, s, m, h or d, as in 2s")
    if dollar or unit not in _SECONDS:
        raise ValueError(f"a duration needs a unit: ms, s, m, h or d, as in {number}s")
    return float(number * _SECONDS[unit])


def size(value: Any) -> int:
    """Bytes of `64MB`, `512KiB`."""
    dollar, number, unit = _parts(value, "a size needs a unit: KB, MB, GB, KiB, MiB or GiB, as in 64MB")
    if dollar or unit not in _BYTES:
        raise ValueError(f"a size needs a unit: KB, MB, GB, KiB, MiB or GiB, as in {number}MB")
    return int(number * _BYTES[unit])


def share(value: Any) -> float:
    """The fraction of `5%`."""
    dollar, number, unit = _parts(value, "a share is written in percent, as in 5%")
    if dollar or unit != "%" or number > 100:
        raise ValueError(f"a share is written in percent, up to 100%, as in {number}%")
    return float(number / 100)


def money(value: Any) -> int:
    """Pico-dollars of `$20000`."""
    dollar, number, unit = _parts(value, "an amount of money is written with its sign, as in $20000")
    if not dollar or unit:
        raise ValueError(f"an amount of money is written with its sign, as in ${number}")
    return int(number * PICO)


def token_price(value: Any) -> int:
    """Pico-dollars per token of `$2.50/M` (dollars per million tokens)."""
    dollar, number, unit = _parts(value, "a price is written in dollars per million tokens, as in $2.50/M")
    if not dollar or unit != "/M":
        raise ValueError(f"a price is written in dollars per million tokens, as in ${number}/M")
    return int(number * 1_000_000)


def _parts(value: Any, wanted: str) -> tuple[str, Decimal, str]:
    match = (
        _NUMBER.fullmatch(str(value)) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
    )
    if match is None:
        raise ValueError(wanted)
    try:
        return match.group(1), Decimal(match.group(2).replace("_", "")), match.group(3)
    except InvalidOperation:
        raise ValueError(wanted) from None
