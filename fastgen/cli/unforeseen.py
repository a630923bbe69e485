"""What is said when the command ends by an error that nobody foresaw: one line, and a file with the traceback."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback

import fastgen

EXIT_CODE = 1


def say(error: BaseException) -> int:
    """Say what happened in one line and keep the traceback in a file. Returns the exit code."""
    kind, reason = type(error).__name__, " ".join(str(error).split())
    said = f"error: unexpected {kind}: {reason}" if reason else f"error: unexpected {kind}"
    said += ". What was done so far is safe; the same command continues"
    if kept := _keep(error):
        said += f". This is probably a bug in fastgen {fastgen.__version__}: please report it with {kept}"
    with contextlib.suppress(OSError):
        print(said, file=sys.stderr, flush=True)
    return EXIT_CODE


def _keep(error: BaseException) -> str:
    """Write the traceback. Returns its file; "" if there is no room for one."""
    try:
        number, path = tempfile.mkstemp(prefix="fastgen-error-", suffix=".log")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"fastgen {fastgen.__version__}, Python {sys.version}\n{sys.argv}\n\n")
            traceback.print_exception(error, file=file)
    except OSError:
        return ""
    return path
