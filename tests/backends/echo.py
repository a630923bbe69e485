"""A backend as somebody else would write one: it answers every row with the row's own prompt."""

from __future__ import annotations

from fastgen.config.backends import BackendSpec
from fastgen.config.hardware import Device
from fastgen.config.model_cards import Defaults, ModelCard
from fastgen.config.settings import Settings
from fastgen.types import Batch, Done, Result


def locate(spec, task, model, on_gpu, base_url, command):
    return ModelCard(model, "", "echo", model, Defaults()), None, [f"{spec} repeats what it is told"]


class EchoBackend:
    def __init__(self, settings: Settings, device: Device):
        self.settings = settings

    def open(self) -> dict:
        return {"device": "none"}

    def run(self, batch: Batch) -> list[Result]:
        name = self.settings.backend.name
        return [
            Done(r.id, name, self.settings.model.name, (), r.params, 0.0, text=r.dialogue[-1][1])
            for r in batch.requests
        ]

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings

    def cancel_pending(self) -> None: ...

    def close(self) -> None: ...


SPEC = BackendSpec("echo", ("caption",), {"echo": f"{__name__}:EchoBackend"}, f"{__name__}:locate")
