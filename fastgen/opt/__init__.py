"""Optimizations, one per file. `fastgen/config/optimizations.py` has the types by which they are chosen.

Each file has
    refuse    (gpu, choice, others) -> why it cannot be used here, or None. Imports no torch, so that it is said before
              any work. `gpu` None: on a CPU.
    apply     (modules, choice) -> facts for run.json
and a docstring that answers: what, how much, at what cost in quality, when not.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Optimizations, source
from fastgen.opt.base import Modules


def refuse(optimizations: Optimizations, gpu: Gpu | None) -> str:
    """Why these choices cannot be honoured here, and what is in the way; "" if they can. `gpu` None: on a CPU."""
    for name, choice in optimizations.each():
        if not choice.is_plain and (reason := _file(name).refuse(gpu, choice, optimizations)):
            return f"{choice.as_flag()}: {reason}{source(optimizations.why.get(choice.flag, ''))}"
    return ""


def apply_all(modules: Modules, optimizations: Optimizations) -> dict[str, dict]:
    """Apply them in their order. Returns the facts for run.json by name.

    Args:
        modules: the model.

    Raises:
        SettingsError: one of them turns out not to work here.
    """
    return {
        name: _file(name).apply(modules, choice)
        for name, choice in optimizations.each()
        if choice.always or not choice.is_plain
    }


def _file(name: str) -> ModuleType:
    return import_module(f"fastgen.opt.{name}")
