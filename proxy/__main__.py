"""`python -m proxy` is the `spillway` command."""

import gc
import os
import signal
import sys


def main() -> None:
    """Entry point.  Ctrl-C while it loads ends it at once: what is raised within an import may be swallowed there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # what is loaded stays
    # Nothing may hook itself into how the configuration is read; and looking for what would takes 10 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if sys.argv[1:2] == ["serve"]:
        from proxy.cli_serve import main as run  # without the other commands, which are most of what there is to load
    else:
        from proxy.cli import main as run  # half a second's work: within reach of Ctrl-C
    gc.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
