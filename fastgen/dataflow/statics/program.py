"""What the pipelines share as programs: the default model, and how they end: with an exit code, and one line instead of
a traceback. Does not know single pipelines."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import fastgen
from fastgen.dataflow import get_logger

FAILED_ROWS, WRONG_USE, INTERRUPTED = 3, 2, 130


def program(main: Callable[..., Any]) -> Callable[..., int]:
    """Make `main(arguments)`, which runs a pipeline and returns its serving, return an exit code.

    The code is 0; 2 for wrong settings (no key, no such file); 3 if rows failed; 130 if it was interrupted; 1 if the
    run could not continue.
    """

    @functools.wraps(main)
    def run(arguments: list[str] | None = None) -> int:
        try:
            serving = main(arguments)
        except fastgen.FastgenError as error:
            return _said(f"error: {error}", error.exit_code)
        except (ValueError, OSError) as error:
            return _said(f"error: {error}", WRONG_USE)
        except KeyboardInterrupt:
            return _said("interrupted; nothing is lost: run the same command to continue", INTERRUPTED)
        return FAILED_ROWS if getattr(serving, "failures", None) else 0

    return run


def default_model(name: str) -> str:
    """The documented model `name` if there is a GPU for it, else "tiny", the embedded one, with a message."""
    if any(device.kind == "cuda" for device in fastgen.resolve("t2i", model="tiny").placement.devices):
        return name
    get_logger().warning(
        "there is no CUDA GPU here, so the model is tiny, the embedded one: it knows scenes of flat shapes such as "
        "'a red circle on a blue background', and nothing else. With a GPU it is %s; --model_name chooses another",
        name,
    )
    return "tiny"


def _said(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code
