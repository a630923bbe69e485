"""Optimizations, one per file. `fastgen/config/optimizations.py` has the types by which they are chosen.

Each file has
    refuse    (gpu, choice, others) -> why it cannot be used here, or None. Imports no torch, so that it is said before
              any work. `gpu` None: on a CPU.
    apply     (modules, choice) -> facts for run.json; what is said under "note" is shown to the user
    enter_thread  (choice), if settings of PyTorch belong to the thread that computes. Not every file has it.
and a docstring that answers: what, how much, at what cost in quality, when not.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Optimizations, source
from fastgen.opt.base import Modules


def refuse(optimizations: Optimizations, gpu: Gpu | None) -> str:
    """Why these choices cannot be honoured here, and what is in the way; "" if they can. Those that are still open are
    left out. `gpu` None: on a CPU."""
    for name, choice in optimizations.each():
        if not choice.is_plain and choice.is_settled and (reason := _file(name).refuse(gpu, choice, optimizations)):
            return f"{choice.as_flag()}: {reason}{source(optimizations.why.get(choice.flag, ''))}"
    return ""


def refuse_one(name: str, optimizations: Optimizations, gpu: Gpu | None) -> str:
    """Why this one cannot be honoured beside the others; "" if it can."""
    choice = getattr(optimizations, name)
    return "" if choice.is_plain else _file(name).refuse(gpu, choice, optimizations) or ""


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


def enter_thread(optimizations: Optimizations) -> None:
    """Call this in every thread that computes."""
    for name, choice in optimizations.each():
        if not choice.is_plain and (enter := getattr(_file(name), "enter_thread", None)):
            enter(choice)


def fall_back(modules: Modules, optimizations: Optimizations, facts: dict[str, dict]) -> bool:
    """After a failed warm-up: undo what nobody asked for by its flag, one per call. Returns whether there was any."""
    for name in ("attention", "compile"):
        choice = getattr(optimizations, name)
        asked = optimizations.why.get(choice.flag, "").startswith("--")
        needed = name == "compile" and not optimizations.quantize.is_plain  # slower by far without
        undone = facts.get(name, {}).get("backend") == "none"
        if name in facts and not (asked or needed or undone) and _file(name).fall_back(modules, choice, facts[name]):
            return True
    return False


def _file(name: str) -> ModuleType:
    return import_module(f"fastgen.opt.{name}")
