"""The logger of pipelines: `from fastgen.dataflow import get_logger`. Users' own operators log with it too.

Messages from INFO up go to stderr, unless the program has set up logging itself. Does not know what is logged.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

SUCCESS = 25
"""Between INFO and WARNING, as in DataFlow."""
NAME = "fastgen.dataflow"


class PipelineLogger(logging.Logger):
    def success(self, message: str, *args: Any, **more: Any) -> None:
        """Log that something is done."""
        if self.isEnabledFor(SUCCESS):
            self._log(SUCCESS, message, args, **more)


class _ToTerminal(logging.Handler):
    """Writes to the current stderr, not to the one at import."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers:  # the program's own handlers get it too
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def get_logger(level: int | None = None) -> PipelineLogger:
    """The logger of this package. Args: level: the lowest level that is logged from now on; default: logging.INFO."""
    logger = cast(PipelineLogger, logging.getLogger(NAME))
    if level is not None:
        logger.setLevel(level)
    return logger


def _make() -> None:
    logging.addLevelName(SUCCESS, "SUCCESS")
    usual = logging.getLoggerClass()
    logging.setLoggerClass(PipelineLogger)
    try:
        logger = logging.getLogger(NAME)
    finally:
        logging.setLoggerClass(usual)
    handler = _ToTerminal()
    handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)-7s | %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


_make()
