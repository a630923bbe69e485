"""The `fastgen` command, also as `python -m fastgen`."""

import sys


def main() -> None:
    """Everything else is imported here, so that Ctrl-C in the command's first moment is no traceback either."""
    try:
        from fastgen.cli.main import app
    except KeyboardInterrupt:
        print("interrupted before anything was done", file=sys.stderr)
        sys.exit(130)
    try:
        app(prog_name="fastgen")
    except Exception as error:
        from fastgen.cli.unforeseen import say

        sys.exit(say(error))


if __name__ == "__main__":
    main()
