"""OpenAI's and Anthropic's usage and cost APIs, scripted, on a real socket: pages, cursors, an admin key.

Shapes: OpenAI API reference, "Usage" (and the types of the `openai` package); Anthropic API reference, "Usage and Cost API".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ADMIN_KEY = "sk-admin-0123456789"
START = datetime(2026, 10, 1, tzinfo=UTC)


class Vendor:
    """What one vendor would answer: days of results by report, and what was asked."""

    def __init__(self) -> None:
        self.reports: dict[str, list[list[dict[str, Any]]]] = {}  # path -> results by day
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.per_page = 2
        self.status = 200

    def page(self, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        days = self.reports[path]
        first = int(query.get("page", ["page_0"])[0].removeprefix("page_"))
        shown = days[first : first + self.per_page]
        more = first + self.per_page < len(days)
        return {
            "data": [self.bucket(path, first + n, results) for n, results in enumerate(shown)],
            "has_more": more, "next_page": f"page_{first + self.per_page}" if more else None,
            **({"object": "page"} if "organization/" in path else {}),
        }  # fmt: skip

    def bucket(self, path: str, day: int, results: list[dict[str, Any]]) -> dict[str, Any]:
        begins, ends = START + timedelta(days=day), START + timedelta(days=day + 1)
        if "organizations/" in path:
            return {
                "starting_at": f"{begins:%Y-%m-%dT%H:%M:%SZ}",
                "ending_at": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
                "results": results,
            }
        return {
            "object": "bucket",
            "start_time": int(begins.timestamp()),
            "end_time": int(ends.timestamp()),
            "results": results,
        }


def openai_used(
    model: str, into: int, cached: int, out: int, *, key: str = "key_ours", requests: int = 1
) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result", "input_tokens": into, "output_tokens": out, "input_cached_tokens": cached,
        "input_audio_tokens": 0, "output_audio_tokens": 0, "num_model_requests": requests, "project_id": "proj_1", "user_id": None,
        "api_key_id": key, "model": model, "batch": None, "service_tier": None,
    }  # fmt: skip


def openai_cost(item: str, dollars: float) -> dict[str, Any]:
    return {
        "object": "organization.costs.result", "amount": {"value": dollars, "currency": "usd"}, "line_item": item,
        "project_id": "proj_1", "organization_id": "org-1",
    }  # fmt: skip


def anthropic_used(
    model: str, into: int, read: int, out: int, *, key: str = "apikey_ours", hour: int = 0
) -> dict[str, Any]:
    return {
        "uncached_input_tokens": into, "cache_creation": {"ephemeral_1h_input_tokens": hour, "ephemeral_5m_input_tokens": 0},
        "cache_read_input_tokens": read, "output_tokens": out, "server_tool_use": {"web_search_requests": 0}, "api_key_id": key,
        "workspace_id": None, "model": model, "service_tier": "standard", "context_window": "0-200k",
    }  # fmt: skip


def anthropic_cost(model: str | None, cents: str, kind: str = "tokens") -> dict[str, Any]:
    return {
        "currency": "USD", "amount": cents, "workspace_id": None, "description": f"{model} Usage", "cost_type": kind,
        "context_window": "0-200k", "model": model, "service_tier": "standard", "token_type": "output_tokens",
    }  # fmt: skip


@contextmanager
def serving(vendor: Vendor) -> Iterator[str]:
    """The address at which it listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            vendor.asked.append((parts.path, query))
            keys = (self.headers.get("authorization", "").removeprefix("Bearer "), self.headers.get("x-api-key", ""))
            status = vendor.status if ADMIN_KEY in keys else 401
            known = parts.path in vendor.reports
            answer = (
                vendor.page(parts.path, query) if status == 200 and known else {"error": {"message": f"no {ADMIN_KEY}"}}
            )
            body = json.dumps(answer).encode()
            self.send_response(status if status != 200 or known else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
