"""`python -m proxy` is the `spillway` command."""


def main() -> None:
    """Entry point.  Whoever interrupts it while it loads is shown no traceback either."""
    try:
        from proxy.cli import main as run  # half a second's work: within reach of Ctrl-C

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
