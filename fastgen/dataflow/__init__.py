"""The face of DataFlow-MM: its storages, servings and operators, under its module paths, with fastgen behind them.

A pipeline that says `from dataflow...` runs here once it says `from fastgen.dataflow...`; docs/dataflow.md tells what
differs.
Thin: it makes rows, gives them to fastgen, and brings the results into the shapes that such pipelines expect.
What runs where, how many at once, what is tried again and what is committed when is not known here.
"""

import logging


def get_logger(level: int | None = None) -> logging.Logger:
    """The logger of all that is here. It has no handler of its own: warnings and errors reach the terminal all the
    same."""
    logger = logging.getLogger("fastgen.dataflow")
    if level is not None:
        logger.setLevel(level)
    return logger
