"""The LoRAs that a row names for itself: found, and checked against the model by the headers of their files. Does not
know how they are merged.

A row's `lora` is PATH, PATH:SCALE, {"path": PATH, "scale": SCALE}, or a list of these. `.safetensors` may be left out.
Relative paths start at the folder of INPUT; without such a file, where the command runs.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from fastgen.config.settings import Settings
from fastgen.errors import InputError, ModelError, quoted
from fastgen.input import weights
from fastgen.input.paths import of_lora
from fastgen.input.weights.layers import Model

FIELD = "lora"
MOST = 16
SUFFIX = ".safetensors"
Loras = tuple[tuple[str, float], ...]


class RowLoras:
    """Reads the field of rows of a run."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._model: Model | None = None
        self._problems: dict[str, str] = {}
        """Path -> why it cannot be used, "" if it can."""

    def read(self, fields: dict) -> Loras:
        """(absolute path, scale) each. Raises InputError."""
        found = named(fields, self._settings)
        if found and (why := refuse(self._settings)):
            raise InputError(why, FIELD)
        for path, _ in found:
            if path not in self._problems:
                self._problems[path] = self._problem(path)
            if problem := self._problems[path]:
                raise InputError(problem, FIELD)
        return found

    def _problem(self, path: str) -> str:
        folder = _on_this_machine(self._settings).model.path
        if not folder:  # only a plan is made; the model is not on this machine
            return ""
        try:
            self._model = self._model or weights.read_model(Path(folder))
            parts = weights.plan_lora(path, self._model).parts
        except ModelError as error:
            return str(error)
        if others := sorted(parts - {"transformer"}):
            return (
                f"{quoted(path)} changes {' and '.join(others)} too, which rows cannot have apart; give it as --lora "
                "for the whole run"
            )
        return ""


def named(fields: dict, settings: Settings) -> Loras:
    """What a row names; the files exist. Raises InputError."""
    if fields.get(FIELD) in (None, "", []) or FIELD not in settings.local_fields:
        return ()
    given = fields[FIELD]
    entries = given if isinstance(given, list) else [given]
    if len(entries) > MOST:
        raise InputError(f"{len(entries)} LoRAs; the most is {MOST}, so leave some out", FIELD)
    return tuple(_entry(entry, _root(settings)) for entry in entries)


def refuse(settings: Settings) -> str:
    """Why rows of a run cannot have LoRAs of their own; "" if they can."""
    chosen = _on_this_machine(settings).optimizations
    if chosen.quantize.transformer != "none":
        return (
            "a row's LoRA changes weights while the run is at work, and quantized ones cannot be changed; leave "
            "--quantize out (or --quality exact), or give it as --lora for the whole run"
        )
    if chosen.shard.kind == "context":
        return "--parallel context: its processes have no LoRAs of rows; give it as --lora for the whole run"
    return ""


def _on_this_machine(settings: Settings) -> Settings:
    """Those of the backend that makes images here."""
    return next((link for link in settings.route if not link.backend.is_remote), settings)


def _entry(entry: Any, root: Path) -> tuple[str, float]:
    text, scale = entry, 1.0
    if isinstance(entry, dict):
        text, scale = entry.get("path", entry.get("name")), entry.get("scale", 1.0)
        if unknown := sorted(map(str, entry.keys() - {"path", "name", "scale"})):
            raise InputError(f"it has `{quoted(unknown[0])}`; write path and scale", FIELD)
    if not isinstance(text, str) or not text:
        raise InputError('write "PATH", "PATH:SCALE", {"path": PATH, "scale": SCALE}, or a list of them', FIELD)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise InputError(f"the scale of {quoted(text)} must be a finite number", FIELD)
    path = _file(text, root)
    before, colon, end = text.rpartition(":")
    if path is None and colon and not isinstance(entry, dict):
        try:
            scale = float(end)
        except ValueError:
            before = ""
        if before and not math.isfinite(scale):
            raise InputError(f"the scale of {quoted(before)} must be a finite number", FIELD)
        path = _file(before, root) if before else None
    if path is None:
        raise InputError(f"{quoted(text)}: no such file; give PATH or PATH:SCALE of a {SUFFIX} file", FIELD)
    return path, float(scale)


def _file(text: str, root: Path) -> str | None:
    try:
        for name in (text, text + SUFFIX):
            path = root / Path(name).expanduser()
            if os.path.isfile(path):
                return of_lora(path)
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, an unknown user
        pass
    return None


def _root(settings: Settings) -> Path:
    input = settings.run.input
    return Path(input).parent if input and os.path.isfile(input) else Path.cwd()
