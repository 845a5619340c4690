"""What answers behind the proxies: nginx that answers at once, and the paced engine."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from processes import ENGINE_CORE, LeftOut, claim, started

HERE = Path(__file__).parent
ENGINE_PORTS = {"json": 18701, "sse": 18703}
PACED_PORT = 18702
WORD, WORDS = " water", 49  # with usage and [DONE]: 51 events
ANSWERS = {
    "json": "A reservoir gives up only what it must, and what it gives up is measured. " * 5,
    "sse": WORD * WORDS,
}
"""The text of each answer: what every proxy must pass on whole before it is measured."""


def nginx(directory: Path, name: str, servers: str) -> list[str]:
    if shutil.which("nginx") is None:
        raise LeftOut("nginx is not installed")
    file = directory / f"{name}.conf"
    file.write_text(
        f"daemon off; master_process off; worker_processes 1; pid {directory}/{name}.pid; error_log {directory}/{name}.err;\n"
        "worker_rlimit_nofile 20000; events { worker_connections 8192; }\n"
        "http { access_log off; keepalive_requests 100000000; client_body_buffer_size 64k; client_max_body_size 64m;\n"
        f"client_body_temp_path {directory}/body-{name}; proxy_temp_path {directory}/proxy-{name}; fastcgi_temp_path {directory}/f-{name};\n"
        f"uwsgi_temp_path {directory}/u-{name}; scgi_temp_path {directory}/s-{name};\n{servers} }}"
    )
    return ["nginx", "-c", str(file)]


@contextlib.contextmanager
def engine(directory: Path) -> Iterator[None]:
    """An engine that answers at once: nginx with the bytes of an answer of 0.6 KB, or of a stream of 51 events."""
    head = {"id": "chatcmpl-1", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 500, "completion_tokens": 50, "total_tokens": 550}
    whole = {
        **head,
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": ANSWERS["json"]}, "finish_reason": "stop"}
        ],
        "usage": usage,
    }
    events = []
    for number in range(WORDS):
        finish = "stop" if number == WORDS - 1 else None
        events.append(
            {
                **head,
                "object": "chat.completion.chunk",
                "choices": [{"index": 0, "delta": {"content": WORD}, "finish_reason": finish}],
            }
        )
    events.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    (directory / "stream").write_text(stream)
    (directory / "whole").write_text(json.dumps(whole))
    info = {"model_path": str(directory), "served_model_name": "m", "dp_size": 1, "tp_size": 1, "model_type": "llama"}
    servers = "".join(_engine_server(directory, kind, json.dumps(info)) for kind in ENGINE_PORTS)
    claim(ENGINE_PORTS["sse"])
    with started(nginx(directory, "engine", servers), ENGINE_PORTS["json"], core=ENGINE_CORE):
        yield


def _engine_server(directory: Path, kind: str, info: str) -> str:
    file, content = {"json": ("whole", "application/json"), "sse": ("stream", "text/event-stream")}[kind]
    models = '{"object":"list","data":[{"id":"m","object":"model","owned_by":"x"}]}'
    infos = "".join(
        f"location = /{name} {{ default_type application/json; return 200 '{info}'; }}\n"
        for name in ("get_model_info", "model_info", "get_server_info", "server_info")
    )
    return f"""server {{ listen 127.0.0.1:{ENGINE_PORTS[kind]} backlog=4096; root {directory}; open_file_cache max=10;
      location = /v1/chat/completions {{ rewrite ^ /{file} last; }}
      location = /{file} {{ internal; default_type {content}; error_page 405 =200 /{file}; }}
      location = /health {{ return 200; }}
      location = /v1/models {{ default_type application/json; return 200 '{models}'; }}
      {infos} }}
    """


@contextlib.contextmanager
def paced_engine() -> Iterator[None]:
    with started(
        [sys.executable, str(HERE / "paced.py"), "engine", "--port", str(PACED_PORT)], PACED_PORT, core=ENGINE_CORE
    ):
        yield
