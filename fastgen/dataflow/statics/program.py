"""What the pipelines share as programs: the model where none is named, and how they end: with an exit code, and a line
instead of a traceback. Knows no pipeline."""

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

    The code is 0, 2 for wrong settings (no key, no such file), 3 where rows failed, 130 where it was interrupted, and 1
    where the run could not go on.
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
            return _said("interrupted; what is done is kept, and the same command goes on from there", INTERRUPTED)
        return FAILED_ROWS if getattr(serving, "failures", None) else 0

    return run


def default_model(name: str) -> str:
    """The documented model `name` where there is a GPU for it, else "tiny", the embedded one, with a word about it."""
    if any(device.kind == "cuda" for device in fastgen.resolve("t2i", model="tiny").placement.devices):
        return name
    get_logger().warning(
        "there is no CUDA GPU here, so the model is tiny, the embedded one: it knows scenes of flat shapes such as "
        "'a red circle on a blue background', and nothing else. With a GPU it is %s; --model_name names another",
        name,
    )
    return "tiny"


def _said(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code
