"""The fake backend on devices that fail as GPUs do: with an error of CUDA after which every other call fails too.

FAULTY_DEVICES   names of devices that fail at every batch       FAULTY_AT_START   the same, while the engine is opened
fault            in a prompt: the device fails at this row       fault:once        the first time only
after:3          in a prompt: this row waits until such devices have failed three times
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from fastgen.backends.fake import FakeBackend
from fastgen.config.backends import BackendSpec
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.output import artifacts
from fastgen.types import Batch, Result

CUDA = """CUDA error: an illegal memory access was encountered
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""


class FaultyBackend(FakeBackend):
    def __init__(self, settings: Settings, device: Device):
        super().__init__(settings, device)
        self._device = device.name
        self._has_failed = False

    def open(self) -> dict:
        if self._device in os.environ.get("FAULTY_AT_START", "").split():
            self._note_fault()
            raise RuntimeError(CUDA)
        return super().open()

    def run(self, batch: Batch) -> list[Result]:
        self._has_failed |= self._device in os.environ.get("FAULTY_DEVICES", "").split()
        for request in batch.requests:
            self._has_failed |= "fault" in (words := request.prompts[0].split())
            once = self._logs / f"failed-{request.id}"
            if "fault:once" in words and not once.exists():
                once.touch()
                self._has_failed = True
            if after := re.search(r"\bafter:(\d+)", request.prompts[0]):
                while not self._has_failed and len(list(self._logs.glob("fault-*"))) < int(after[1]):
                    time.sleep(0.01)
        if self._has_failed:
            self._note_fault()
            raise RuntimeError(CUDA)
        return super().run(batch)

    @property
    def _logs(self) -> Path:
        return Path(self.settings.run.out) / artifacts.LOGS

    def _note_fault(self) -> None:
        (self._logs / f"fault-{os.getpid()}").touch()


SPEC = BackendSpec(
    "faulty", ("t2i",), {"fake": f"{__name__}:FaultyBackend"}, "fastgen.config.model_cards:locate_fake", hidden=True
)
