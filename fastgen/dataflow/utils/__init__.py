"""What operators share besides servings: tables (`storage`), and their names (`registry`)."""

from fastgen.dataflow.utils.registry import IO_REGISTRY, OPERATOR_REGISTRY

__all__ = ["IO_REGISTRY", "OPERATOR_REGISTRY"]
