"""What a start loads, and what becomes of a worker that is not needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.workers import WorkerProcess

NEVER = [
    "numpy", "duckdb", "tiktoken", "jinja2", "openai", "anthropic", "onnxruntime", "prometheus_client", "opentelemetry",
    "aiohttp.client", "aiohttp.connector", "aiohttp.web", "multiprocessing", "compliance.verify", "proxy.witness", "proxy.cli",
]  # fmt: skip
READING = ["yaml", "proxy.config_checks", "proxy.config_yaml"]
SERVING = ["hyperscan", "httptools", "uvloop", "sqlite3", "urllib.request", "compliance.vault", "engines.transport"]


@pytest.mark.parametrize(
    ("modules", "others"),
    [
        ("proxy.serving", [*NEVER, *READING]),
        ("proxy.cli_serve, proxy.supervisor, proxy.config_checks, proxy.config_yaml", [*NEVER, *SERVING]),
    ],
)
def test_what_only_some_need_is_not_loaded_by_all(modules: str, others: list[str]) -> None:
    """NumPy takes 45 ms and 12 MB: routes, complexity and learnt names ask for it.  The client of Prometheus looks when it
    is loaded whether it writes for other processes, which a worker is told later.  A worker gets its settings read and
    checked; who reads and checks them neither scans nor sends."""
    script = f"import sys, {modules}; print([name for name in {others} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"[]\n"


def test_whoever_asks_for_aiohttp_gets_the_whole_of_it() -> None:
    """Its parser alone is loaded (`proxy.aiohttp_parts`); a plug-in may want its client, and the same classes in it."""
    script = """
from proxy.aiohttp_parts import StreamReader
import aiohttp
from aiohttp import web
assert aiohttp.StreamReader is StreamReader and issubclass(aiohttp.ClientError, Exception)
assert aiohttp.http_exceptions.HttpProcessingError and aiohttp.web is web and web.Application
try:
    aiohttp.no_such_thing
except AttributeError:
    print("whole")
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"whole\n"


@pytest.mark.parametrize(
    "asking",
    [
        "from aiohttp.client import ClientSession; import aiohttp; assert aiohttp.ClientSession is ClientSession",
        "import aiohttp.connector; assert aiohttp.TCPConnector is aiohttp.connector.TCPConnector and aiohttp.__version__",
        "from aiohttp.web import Application; import aiohttp; assert aiohttp.web.Application is Application",
        "from aiohttp import *; ClientSession",
    ],
)
def test_whoever_asks_for_a_part_of_aiohttp_first_gets_it_too(asking: str) -> None:
    """Its modules import from the package while they are loaded themselves."""
    subprocess.run([sys.executable, "-c", f"import proxy.aiohttp_parts\n{asking}"], check=True)


def test_a_worker_that_nobody_tells_anything_ends_in_silence() -> None:
    process = WorkerProcess(0)
    process._channel.close()
    assert process._process.wait() == 0


def test_a_worker_that_is_not_needed_ends_at_once() -> None:
    process = WorkerProcess(0)
    process.give_up()
    assert process.returncode is not None
