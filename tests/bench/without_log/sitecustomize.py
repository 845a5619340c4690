"""For the benchmark alone: a worker without its audit log, which the product cannot be told to be.

Python imports this module at its start where the directory is on PYTHONPATH (site, "sitecustomize").  In a worker,
attempts and outcomes are then neither built into records, nor written, nor waited for, nor projected; all else stays
as it is.  So what is measured against it is everything that the log costs.
"""

import sys

if "proxy.worker" in sys.orig_argv:
    from proxy.recording import Recorder

    async def durable(self: Recorder, seq: int) -> None:
        return

    Recorder.decision = lambda self, exchange, attempt, edits: 0  # type: ignore[method-assign]
    Recorder.durable = durable  # type: ignore[method-assign]
    Recorder.outcome = lambda self, exchange, attempt: self._observe(exchange, attempt)  # type: ignore[method-assign]
