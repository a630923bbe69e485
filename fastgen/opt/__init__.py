"""Optimizations, one a file, applied in ORDER. `fastgen/speed.py` has the words by which they are chosen.

Each file has
    Config    frozen; `Config.of(speed)` reads the words, and gives None where there is nothing to do
    refuse    (gpu, config, others) -> why it cannot be used here, or None; imports no torch, so that it is said before
    any work apply     (modules, config) -> facts for run.json
and a docstring that answers: what, how much, at what cost in quality, when not.
"""

from __future__ import annotations

from importlib import import_module

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Speed
from fastgen.errors import SettingsError

ORDER = ("layout", "quantize", "offload", "attention", "compile", "stepcache")
"""Weights are joined before they are quantized, both before they move to the device; the rest needs them there."""
FLAGS = {"layout": "fuse_qkv", "stepcache": "cache"}
"""The word by which an optimization is chosen, where it is not its own name."""


def choose(speed: Speed) -> dict:
    """The configs of all that is to be done, by name, in ORDER.

    Raises:
        SettingsError: a word that means nothing.
    """
    chosen = {}
    for name in ORDER:
        try:
            config = import_module(f"fastgen.opt.{name}").Config.of(speed)
        except ValueError as error:
            word = FLAGS.get(name, name)
            raise SettingsError(f"{_said(speed, word)}: {error}{_source(speed, word)}") from None
        if config is not None:
            chosen[name] = config
    return chosen


def refuse(speed: Speed, gpu: Gpu | None) -> str:
    """Why these choices cannot be honoured here, with what stands in the way; "" if they can. `gpu` None: on a CPU."""
    chosen = choose(speed)
    for name, config in chosen.items():
        others = {other: value for other, value in chosen.items() if other != name}
        if reason := import_module(f"fastgen.opt.{name}").refuse(gpu, config, others):
            word = FLAGS.get(name, name)
            return f"{_said(speed, word)}: {reason}{_source(speed, word)}"
    return ""


def apply_all(modules, chosen: dict) -> dict:
    """Apply them in ORDER; the facts for run.json, by name.

    Raises:
        SettingsError: one of them does not work here after all.
    """
    return {name: import_module(f"fastgen.opt.{name}").apply(modules, chosen[name]) for name in ORDER if name in chosen}


def _said(speed: Speed, word: str) -> str:
    """A choice as the command line has it."""
    if word == "compile":
        return "--compile"
    if word == "quantize":
        parts = (speed.quantize, f"text:{speed.quantize_text}")
        return f"--quantize {','.join(part for part in parts if not part.endswith('none')) or 'none'}"
    return f"--{word} {getattr(speed, word)}"


def _source(speed: Speed, word: str) -> str:
    why = speed.why.get(word, "")
    return f" (chosen by {why})" if why.startswith("profile") else ""
