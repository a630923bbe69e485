"""Operators: each reads a table, lets a serving fill one column, and writes the next table. `core_vision.generate`
lists them."""

from fastgen.dataflow.operators.core_vision.generate import *  # noqa: F403
from fastgen.dataflow.operators.core_vision.generate import __all__  # noqa: F401
