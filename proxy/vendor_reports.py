"""What vendors report of an organisation's usage and costs: from files that were downloaded, or through their SDKs.

OpenAI: `GET /v1/organization/usage/completions`, `.../usage/embeddings` and `GET /v1/organization/costs`, with an admin key
(API reference, "Usage"; the types of the `openai` package).  Costs are dollars, as numbers.
Anthropic: `GET /v1/organizations/usage_report/messages` and `GET /v1/organizations/cost_report`, with an admin key (API
reference, "Usage and Cost API").  Amounts are cents, as decimal text.
Days are those of UTC.  An admin key is used and never shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from msgspec import Struct

from proxy.reconcile import Billed, Used

PAGES = 1_000
"""Pages of one report that are read; more is a server that does not end."""
PICO = 1_000_000_000_000
KEY_VARIABLES = {"openai": "OPENAI_ADMIN_KEY", "anthropic": "ANTHROPIC_ADMIN_KEY"}
_COUNT_LIMIT = 10**15


class Unreadable(Exception):
    """A report cannot be had, or is none; the message says why and never holds a credential."""


class Report(Struct):
    """One vendor's month, as it reports it."""

    used: list[Used]
    billed: list[Billed]


def from_files(vendor: str, texts: Iterable[bytes], start: datetime, end: datetime) -> Report:
    """Of downloaded pages: each file holds one answer, or a list of answers, or an object of them; raises `Unreadable`."""
    report = Report([], [])
    found = 0
    for text in texts:
        try:
            value = json.loads(text, parse_float=Decimal)
        except ValueError:
            raise Unreadable("a file is not JSON") from None
        for bucket in _buckets(value, 0):
            found += 1
            _read(vendor, bucket, start, end, report)
    if not found:
        raise Unreadable("the files hold no report: each is an answer of the usage or costs API, with its `data`")
    return report


def from_openai(key: str, start: datetime, end: datetime, base_url: str | None = None) -> Report:
    """Through the official SDK, page by page; raises `Unreadable`."""
    import openai

    client = openai.OpenAI(api_key="unused", admin_api_key=key, base_url=base_url, max_retries=3, timeout=60.0)
    span: dict[str, Any] = {"start_time": int(start.timestamp()), "end_time": int(end.timestamp())}
    usage = client.admin.organization.usage
    by: Any = ["model", "api_key_id", "project_id"]
    items: Any = ["line_item", "project_id"]
    calls: list[Callable[[Any], Any]] = [
        lambda page: usage.completions(**span, bucket_width="1d", group_by=by, limit=31, page=page),
        lambda page: usage.embeddings(**span, bucket_width="1d", group_by=by, limit=31, page=page),
        lambda page: usage.costs(**span, bucket_width="1d", group_by=items, limit=180, page=page),
    ]
    report = Report([], [])
    try:
        for call in calls:
            for page in _pages(lambda at, call=call: _plain(call(openai.omit if at is None else at))):  # type: ignore[misc]
                for bucket in _buckets(page, 0):
                    _read("openai", bucket, start, end, report)
    except openai.APIError as error:
        raise Unreadable(_words(error)) from None
    finally:
        client.close()
    return report


def from_anthropic(key: str, start: datetime, end: datetime, base_url: str | None = None) -> Report:
    """The same of Anthropic's."""
    import anthropic

    client = anthropic.Anthropic(api_key=key, base_url=base_url, max_retries=3, timeout=60.0)
    span = {"starting_at": _rfc3339(start), "ending_at": _rfc3339(end), "bucket_width": "1d", "limit": 31}
    reports = {
        "/v1/organizations/usage_report/messages": [
            "model",
            "api_key_id",
            "workspace_id",
            "service_tier",
            "context_window",
        ],
        "/v1/organizations/cost_report": ["description", "workspace_id"],
    }
    report = Report([], [])
    try:
        for path, by in reports.items():

            def ask(page: str | None, path: str = path, by: list[str] = by) -> Any:
                params = {**span, "group_by": by, **({"page": page} if page else {})}
                return client.get(path, cast_to=object, options={"params": params})

            for page in _pages(ask):
                for bucket in _buckets(page, 0):
                    _read("anthropic", bucket, start, end, report)
    except anthropic.APIError as error:
        raise Unreadable(_words(error)) from None
    finally:
        client.close()
    return report


# --- pages and buckets -------------------------------------------------------------------------------------


def _pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    at: str | None = None
    for _ in range(PAGES):
        page = ask(at)
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            raise Unreadable("the vendor's answer is no report: it has no `data`")
        yield page
        following = page.get("next_page")
        if not page.get("has_more"):
            return
        if not isinstance(following, str) or following == at:
            raise Unreadable("the vendor's answer says that there is more, and not where")
        at = following
    raise Unreadable(f"the vendor's report has more than {PAGES} pages")


def _plain(answer: Any) -> Any:
    """An SDK's object as JSON; amounts as they were written, as far as floats hold them."""
    return answer.model_dump(mode="json")


def _buckets(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Buckets of time with their results, wherever they stand in what was downloaded."""
    if depth > 4:
        return
    if isinstance(value, list):
        for one in value:
            yield from _buckets(one, depth + 1)
    elif isinstance(value, dict):
        if isinstance(value.get("results"), list):
            yield value
        else:
            for one in value.values():
                yield from _buckets(one, depth + 1)


def _read(vendor: str, bucket: dict[str, Any], start: datetime, end: datetime, report: Report) -> None:
    begins = _moment(bucket.get("start_time", bucket.get("starting_at")))
    if not start <= begins < end:
        return
    for row in bucket["results"]:
        if not isinstance(row, dict):
            raise Unreadable("a result is no object")
        if "amount" in row:
            report.billed.append(_item(vendor, row))
        elif vendor == "openai" and "input_tokens" in row:
            report.used.append(_openai(row))
        elif vendor == "anthropic" and "uncached_input_tokens" in row:
            report.used.append(_anthropic(row))
        elif "object" in row:  # images, sound by the second: in the costs, not in tokens
            continue
        else:
            raise Unreadable(
                f"a result is none of {vendor}'s usage or costs: it has {', '.join(sorted(row)[:6]) or 'nothing'}"
            )


def _openai(row: dict[str, Any]) -> Used:
    """OpenAI's input tokens include those that were read from a cache or written to it."""
    cached, written = _count(row, "input_cached_tokens"), _count(row, "input_cache_write_tokens")
    return Used(
        _name(row, "model"), max(0, _count(row, "input_tokens") - cached - written), cached, written,
        _count(row, "output_tokens"), _count(row, "num_model_requests"), _name(row, "api_key_id"), _name(row, "project_id"),
    )  # fmt: skip


def _anthropic(row: dict[str, Any]) -> Used:
    made = row.get("cache_creation")
    written = made if isinstance(made, dict) else {}
    return Used(
        _name(row, "model"), _count(row, "uncached_input_tokens"), _count(row, "cache_read_input_tokens"),
        _count(written, "ephemeral_5m_input_tokens") + _count(written, "ephemeral_1h_input_tokens"),
        _count(row, "output_tokens"), _count(row, "requests"), _name(row, "api_key_id"), _name(row, "workspace_id"),
    )  # fmt: skip


def _item(vendor: str, row: dict[str, Any]) -> Billed:
    if vendor == "openai":
        amount = row["amount"] if isinstance(row["amount"], dict) else {}
        _dollars(amount.get("currency"))
        item = _name(row, "line_item")
        return Billed(_money(amount.get("value"), PICO), item, item.partition(",")[0].strip(), _name(row, "project_id"))
    _dollars(row.get("currency"))
    tokens = row.get("cost_type") in (None, "tokens")
    model = _name(row, "model") if tokens else ""
    return Billed(_money(row["amount"], PICO // 100), _name(row, "description"), model, _name(row, "workspace_id"))


def _money(value: Any, unit: int) -> int:
    try:
        amount = Decimal(str(value if value is not None else 0)) * unit
        return int(amount.to_integral_value())
    except (InvalidOperation, ValueError, OverflowError):
        raise Unreadable("an amount is no number") from None


def _dollars(currency: Any) -> None:
    if currency is not None and str(currency).lower() != "usd":
        raise Unreadable(f"an amount is in {str(currency)[:8]}, and the ledger is in USD")


def _count(row: dict[str, Any], name: str) -> int:
    value = row.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _COUNT_LIMIT:
        raise Unreadable(f"{name} is no count of tokens")
    return value


def _name(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return value[:256] if isinstance(value, str) else ""


def _moment(value: Any) -> datetime:
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise Unreadable("a bucket has no time: start_time or starting_at") from None


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _words(error: Any) -> str:
    """What went wrong, without what the server or the SDK may have repeated of the request."""
    status = getattr(error, "status_code", None)
    hints = {
        401: "the admin key is not accepted",
        403: "this key may not read the organisation's usage: it takes an admin key",
    }
    if status is None:
        return f"the vendor cannot be reached ({type(error).__name__})"
    return f"the vendor answered {status}: {hints.get(status, 'see its status page, or try later')}"
