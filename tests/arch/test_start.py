"""What a start loads, and what becomes of a worker that is not needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.workers import WorkerProcess


@pytest.mark.parametrize("module", ["proxy.worker", "proxy.supervisor"])
def test_what_only_some_need_is_not_loaded_by_all(module: str) -> None:
    """NumPy takes a tenth of a second and 11 MB: routes, complexity and learnt names ask for it.  The client of Prometheus
    looks when it is loaded whether it writes for other processes, which a worker is told later."""
    heavy = ["numpy", "duckdb", "tiktoken", "jinja2", "openai", "anthropic", "onnxruntime", "prometheus_client"]
    script = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"[]\n"


def test_a_worker_that_nobody_tells_anything_ends_in_silence() -> None:
    process = WorkerProcess(0)
    process._channel.close()
    assert process._process.wait() == 0


def test_a_worker_that_is_not_needed_ends_at_once() -> None:
    process = WorkerProcess(0)
    process.give_up()
    assert process.returncode is not None
