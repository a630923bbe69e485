"""Operators run in another way: over a part of their table at a time."""

from fastgen.dataflow.wrapper.batch_wrapper import BatchWrapper

__all__ = ["BatchWrapper"]
