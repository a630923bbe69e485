"""The LoRAs of rows: the transformer's weights are those of one set at a time. Batches with the same set run side by
side; a batch with another one waits until they are done. Does not know rows or batches.

Nothing is loaded again: the weights that a LoRA changes are copied to main memory before the first change, and put back
before the next set is merged. So a set gives the same weights whatever was there before it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fastgen.backends.diffusion.lora import merge, views
from fastgen.backends.diffusion.modules import Modules
from fastgen.errors import InputError, ModelError, quoted
from fastgen.input import weights
from fastgen.input.loras import FIELD, Loras
from fastgen.input.weights.layers import Model
from fastgen.input.weights.lora import Plan


class RowLoras:
    """Args:
    modules: the model, as it is without LoRAs of rows.
    folder: of the model.
    """

    def __init__(self, modules: Modules, folder: str):
        self._modules = modules
        self._folder = folder
        self._model: Model | None = None
        self._plans: dict[str, tuple[tuple[int, int], Plan]] = {}
        """Path -> (size and change time of the file, what it changes)."""
        self._base: dict[str, torch.Tensor] = {}
        """Name -> weights before any change, in main memory."""
        self._changed: dict[str, torch.Tensor] = {}
        """Name -> where the weights are that the present set has changed."""
        self._set: Loras = ()
        self._users = 0
        self._waiting: deque[object] = deque()
        self._turn = threading.Condition()

    @contextmanager
    def of(self, loras: Loras) -> Iterator[None]:
        """The transformer has these, in the order in which they were asked for. From any thread.

        Raises:
            InputError: a file cannot be used. The transformer has none then.
        """
        ticket = object()
        with self._turn:
            self._waiting.append(ticket)
            while self._waiting[0] is not ticket or (self._users and self._set != loras):
                self._turn.wait()
            self._waiting.popleft()
            self._turn.notify_all()
            if self._set != loras:
                self._change(loras)
            self._users += 1
        try:
            yield
        finally:
            with self._turn:
                self._users -= 1
                self._turn.notify_all()

    def notes(self, loras: Loras) -> list[str]:
        """What the user should be told of files that the transformer has or had."""
        return [f"{quoted(path)}: {note}" for path, _ in loras for note in self._plans[path][1].notes]

    @torch.no_grad()
    def _change(self, loras: Loras) -> None:
        modules = self._modules
        if "transformer" in modules.parked:
            modules.parked["transformer"].leave()
        if modules.block_stream is not None:
            modules.block_stream.release()
        self._put_back()
        try:
            for path, scale in loras:
                plan = self._plan(path)
                for change in plan.changes:
                    for name, weight in views(modules.transformer, change).items():
                        self._changed[name] = weight
                        if name not in self._base:
                            self._base[name] = weight.to("cpu", copy=True)
                merge(path, plan, scale, {"transformer": modules.transformer})
        except BaseException:
            self._put_back()
            raise
        self._set = loras

    def _put_back(self) -> None:
        for name, weight in self._changed.items():
            weight.copy_(self._base[name])
        self._changed, self._set = {}, ()

    def _plan(self, path: str) -> Plan:
        try:
            about = os.stat(path)
            if self._model is None:
                self._model = weights.read_model(Path(self._folder))
            if path not in self._plans:
                self._plans[path] = (about.st_size, about.st_ctime_ns), weights.plan_lora(path, self._model)
        except (OSError, ModelError) as error:
            raise InputError(f"{quoted(path)} cannot be used: {error}", FIELD) from None
        known, plan = self._plans[path]
        if known != (about.st_size, about.st_ctime_ns):
            raise InputError(f"{quoted(path)} was changed during the run; run the command again", FIELD)
        return plan
