"""What a worker does before it serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxy.serving import DESCRIPTORS

SCRIPT = """
import re, resource
from proxy.serving import _make_room
resource.setrlimit(resource.RLIMIT_NOFILE, (MOST, MOST))
_make_room()
status = open("/proc/self/status").read()
print(re.search(r"FDSize:\\s+(\\d+)", status).group(1), len(__import__("os").listdir("/proc/self/fd")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how large the table is")
@pytest.mark.parametrize("limit", [1024, DESCRIPTORS])
def test_the_table_of_open_files_is_as_large_as_it_will_be(limit: int) -> None:
    script = SCRIPT.replace("MOST", str(limit))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)  # fmt: skip
    size, used = map(int, done.stdout.split())
    assert size >= limit and used < 10
