"""A worker on any machine of a Ray cluster: an actor there (ray_node.py) starts the same child that a ProcessWorker
has, and passes its messages on.

Ray places actors and tells when one is lost. Everything else is ours: a call to an actor that has no place yet would
hang, so the worker first waits for a placement group, which cannot; an actor that Ray restarts would have lost its
child, so none is restarted: `start` makes a new one, wherever there is room; and one that hangs is noticed as every
worker is, by its missing beats.
"""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastgen.config import ray_cluster
from fastgen.config.settings import Settings
from fastgen.errors import DiskError
from fastgen.output import artifacts
from fastgen.workers.messages import (
    Beat,
    CannotStart,
    DiskFull,
    Finished,
    Hello,
    Work,
    decode_from_child,
    decode_to_child,
    encode,
)
from fastgen.workers.messaging import Channel, MessagingWorker
from fastgen.workers.process import STOP_S
from fastgen.workers.ray_node import Arrived, Ended, Files, Node

PLACE_S = 600.0
"""Time for the cluster to place as many workers as a run needs at least (--min-workers)."""
WAKE_S = 0.5
"""How often a thread that waits for Ray looks whether its worker was killed."""
END_S = 3.0
"""Time for an actor to end its child before the actor itself is ended."""

_placed: weakref.WeakSet[RayChannel] = weakref.WeakSet()
_kept_for_ever: list[Any] = []
"""In a forked process: handles that must not be collected, because Ray would end what they stand for."""


class RayWorker(MessagingWorker):
    def _open_channel(self, hello: Hello) -> Channel:
        return RayChannel(hello)

    @property
    def reusable(self) -> bool:
        """A cluster's places are given back after each run."""
        return False


class RayChannel:
    """Args: hello: says which device is wanted; it is not sent. Raises DiskError, SettingsError."""

    def __init__(self, hello: Hello):
        settings = hello.settings
        self._ray = ray_cluster.connect(settings.placement.address)
        self._settings: Settings = settings
        self._device = hello.device
        self._out = Path(settings.run.out)
        self._probe = self._out / artifacts.PARTIAL / f"shared-{hello.device.name.replace(':', '-')}"
        self._token = mark(self._probe)
        self._lock = threading.Lock()
        self._unsent: list[bytes] = []
        self._arrived: deque[Arrived | Ended] = deque()
        self._actor: Any = None
        self._next: Any = None
        """The call of the actor's `receive` that is under way."""
        self._shared = True
        self._killed = threading.Event()
        self._ended: Ended | None = None
        self._since = time.monotonic()
        self._group = self._ask_for_place()

    def _ask_for_place(self) -> Any:
        from ray.util.placement_group import placement_group

        return placement_group([self._needs], strategy="STRICT_PACK")

    @property
    def _needs(self) -> dict[str, float]:
        size = self._device.size
        return {"GPU": size, "CPU": 1} if self._device.gpu else {"CPU": self._device.threads}

    @property
    def alive(self) -> bool:
        return not self._killed.is_set() and self._ended is None

    def send(self, message: bytes) -> None:
        with self._lock:
            if self._actor is None:
                self._unsent.append(message)
            else:
                _call(self._actor, "send", message, self._inputs(message))

    def _inputs(self, message: bytes) -> Files:
        """The images that a batch reads, if the worker cannot see them."""
        work = None if self._shared else decode_to_child(message)
        files: Files = {}
        for request in work.batch.requests if isinstance(work, Work) else ():
            for path in request.input_paths:
                with suppress(OSError):  # the worker finds that it is not there
                    files[path] = files.get(path) or Path(path).read_bytes()
        return files

    def receive(self) -> bytes:
        if self._actor is None:
            return self._wait_for_place()
        while not self._arrived:
            self._arrived.extend(self._get(self._next))
            self._next = _call(self._actor, "receive")
        arrived = self._arrived.popleft()
        if isinstance(arrived, Ended):
            self._ended = arrived
            raise EOFError
        return self._store(arrived) if arrived.files else arrived.message

    def _get(self, call: Any) -> Any:
        """The result of a call. Raises EOFError if the worker was killed or its actor is lost."""
        while not self._killed.is_set():
            done, _ = self._ray.wait([call], timeout=WAKE_S)
            if done:
                try:
                    return self._ray.get(done[0])
                except self._ray.exceptions.RayError as error:
                    self._ended = Ended(f"Ray lost the worker: {_first_line(error)}", False)
                    raise EOFError from None
        raise EOFError

    def _wait_for_place(self) -> bytes:
        """A sign of life while the worker has no place; then its actor is made. Raises EOFError."""
        if self._killed.is_set():
            raise EOFError
        if not self._group.wait(timeout_seconds=1):
            waited_s = time.monotonic() - self._since
            if waited_s < PLACE_S or len(_placed) >= self._settings.placement.least:
                return encode(Beat())
            free = {name: self._ray.available_resources().get(name, 0) for name in self._needs}
            message = f"the cluster had no room for it in {waited_s:.0f} s: it needs {self._needs}, and {free} are free"
            return encode(CannotStart(message, by_user=False))
        actor = self._make()
        self._shared = self._get(_call(actor, "shared"))
        with self._lock:
            self._actor = actor
            for waiting in self._unsent:
                _call(actor, "send", waiting, {})
            self._unsent.clear()
        self._next = _call(actor, "receive")
        _placed.add(self)
        if self._killed.is_set():  # while its actor was made
            self._release()
            raise EOFError
        return encode(Beat())

    def _make(self) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        made = self._ray.remote(
            num_cpus=self._needs["CPU"],
            num_gpus=self._needs.get("GPU", 0),
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups=dict.fromkeys(_THREADS.values(), 1),
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, 0),
        )(Node)
        return made.remote(ray_cluster.versions(), str(self._probe), self._token)

    def _store(self, arrived: Arrived) -> bytes:
        """Write images that were made on another machine into the run folder."""
        try:
            for name, data in arrived.files.items():
                artifacts.write(self._out, name, data)
            artifacts.sync_images(self._out, arrived.files)
        except DiskError as error:
            finished = decode_from_child(arrived.message)
            assert isinstance(finished, Finished)
            return encode(DiskFull(finished.number, str(error)))
        return arrived.message

    def kill(self) -> None:
        if not self._killed.is_set():
            self._killed.set()
            threading.Thread(target=self._release, daemon=True).start()

    def finish(self) -> None:
        if self._actor is not None and self.alive:
            with suppress(self._ray.exceptions.RayError):
                self._ray.wait([_call(self._actor, "finish")], timeout=STOP_S + 1)
        self.kill()

    def wait_killed(self) -> None:
        """Ray ends it; there is nothing to wait for."""

    def ending(self, fault: str) -> tuple[str, bool]:
        self.kill()
        if self._ended is None:
            return "the engine process was told to end", False
        return self._ended.how, self._ended.device_fault

    def forget(self) -> None:
        _kept_for_ever.extend((self._actor, self._group, self._next))

    def _release(self) -> None:
        """End the child and the actor, and give the place back."""
        from ray.util.placement_group import remove_placement_group

        _placed.discard(self)
        with suppress(Exception):  # the cluster itself may be gone
            if self._actor is not None:
                self._ray.wait([_call(self._actor, "kill")], timeout=END_S)
                self._ray.kill(self._actor, no_restart=True)
            remove_placement_group(self._group)


def mark(probe: Path) -> str:
    """Write a file by which another machine can tell that it has the same folder. Returns what is in it. Raises
    DiskError."""
    token = secrets.token_hex(8)
    try:
        probe.write_text(token, "utf-8")
    except OSError as error:
        raise DiskError(f"cannot write {probe}: {error.strerror}") from None
    return token


_THREADS = {"shared": "in", "send": "in", "receive": "out", "finish": "end", "kill": "end"}
"""The thread of an actor for each of its methods: what comes in keeps its order, and waits for nothing."""


def _call(actor: Any, name: str, *arguments: object) -> Any:
    return getattr(actor, name).options(concurrency_group=_THREADS[name]).remote(*arguments)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
