"""The face of DataFlow-MM: its storages, servings and operators, under its module paths, with fastgen behind them.

A pipeline that says `from dataflow...` runs here once it says `from fastgen.dataflow...`; docs/dataflow.md tells what
differs.
Thin: it makes rows, gives them to fastgen, and brings the results into the shapes that such pipelines expect.
What runs where, how many at once, what is tried again and what is committed when is not known here.
"""

import fastgen
from fastgen.dataflow.logger import get_logger

__all__ = ["__version__", "get_logger"]
__version__ = fastgen.__version__
