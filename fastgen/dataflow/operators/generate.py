"""The same operators, under the name that older documentation imports."""

from fastgen.dataflow.operators.core_vision.generate import *  # noqa: F403
from fastgen.dataflow.operators.core_vision.generate import __all__  # noqa: F401
