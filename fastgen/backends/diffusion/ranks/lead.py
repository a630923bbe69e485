"""The first process of a replica: starts the others, tells them what it does, and ends with them. Does not know
batches, or why samples are grouped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn

import torch

from fastgen.backends.diffusion.family import Family, Sample
from fastgen.backends.diffusion.graphs import StepGraphs
from fastgen.backends.diffusion.group import Group, Member
from fastgen.backends.diffusion.memory import OutOfMemory, is_full
from fastgen.backends.diffusion.ranks import messages
from fastgen.backends.diffusion.ranks.group import device_of, interrupt, join, leave
from fastgen.backends.diffusion.ranks.other import Other, ended
from fastgen.config.device_errors import FAULT_EXIT, device_fault
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import EngineError

END_S = 5.0
"""Time for the others to end by themselves."""
CAUSE_S = 2.0
"""How long it takes until it is known which process has ended, after an exchange with it failed."""


@dataclass(frozen=True)
class _FromOther:
    """A picture that another process decodes; see `decode.Decoded`."""

    answer: Future
    place: int

    def wait(self) -> Any:
        return self.answer.result()[self.place]


class Lead:
    """Args: device: of the replica."""

    def __init__(self, settings: Settings, device: Device):
        self._family: Family | None = None
        self._device = device
        self._folder = tempfile.mkdtemp(prefix="fastgen-ranks-")
        self._groups, self._answers = count(), count()
        self._numbers: weakref.WeakKeyDictionary[Sample, int] = weakref.WeakKeyDictionary()
        """Samples that the others have."""
        self._new_number = count()
        self._gone: list[int] = []
        """Samples that the others may forget."""
        self._waiting: dict[int, Future] = {}
        self._times = count()
        """How often they have been connected before."""
        self._full_elsewhere = threading.Event()
        self._closing = False
        self._ending = threading.Lock()
        threads = max(1, device.threads // device.size)
        hellos = (messages.Hello(settings, device, number, self._folder) for number in range(1, device.size))
        self._others = [Other(hello, threads) for hello in hellos]
        for number, other in enumerate(self._others, 1):
            threading.Thread(target=self._listen, args=(number, other), name=f"rank {number}", daemon=True).start()

    @property
    def pids(self) -> list[int]:
        """Of the others."""
        return [other.process.pid for other in self._others]

    def join(self, family: Family) -> None:
        """Connect with the others, once the model is loaded here and there.

        Raises:
            EngineError: one of them could not load it.
        """
        self._family = family
        for other in self._others:
            other.loaded.result()
        with self.together():
            self._connect()

    def group(self, family: Family, members: list[Member], graphs: StepGraphs | None = None) -> Group:
        """A group that all of them step together."""
        return _LedGroup(self, family, members)

    def decode(self, samples: list[Sample], own: Callable[[list[Sample]], list[Any]]) -> list[Any]:
        """The images of samples of one size, each decoded by one of the processes. They have `wait`.

        Args:
            own: decodes here.
        """
        size = self._device.size
        decoded: list[Any] = [None] * len(samples)
        for number, other in enumerate(self._others, 1):
            share = samples[number::size]
            if share:
                with self.together():
                    answer = self._ask(other, share)
                decoded[number::size] = [_FromOther(answer, place) for place in range(len(share))]
        decoded[0::size] = own(samples[0::size])
        return decoded

    def forget(self) -> None:
        """The next run begins."""
        self._tell(messages.Forget())

    def close(self) -> None:
        """End the others."""
        self._closing = True
        for other in self._others:
            with suppress(OSError), socket.socket(fileno=os.dup(other.connection.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_WR)
        for other in self._others:
            try:
                other.process.wait(END_S)
            except subprocess.TimeoutExpired:
                other.process.kill()
        if self._device.kind == "cpu":  # a process with a GPU ends now; NCCL might wait for the others here
            leave()
        shutil.rmtree(self._folder, ignore_errors=True)

    # For _LedGroup

    def do(self, message: messages.Form | messages.Step, own: Callable[[], None]) -> None:
        """What all of them do at the same time.

        Args:
            own: this process's part.
        Raises:
            torch.OutOfMemoryError: the memory of one of them is full. All have given up what they had begun.
        """
        error: Exception | None = None
        full = ""
        with self.together():
            self._tell(message)
        try:
            own()
        except Exception as raised:
            if is_full(raised):
                full = f"{self._device.name}, process 0: {raised}"
            elif not self._is_full_elsewhere():
                error = raised
        # Only here, where the error is gone and with it the tensors of the failed pass, is their memory free.
        if full:
            self._tell(messages.Leave())
            leave()
        with self.together():
            if error is not None:
                raise error
            for number, other in enumerate(self._others, 1):
                found = other.did.get().full
                full = full or (found and f"{self._device.name}, process {number}: {found}")
            if full:
                leave()
                self._connect()
        if full:
            raise torch.OutOfMemoryError(f"out of memory: {full}")

    def form(self, members: list[Member], own: Callable[[], None]) -> int:
        """Have the others form a group while this process does. Returns its number."""
        group, new = next(self._groups), {}
        tensors: list[torch.Tensor] = []
        for member in members:
            if member.sample not in self._numbers:
                number = self._numbers[member.sample] = next(self._new_number)
                weakref.finalize(member.sample, self._gone.append, number)
                new[number], its = messages.packed(member.sample)
                tensors += its
        gone = tuple(self._gone[:])
        del self._gone[: len(gone)]
        numbers = tuple(self._numbers[member.sample] for member in members)

        def send_and_form() -> None:
            assert self._family is not None
            messages.send(tensors, self._family.modules.device)
            own()

        self.do(messages.Form(group, numbers, new, gone), send_and_form)
        return group

    def dissolve(self, group: int) -> None:
        """Have the others dissolve it."""
        with self.together():
            self._tell(messages.Dissolve(group))

    @contextmanager
    def together(self) -> Iterator[None]:
        """An error here leaves the others waiting for this process, and perhaps it comes from their end. So all of
        them end, and a new replica does the work again."""
        try:
            yield
        except BaseException as error:
            for other in self._others:
                with suppress(subprocess.TimeoutExpired):
                    other.process.wait(CAUSE_S / len(self._others))
            self._end(error)

    def _ask(self, other: Other, samples: list[Sample]) -> Future:
        number = next(self._answers)
        answer = self._waiting[number] = Future()
        other.tell(messages.Decode(number, tuple(self._numbers[sample] for sample in samples)))
        return answer

    def _tell(self, message: object) -> None:
        for other in self._others:
            other.tell(message)

    def _connect(self) -> None:
        """All of them, who forget what they had begun."""
        for sample in [sample for sample in self._numbers if sample.latents is None]:
            del self._numbers[sample]
        self._full_elsewhere.clear()
        time = next(self._times)
        self._tell(messages.Join(time))
        join(self._folder, 0, self._device.size, device_of(self._device.kind, 0), time)

    def _is_full_elsewhere(self) -> bool:
        """Why an exchange has failed. The process whose memory is full leaves it, and says so."""
        return self._full_elsewhere.wait(CAUSE_S)

    def _listen(self, number: int, other: Other) -> None:
        """Take a process's answers until it ends; then end too."""
        try:
            while True:
                match other.connection.recv():
                    case messages.Loaded():
                        other.loaded.set_result(None)
                    case messages.Did(full) as did:
                        if full and not self._full_elsewhere.is_set():
                            self._full_elsewhere.set()
                            self._tell(messages.Leave())
                            interrupt(device_of(self._device.kind, 0))
                        other.did.put(did)
                    case messages.Decoded(answer, pictures, tiled, full):
                        self._take(answer, pictures, tiled, full)
        except (EOFError, OSError):
            if self._closing:
                return
        code = other.process.wait()
        if not other.loaded.done() and code > 0 and code != FAULT_EXIT:
            why = f"process {number} of {self._device.name} could not load the model"
            other.loaded.set_exception(EngineError(why))
            return
        self._end(None, f"process {number} of {self._device.name} {ended(code)}", code)

    def _take(self, number: int, pictures: list[Any], tiled: bool, full: str) -> None:
        answer = self._waiting.pop(number)
        if tiled and self._family is not None:
            self._family.modules.vae.enable_tiling()  # rows say so from now on
        if full:
            answer.set_exception(OutOfMemory(full))
        else:
            answer.set_result(pictures)

    def _end(self, error: BaseException | None, why: str = "", code: int = 1) -> NoReturn:
        """End this process, and with it the others. Its batches come back through its death."""
        self._ending.acquire()  # once; whoever else comes here waits for the end
        if error is not None:
            traceback.print_exception(error)
            faults = [other for other in self._others if other.process.poll() == FAULT_EXIT]
            code = FAULT_EXIT if faults or device_fault(error) else 1
            over = [f"process {at} of {self._device.name} {o.end}" for at, o in enumerate(self._others, 1) if o.is_out]
            why = over[0] if over else ""
        with suppress(OSError):
            print(
                f"{why or 'the processes of this replica cannot go on'}, so all of them end",
                file=sys.stderr,
                flush=True,
            )
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(code if code in (FAULT_EXIT, 1) else 1)


class _LedGroup(Group):
    """A group whose steps all processes take together."""

    def __init__(self, lead: Lead, family: Family, members: list[Member]):
        self._lead = lead
        self._number = lead.form(members, lambda: super(_LedGroup, self).__init__(family, members))

    def step(self) -> None:
        self._lead.do(messages.Step(self._number), super().step)

    def dissolve(self) -> list[Member]:
        self._lead.dissolve(self._number)
        return super().dissolve()
