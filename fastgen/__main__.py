"""The `fastgen` command, also as `python -m fastgen`."""

import sys


def main() -> None:
    """Everything else is imported here, so that Ctrl-C in the command's first moment is no traceback either."""
    try:
        from fastgen.cli.main import app
    except KeyboardInterrupt:
        print("interrupted before anything was done", file=sys.stderr)
        sys.exit(130)
    app()


if __name__ == "__main__":
    main()
