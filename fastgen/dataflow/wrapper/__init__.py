"""Wrappers run operators in another way: over one part of their table at a time."""

from fastgen.dataflow.wrapper.batch_wrapper import BatchWrapper

__all__ = ["BatchWrapper"]
