"""A process of a replica that is not the first: loads the model without text encoders, and does what the first one
says. Ends when that one does."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NoReturn

import torch
from msgspec.structs import replace

from fastgen import opt
from fastgen.backends.diffusion.decode import Decoded, to_uint8
from fastgen.backends.diffusion.families import load
from fastgen.backends.diffusion.group import Group, Member
from fastgen.backends.diffusion.heap import keep_freed_memory
from fastgen.backends.diffusion.memory import OutOfMemory, Room, is_full
from fastgen.backends.diffusion.ranks import messages
from fastgen.backends.diffusion.ranks.group import device_of, interrupt, join, leave
from fastgen.backends.diffusion.render import Decoder
from fastgen.config.device_errors import FAULT_EXIT, device_fault
from fastgen.config.optimizations import Offload, Optimizations
from fastgen.opt.ulysses import Ranks

CAUSE_S = 2.0
"""How long it takes until this process is told why an exchange failed: the memory of another is full."""


class Follower:
    """Args:
    connection: to the first process.
    told_to_leave: set by whoever reads its messages.
    """

    def __init__(self, connection: Connection, hello: messages.Hello, told_to_leave: threading.Event):
        self._connection = connection
        self._sending = threading.Lock()
        self._hello = hello
        self._told_to_leave = told_to_leave
        self._device = device_of(hello.device.kind, hello.number)
        self._members: dict[int, Member] = {}
        self._groups: dict[int, Group] = {}
        self._sender = ThreadPoolExecutor(1, "sender")
        """Waits for pixels, while the next steps are enqueued."""

    def load(self) -> None:
        """The model, without what only the first process needs."""
        settings, device = self._hello.settings, self._hello.device
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        else:
            keep_freed_memory()
        torch.set_num_threads(max(1, device.threads // device.size))
        chosen = _without_text(settings.optimizations)
        self._family = load(replace(settings, optimizations=chosen), self._device)
        self._family.modules.ranks = Ranks(self._hello.number, device.size)
        opt.apply_all(self._family.modules, chosen)
        opt.enter_thread(chosen)
        self._room = Room(self._family, settings.batch_for)
        self._decoder = Decoder(self._family, self._room)
        self._answer(messages.Loaded())

    @torch.inference_mode()
    def do(self, message: Any) -> None:
        """What the first process does at the same time."""
        match message:
            case messages.Join(time):
                self._join(time)
            case messages.Form():
                self._do_together(partial(self._form, message))
            case messages.Step(group):
                self._do_together(self._groups[group].step)
            case messages.Dissolve(group):
                self._groups.pop(group).dissolve()
            case messages.Decode(number, samples):
                self._decode(number, samples)
            case messages.Forget():
                self._room.forget()
                self._family.modules.vae.disable_tiling()

    def _join(self, time: int) -> None:
        leave()
        self._members = {number: member for number, member in self._members.items() if not member.left}
        self._told_to_leave.clear()
        join(self._hello.folder, self._hello.number, self._hello.device.size, self._device, time)

    def _do_together(self, own: Callable[[], None]) -> None:
        """This process's part of what all do. If the memory of one of them is full, all give it up."""
        full = ""
        try:
            own()
        except Exception as error:
            full = str(error) if is_full(error) else ""
            # Or the error comes from the end of an exchange that another one has left.
            if not full and not self._told_to_leave.wait(CAUSE_S):
                raise
            full = full or "another process has left"
        # Only here, where the error is gone and with it the tensors of the failed pass, is their memory free.
        if full:
            self._groups.clear()
            leave()
            self._room.empty_cache()
        self._answer(messages.Did(full))

    def _form(self, message: messages.Form) -> None:
        for number in message.gone:
            self._members.pop(number, None)
        for number, parcel in message.new.items():
            self._members[number] = Member(self._family, messages.received(parcel, self._device))
        members = [self._members[number] for number in message.samples]
        self._groups[message.group] = Group(self._family, members)

    def _decode(self, number: int, samples: tuple[int, ...]) -> None:
        try:
            decoded = self._decoder.decode([self._members[one].sample for one in samples], to_uint8)
        except OutOfMemory as error:
            self._answer(messages.Decoded(number, [], False, str(error)))
            return
        self._sender.submit(self._send, number, decoded)

    def _send(self, number: int, decoded: list[Decoded]) -> None:
        try:
            pictures = [picture.wait() for picture in decoded]
            tiled = bool(self._family.modules.vae.use_tiling)
            self._answer(messages.Decoded(number, pictures, tiled))
        except BaseException as error:
            _end_after(error)

    def _answer(self, message: Any) -> None:
        with self._sending:
            self._connection.send(message)


def _without_text(chosen: Optimizations) -> Optimizations:
    """The choices for a process that has no text encoders."""
    return replace(chosen, quantize=replace(chosen.quantize, text="none"), offload=Offload())


def _end_after(error: BaseException) -> NoReturn:
    """The others wait for this process, so all of them end."""
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(FAULT_EXIT if device_fault(error) else 1)


def _work(connection: Connection, hello: messages.Hello, orders: SimpleQueue, told_to_leave: threading.Event) -> None:
    try:
        follower = Follower(connection, hello, told_to_leave)
        follower.load()
        while True:
            follower.do(orders.get())
    except BaseException as error:
        _end_after(error)


def main(descriptor: int) -> NoReturn:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # as in the first process, with which this one ends
    connection = Connection(descriptor)
    hello: messages.Hello = connection.recv()
    orders: SimpleQueue = SimpleQueue()
    told_to_leave = threading.Event()
    threading.Thread(target=_work, args=(connection, hello, orders, told_to_leave), name="engine", daemon=True).start()
    try:
        while True:  # this thread only listens, so that it notices the end of the first process at once
            message = connection.recv()
            if isinstance(message, messages.Leave):
                told_to_leave.set()
                interrupt(device_of(hello.device.kind, hello.number))
            else:
                orders.put(message)
    except (EOFError, OSError):
        shutil.rmtree(hello.folder, ignore_errors=True)
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
