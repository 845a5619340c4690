"""`python -m proxy` is the `spillway` command."""

import signal


def main() -> None:
    """Entry point.  Ctrl-C while it loads ends it at once: what is raised within an import may be swallowed there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from proxy.cli import main as run  # half a second's work: within reach of Ctrl-C

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
