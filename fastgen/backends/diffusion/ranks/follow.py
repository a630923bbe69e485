"""A process of a replica that is not the first: loads the model without text encoders, and does what the first one
says. Ends when that one does."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
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
from fastgen.backends.diffusion.memory import OutOfMemory, Room
from fastgen.backends.diffusion.ranks import messages
from fastgen.backends.diffusion.ranks.group import device_of, join
from fastgen.backends.diffusion.render import Decoder
from fastgen.config.device_errors import FAULT_EXIT, device_fault
from fastgen.config.optimizations import Offload, Optimizations
from fastgen.opt.ulysses import Ranks


class Follower:
    """Args: connection: to the first process."""

    def __init__(self, connection: Connection, hello: messages.Hello):
        self._connection = connection
        self._hello = hello
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
        self._connection.send(messages.Loaded())

    @torch.inference_mode()
    def do(self, message: Any) -> None:
        """What the first process does at the same time."""
        match message:
            case messages.Join():
                join(self._hello.folder, self._hello.number, self._hello.device.size, self._device)
            case messages.Form():
                self._form(message)
            case messages.Step(group):
                self._groups[group].step()
            case messages.Dissolve(group):
                self._groups.pop(group).dissolve()
            case messages.Decode(number, samples):
                self._decode(number, samples)
            case messages.Forget():
                self._room.forget()
                self._family.modules.vae.disable_tiling()

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
            self._connection.send(messages.Decoded(number, [], False, str(error)))
            return
        self._sender.submit(self._send, number, decoded)

    def _send(self, number: int, decoded: list[Decoded]) -> None:
        try:
            pictures = [picture.wait() for picture in decoded]
            tiled = bool(self._family.modules.vae.use_tiling)
            self._connection.send(messages.Decoded(number, pictures, tiled))
        except BaseException as error:
            _end_after(error)


def _without_text(chosen: Optimizations) -> Optimizations:
    """The choices for a process that has no text encoders."""
    return replace(chosen, quantize=replace(chosen.quantize, text="none"), offload=Offload())


def _end_after(error: BaseException) -> NoReturn:
    """The others wait for this process, so all of them end."""
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(FAULT_EXIT if device_fault(error) else 1)


def _work(connection: Connection, hello: messages.Hello, orders: SimpleQueue) -> None:
    try:
        follower = Follower(connection, hello)
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
    threading.Thread(target=_work, args=(connection, hello, orders), name="engine", daemon=True).start()
    try:
        while True:  # this thread only listens, so that it notices the end of the first process at once
            orders.put(connection.recv())
    except (EOFError, OSError):
        shutil.rmtree(hello.folder, ignore_errors=True)
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
