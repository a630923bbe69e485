"""The operators for images, under the name that most pipelines import."""

from fastgen.dataflow.operators.core_vision.generate import *  # noqa: F403
from fastgen.dataflow.operators.core_vision.generate import __all__  # noqa: F401
