"""One worker process: `python -m proxy.worker --slot N`, started by the supervisor (see `proxy.workers`)."""

import gc
import sys


def main() -> int:
    """Serve until told to stop; 0 after a clean drain."""
    # What is loaded stays: looking for garbage among it, again and again as it grows, is a seventh of the time that it takes.
    gc.disable()
    from proxy.serving import run

    return run(int(sys.argv[-1]))


if __name__ == "__main__":
    raise SystemExit(main())
