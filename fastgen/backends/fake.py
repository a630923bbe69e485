"""No model: writes one-bit images of the right size, and obeys words in the prompt. For testing everything else.

crash        the process dies            oom          fails for lack of memory unless it is alone in its batch
crash:once   dies the first time         oom:always   fails for lack of memory always
slow         takes 0.2 s                 refuse       is refused
slow:1.5     takes 1.5 s                 broken       raises an unexpected exception unless alone
flaky        fails twice, then works     disk         finds the disk full
pay          says that it sends something that may cost money
warn         has a warning for the user
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

from fastgen.backends.base import before_paying, warn
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import DiskError, ModelError
from fastgen.output import artifacts
from fastgen.types import Batch, Done, Failed, Kind, Request, Result

_WORDS = re.compile(r"\b(crash|oom|slow|refuse|broken|flaky|disk|pay|warn)\b(?::([\w.]+))?")


class FakeBackend:
    def __init__(self, settings: Settings, device: Device):
        self.settings = settings
        self.out = Path(settings.run.out)
        self._pictures: dict[tuple[int, int], bytes] = {}
        self._tries: dict[str, int] = {}

    def open(self) -> dict:
        if refusal := os.environ.get("FASTGEN_FAKE_CANNOT_START"):
            raise ModelError(refusal)
        return {"device": "none"}

    def reconfigure(self, settings: Settings) -> None:
        self.settings, self.out = settings, Path(settings.run.out)

    def cancel_pending(self) -> None: ...

    def close(self) -> None: ...

    def run(self, batch: Batch) -> list[Result]:
        if any("broken" in self._words(r) for r in batch.requests) and len(batch.requests) > 1:
            raise RuntimeError("this backend was told to break")
        started = time.monotonic()
        results: list[Result] = []
        for request in batch.requests:
            words = self._words(request)
            if "pay" in words:
                before_paying()
            if "warn" in words:
                warn(f"{request.id} was told to warn")
            if "crash" in words:
                self._crash(request, words["crash"])
            if "slow" in words:
                time.sleep(float(words["slow"] or 0.2))
            if "disk" in words:
                raise DiskError("cannot write: No space left on device")
            if "oom" in words and (len(batch.requests) > 1 or words["oom"] == "always"):
                results.append(self._failed(request, "oom", "out of memory"))
            elif "refuse" in words:
                results.append(self._failed(request, "refused", "the content was refused"))
            elif "flaky" in words and self._count(request) <= 2:
                results.append(self._failed(request, "transient", "try again"))
            else:
                results.append(self._done(request, time.monotonic() - started))
        artifacts.sync_images(self.out, [path for done in results if isinstance(done, Done) for path in done.paths])
        return results

    def _words(self, request: Request) -> dict[str, str]:
        return {
            word: detail
            for prompt in (*request.prompts, *(text for _, text in request.dialogue))
            for word, detail in _WORDS.findall(prompt)
        }

    def _crash(self, request: Request, detail: str) -> None:
        if detail == "once":
            marker = self.out / artifacts.LOGS / f"crashed-{artifacts.file_name(request.id, 0, 'txt')}"
            if marker.exists():
                return
            marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def _count(self, request: Request) -> int:
        self._tries[request.id] = self._tries.get(request.id, 0) + 1
        return self._tries[request.id]

    def _done(self, request: Request, seconds: float) -> Done:
        if request.task == "caption":
            text = f"{len(request.images)} pictures"
            if self.settings.text.schema:
                text = json.dumps({"caption": text})
            return Done(request.id, "fake", "fake", (), request.params, round(seconds, 4), text=text)
        params = request.image_params
        paths = tuple(artifacts.picture(request, number, "png") for number in range(request.samples))
        files = tuple(artifacts.write(self.out, path, self._picture(params.width, params.height)) for path in paths)
        return Done(request.id, "fake", "fake", paths, params, round(seconds, 4), files=files)

    def _failed(self, request: Request, kind: Kind, message: str) -> Failed:
        return Failed(request.id, kind, message, backend="fake", model="fake")

    def _picture(self, width: int, height: int) -> bytes:
        if (width, height) not in self._pictures:
            import io

            from PIL import Image

            buffer = io.BytesIO()
            Image.new("1", (width, height)).save(buffer, "PNG")
            self._pictures[width, height] = buffer.getvalue()
        return self._pictures[width, height]
