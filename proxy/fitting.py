"""`python -m proxy.fitting`: fit what the workers need, once, and end, so that no worker keeps the memory that it took.

Started by the supervisor where something is missing; standard input brings the settings, as for a worker.  What it does
not get done, the first worker does.
"""

from __future__ import annotations

import logging
import struct
import sys

from proxy.app import build_stages
from proxy.config import Settings


def main() -> int:
    """0 where all that was asked for is there."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s routes: %(message)s")
    stdin = sys.stdin.buffer
    (length,) = struct.unpack(">Q", stdin.read(8))
    stages = build_stages(Settings.undump(stdin.read(int(length))))
    return 0 if stages is None or not stages.why else 1


if __name__ == "__main__":
    raise SystemExit(main())
