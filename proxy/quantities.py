"""Amounts with units, as people write them: 2s, 1500ms, $20000, $500/month, 5%, $2.50/M, 64MB.  Pure.

A bare number where a unit is needed is a mistake.  The message says which units there are, and the hint what
was probably meant; only numbers are repeated, never other text that stood there.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

PICO = 1_000_000_000_000
MOST_MONEY = 9_000_000
"""Dollars: sums in pico-dollars fit SQLite's 64-bit integers up to about 9.2 million."""

_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_AGES = {"d": Decimal(86400), "y": Decimal(366 * 86400)}  # a year is a leap year: nothing goes early
_OLDEST = 100  # years
_LONGEST = 3650 * 86400  # seconds; ten years: more is a slip of the pen
_MOST_TOKENS = 10**15
_BYTES = {"KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_LARGEST = 1 << 40  # bytes
_LONG_NAMES = {
    "ms": ("msec", "msecs", "millisecond", "milliseconds"), "s": ("sec", "secs", "second", "seconds"),
    "m": ("min", "mins", "minute", "minutes"), "h": ("hr", "hrs", "hour", "hours"), "d": ("day", "days"),
    "y": ("yr", "yrs", "year", "years"),
    "KB": ("k",), "MB": ("m",), "GB": ("g",),
}  # fmt: skip
_NUMBER = re.compile(r"(\$?) ?([0-9][0-9_]{0,17}(?:\.[0-9]{1,15})?) ?([A-Za-z%/]*)")
_DIGITS = re.compile(r"[0-9][0-9_,]{0,17}(?:\.[0-9]{1,15})?")
_THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000}


class Wrong(ValueError):
    """Something in the configuration is wrong.  The message says what; `hint` says what would be right."""

    def __init__(self, wrong: str, hint: str = "") -> None:
        super().__init__(wrong)
        self.hint = hint


def duration(value: Any) -> float:
    """Seconds of `2s`, `1500ms`, `5m`, `1h`, `30d`."""
    wrong = "a duration needs a unit: ms, s, m, h or d"
    dollar, number, unit = _parts(value)
    if dollar or number is None or unit not in _SECONDS:
        raise Wrong(wrong, _with_unit(value, number, unit, _SECONDS, "s", "2s"))
    seconds = number * _SECONDS[unit]
    if seconds > _LONGEST:
        raise Wrong("a duration is written in units of its size, up to 3650d", "such as 2s")
    return float(seconds)


def age(value: Any) -> float:
    """Seconds of `6y`, `2190d`: how long something is kept."""
    dollar, number, unit = _parts(value)
    if dollar or number is None or unit not in _AGES:
        hint = _with_unit(value, number, unit, _AGES, "y", "6y")
        raise Wrong("how long records are kept is written in days or years", hint)
    if not 0 < number * _AGES[unit] <= _OLDEST * _AGES["y"]:
        raise Wrong(f"how long records are kept is written in days or years, up to {_OLDEST}y", "such as 6y")
    return float(number * _AGES[unit])


def size(value: Any) -> int:
    """Bytes of `64MB`, `512KiB`."""
    wrong = "a size needs a unit: KB, MB, GB, KiB, MiB or GiB"
    dollar, number, unit = _parts(value)
    if dollar or number is None or unit not in _BYTES:
        raise Wrong(wrong, _with_unit(value, number, unit, _BYTES, "", "64MB"))
    amount = int(number * _BYTES[unit])
    if amount > _LARGEST:
        raise Wrong("a size is written in units of its order, up to 1024GiB", "such as 64MB")
    return amount


def share(value: Any) -> float:
    """The fraction of `5%`."""
    dollar, number, unit = _parts(value)
    if dollar or number is None or unit != "%":
        bare = number is not None and not unit and not dollar
        meant = (
            f"write {_plain(number * 100 if number < 1 else number)}%" if number is not None and bare else "such as 5%"
        )
        raise Wrong("a share is written in percent", meant)
    if number > 100:
        raise Wrong("a share is written in percent, up to 100%", "such as 5%")
    return float(number / 100)


def money(value: Any) -> int:
    """Pico-dollars of `$20000`."""
    dollar, number, unit = _parts(value)
    if not dollar or number is None or unit:
        raise Wrong("an amount of money is written in dollars, with the sign: $20000", _dollars(value))
    if number > MOST_MONEY:
        raise Wrong(f"an amount of money is written in dollars, up to ${MOST_MONEY}", "")
    return _whole(number * PICO)


def monthly(value: Any) -> int:
    """Pico-dollars a month of `$500/month`."""
    dollar, number, unit = _parts(value)
    if not dollar or number is None or unit != "/month":
        raise Wrong("an amount a month is written in dollars: $500/month", _a_month(value, number, unit))
    if number > MOST_MONEY:
        raise Wrong(f"an amount a month is written in dollars, up to ${MOST_MONEY}/month", "")
    return _whole(number * PICO)


def rental(value: Any) -> int:
    """Pico-dollars a month of `$2.10/hour` (all of the 730 hours of a month) or `$1500/month`."""
    dollar, number, unit = _parts(value)
    if dollar and number is not None and unit in ("/hour", "/h"):
        if number * 730 > MOST_MONEY:
            raise Wrong(f"a rent is at most ${MOST_MONEY}/month", "such as $2.10/hour")
        return _whole(number * 730 * PICO)
    try:
        return monthly(value)
    except Wrong:
        raise Wrong("a rent is written in dollars: $2.10/hour or $1500/month", "such as $2.10/hour") from None


def token_price(value: Any) -> int:
    """Pico-dollars per token of `$2.50/M` (dollars per million tokens)."""
    dollar, number, unit = _parts(value)
    if not dollar or number is None or unit != "/M":
        raise Wrong("a price is written in dollars per million tokens: $2.50/M", _per_million(value, number, unit))
    if number > MOST_MONEY:
        raise Wrong(f"a price is written in dollars per million tokens, up to ${MOST_MONEY}/M", "")
    return _whole(number * 1_000_000)


def count(value: Any) -> int:
    """`80M`, `500k`, `2B` or `20,000` tokens."""
    match = re.fullmatch(rf"({_DIGITS.pattern}) ?([kKmMbB]?)", value.strip()) if isinstance(value, str) else None
    amount = (
        _number(match[1]) * {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}[match[2].lower()] if match else None
    )
    if amount is None or amount != int(amount) or amount > _MOST_TOKENS:
        raise Wrong("a number of tokens is written as 500k, 80M or 2B, up to 1000000B", "such as 80M")
    return int(amount)


def _parts(value: Any) -> tuple[str, Decimal | None, str]:
    """(dollar sign, number, unit) of what was written; no number where it has another form."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return "", None, ""
    match = _NUMBER.fullmatch(_text(value))
    if match is None:
        return "", None, ""
    return match[1], Decimal(match[2].replace("_", "")), match[3]


def _text(value: str | int | float) -> str:
    """As it was written: a small float without its exponent."""
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f") if abs(value) < 1e15 else repr(value)
    return str(value).strip()


def _with_unit(value: Any, number: Decimal | None, unit: str, units: dict[str, Any], default: str, example: str) -> str:
    """What was probably meant: another spelling of a unit, or the usual one for a bare number."""
    if number is None:
        return f"such as {example}"
    for known in units:
        names = {known.lower(), *_LONG_NAMES.get(known, ())}
        if unit and unit.lower() in names:
            return f"write {_plain(number)}{known}"
    return f"such as {_plain(number)}{default}" if default and not unit else f"such as {example}"


def _dollars(value: Any) -> str:
    """`20000`, `20,000`, `$20k`, `20000 USD` and `20000$` as they are written here; other currencies are not converted."""
    text = _text(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    form = re.fullmatch(rf"\$? ?({_DIGITS.pattern}) ?([kKmM]?) ?(?:\$|USD|usd|dollars)?", text)
    if form is None:
        return "such as $20000"
    return f"write ${_plain(_number(form[1]) * _THOUSANDS[form[2].lower()])}"


def _a_month(value: Any, number: Decimal | None, unit: str) -> str:
    """`500`, `$500` and `$500/mo` a month; a sum a year is divided where nothing is lost."""
    if number is not None and unit.lower() in ("/year", "/yr", "/y", "/a"):
        cents = number * 100 / 12
        return f"write ${_plain(cents / 100)}/month" if cents == int(cents) else "such as $500/month"
    if number is not None and unit.lower() in ("", "/mo", "/mon", "/m", "/month"):
        return f"write ${_plain(number)}/month"
    return "such as $500/month"


def _per_million(value: Any, number: Decimal | None, unit: str) -> str:
    """`$2.50/1M`, `$0.002/K` and `$2.50/MTok` per million; a tiny bare price is one per token."""
    text = _text(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    form = re.fullmatch(rf"\$? ?({_DIGITS.pattern}) ?/ ?1?([kKmM])(?:Tok|tok|tokens| tokens)?", text)
    if form is not None:
        amount = _number(form[1]) * (1000 if form[2] in "kK" else 1)
    elif number is not None and not unit:
        amount = number * 1_000_000 if 0 < number < Decimal("0.001") else number
    else:
        return "such as $2.50/M"
    return f"write ${_plain(amount)}/M"


def _number(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("_", ""))


def _plain(number: Decimal) -> str:
    """Without an exponent, and with the two places of money where there are any."""
    text = format(number, "f")
    whole, _, places = text.partition(".")
    places = places.rstrip("0")
    return f"{whole}.{places.ljust(2, '0') if len(places) == 1 and whole != '0' else places}" if places else whole


def _whole(amount: Decimal) -> int:
    """Exact, or nothing: an amount that would be rounded is refused."""
    if amount != int(amount):
        raise Wrong("an amount is written with fewer decimal places: it is counted in units of $0.000000000001", "")
    return int(amount)
