"""The interface of DataFlow-MM: its storages, servings and operators, under its module paths, with fastgen behind them.

A pipeline with `from dataflow...` runs here once it says `from fastgen.dataflow...`; docs/dataflow.md lists what
differs.
This layer is thin: it makes rows, gives them to fastgen, and brings the results into the form that such pipelines
expect. It does not know what runs where, how many at once, what is tried again or when something is committed.
"""

import fastgen
from fastgen.dataflow.logger import get_logger

__all__ = ["__version__", "get_logger"]
__version__ = fastgen.__version__
