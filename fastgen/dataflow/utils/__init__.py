"""What operators share besides servings: tables (`storage`), and operators by name (`registry`)."""

from fastgen.dataflow.utils.registry import IO_REGISTRY, OPERATOR_REGISTRY

__all__ = ["IO_REGISTRY", "OPERATOR_REGISTRY"]
