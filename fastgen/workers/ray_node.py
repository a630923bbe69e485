"""The end of a RayWorker on the machine where it runs: a Ray actor that starts the child (worker_main) there and passes
its messages on. Does not know what a message means beyond the paths in it.

If the run folder is not here, the child works in a folder of its own. Images come with the message that names them, in
both directions.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec
from msgspec.structs import replace

from fastgen.config import ray_cluster
from fastgen.config.hardware import Device, find_gpus
from fastgen.config.settings import Settings
from fastgen.output import artifacts
from fastgen.types import Batch, Done, Request
from fastgen.workers.messages import (
    CannotStart,
    DeviceFault,
    Finished,
    Hello,
    Ready,
    Work,
    decode_from_child,
    decode_to_child,
    encode,
)
from fastgen.workers.process import ProcessChannel

POLL_S = 5.0
INPUTS = "inputs"
Files = dict[str, bytes]
"""Path -> content."""


class Arrived(msgspec.Struct):
    """A message of the child, with the images that it names if the run folder is elsewhere."""

    message: bytes
    files: Files = {}


class Ended(msgspec.Struct):
    """The last one: how the child ended."""

    how: str
    device_fault: bool


class Node:
    """Args: versions: of the run's main process; probe, token: a file in the run folder and what it says, which tells
    whether the same folder is here."""

    def __init__(self, versions: dict[str, str], probe: str, token: str):
        self._differs = ray_cluster.difference(versions, ray_cluster.versions())
        self._shared = _says(probe, token)
        self._out = "" if self._shared else tempfile.mkdtemp(prefix="fastgen-")
        self._channel: ProcessChannel | None = None
        self._arrived: SimpleQueue[Arrived | Ended] = SimpleQueue()
        self._log = Path()

    def shared(self) -> bool:
        """Whether the run folder is here."""
        return self._shared

    def send(self, message: bytes, files: Files) -> None:
        """Pass a message on to the child; the first one starts it."""
        known = decode_to_child(message)
        if isinstance(known, Hello):
            self._start(known)
            return
        if isinstance(known, Work) and files:
            message = encode(replace(known, batch=self._with_files(known.batch, files)))
        if self._channel is not None:
            try:
                self._channel.send(message)
            except BlockingIOError:
                self._channel.kill()
            except OSError:
                pass  # its end is noticed where it is read

    def receive(self) -> list[Arrived | Ended]:
        """What the child said since the last call. Waits for it for a while."""
        try:
            found = [self._arrived.get(timeout=POLL_S)]
        except Empty:
            return []
        while len(found) < 64 and not isinstance(found[-1], Ended):
            try:
                found.append(self._arrived.get_nowait())
            except Empty:
                break
        return found

    def finish(self) -> None:
        """Let the child finish its batches and end; wait for that for some seconds."""
        if self._channel is not None:
            self._channel.finish()
        self._clean()

    def kill(self) -> None:
        """End the child at once."""
        if self._channel is not None:
            self._channel.kill()
        self._clean()

    def _start(self, hello: Hello) -> None:
        settings, device = hello.settings, hello.device
        if refusal := self._differs or _lacks(settings):
            message = f"the machine {socket.gethostname()} cannot take part: {refusal}"
            self._arrived.put(Arrived(encode(CannotStart(message, by_user=True, only_here=True))))
            return
        if self._out:
            settings = replace(settings, run=replace(settings.run, out=self._out))
            for name in (artifacts.IMAGES, artifacts.LOGS, artifacts.PARTIAL, INPUTS):
                Path(self._out, name).mkdir(exist_ok=True)
        self._log = Path(settings.run.out, artifacts.LOGS, f"{device.name.replace(':', '-')}.log")
        here = Hello(settings, _on_this_machine(device), hello.slots)
        self._channel = channel = ProcessChannel(here, str(self._log))
        channel.send(encode(here))
        threading.Thread(target=self._listen, args=(channel,), daemon=True).start()

    def _listen(self, channel: ProcessChannel) -> None:
        fault = ""
        try:
            while True:
                message = channel.receive()
                known = decode_from_child(message)
                if isinstance(known, Ready):
                    message = encode(Ready({**known.facts, "machine": socket.gethostname()}))
                if isinstance(known, DeviceFault):
                    fault = known.message
                files = self._made(known) if self._out and isinstance(known, Finished) else {}
                self._arrived.put(Arrived(message, files))
        except (EOFError, OSError):
            pass
        how, device_fault = channel.ending(fault)
        words = artifacts.tail(self._log) if self._out else ""
        on = f" on the machine {socket.gethostname()}"
        self._arrived.put(Ended(f"{how}{on}" + (f"; the end of its log:\n{words}" if words else ""), device_fault))

    def _made(self, finished: Finished) -> Files:
        """Take the images of a batch out of the child's folder."""
        files = {}
        for result in finished.results:
            for path in result.paths if isinstance(result, Done) else ():
                place = Path(self._out, path)
                files[path] = place.read_bytes()
                place.unlink()
        return files

    def _with_files(self, batch: Batch, files: Files) -> Batch:
        """The batch with paths of copies on this machine."""
        copies = {}
        for number, (path, data) in enumerate(files.items()):
            place = Path(self._out, INPUTS, f"{threading.get_ident()}-{number}-{os.path.basename(path)}")
            place.write_bytes(data)
            copies[path] = str(place)

        def here(request: Request) -> Request:
            images = tuple(copies.get(path, path) for path in request.images)
            return replace(request, images=images, mask=copies.get(request.mask, request.mask))

        return Batch(batch.bucket, tuple(map(here, batch.requests)))

    def _clean(self) -> None:
        if self._out:
            shutil.rmtree(self._out, ignore_errors=True)


def _says(probe: str, token: str) -> bool:
    try:
        return Path(probe).read_text("utf-8") == token
    except (OSError, UnicodeDecodeError):
        return False


def _lacks(settings: Settings) -> str:
    """What a worker needs and this machine does not have; "" if nothing."""
    path, command = settings.model.path, settings.endpoint.command
    if path and os.path.isabs(path) and not os.path.exists(path):
        return f"it does not have {path}; put the model there, or into a folder that all machines share"
    if command and os.path.isabs(command[0]) and not os.path.exists(command[0]):
        return f"it does not have {command[0]}; run `fastgen setup vllm` there"
    return ""


def _on_this_machine(device: Device) -> Device:
    """The device with the GPUs that Ray gave to this actor."""
    if not device.gpu:
        return device
    first, *others = find_gpus()[: device.size]
    return replace(device, gpu=first, others=tuple(others))
