"""Weights that live in main memory and visit the device. Does not know which parts of a model they are, or when they
are needed.

Copies to the device are enqueued and pass through pinned memory where there is enough of it. Nothing is copied back:
weights do not change, so the copy in main memory stays valid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)
PINNED_SHARE = 0.8
"""Of the main memory that is free, the share that the engines of a run may pin together, part by part. Pinned memory
cannot be shared between workers or paged out, and all workers of a machine start at the same time."""
RING = 2
"""Blocks on the device at once: one computes, one arrives."""


def may_pin(module: torch.nn.Module, engines: int) -> bool:
    """Whether there is enough main memory to keep this module's weights pinned in each of so many engines."""
    size = sum(tensor.nbytes for tensor in _tensors(module))
    return engines * size <= PINNED_SHARE * free_memory()


def free_memory() -> int:
    """Bytes of main memory that this process can still get."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
    try:  # in a container
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text()
        return min(free, int(limit) - int(used)) if limit != "max" else free
    except (OSError, ValueError):
        return free


def park(module: torch.nn.Module) -> None:
    """Move a module's weights into main memory, quantized ones too."""
    with _outside_inference():
        for slot in _slots(module):
            slot.put(slot.home.to("cpu"))


class Parked:
    """A module whose weights are in main memory until `come` and after `leave`.

    Args:
        pinned: whether they are in pinned memory there.
    """

    def __init__(self, module: torch.nn.Module, device: torch.device, pinned: bool):
        self._device = device
        self._is_there = False
        self.pinned = pinned and device.type == "cuda"
        park(module)
        with _outside_inference():
            for slot in _slots(module) if self.pinned else ():
                slot.put(_pinned(slot.home))
            self._slots = _slots(module)

    def come(self) -> None:
        """Enqueue the copies onto the device."""
        if not self._is_there:
            self._is_there = True
            with _outside_inference():
                for slot in self._slots:
                    slot.put(_copied(slot.home, self._device))

    def leave(self) -> None:
        """Drop them on the device. Memory there is given away in the order of the stream, so what is enqueued may still
        read them."""
        if self._is_there:
            self._is_there = False
            with _outside_inference():
                for slot in self._slots:
                    slot.put(slot.home)


class BlockStream:
    """Blocks of which a few are on the device at a time, in memory that is reused. While one computes, the next is
    copied on a stream of its own. The device waits for copies, the host never does.

    Args:
        blocks: in the order in which they run; after the last comes the first again.
        pinned: whether their weights are kept in pinned memory; else a copy stops the host, and nothing overlaps.
    """

    def __init__(self, blocks: list[torch.nn.Module], device: torch.device, pinned: bool):
        self._blocks = blocks
        self._device = device
        self._streams = Streams(device)
        with _outside_inference():
            self._home = [_flat(block, pinned and device.type == "cuda") for block in blocks]
        self._ring: list[torch.Tensor] = []
        """Empty until the first block is called, and after `release`."""
        self._holds: list[int | None] = []
        """Which block each place of the ring holds."""
        self.copies = 0
        self.in_time = 0
        """How many blocks were on their way before they were called."""
        for at, block in enumerate(blocks):
            block.register_forward_pre_hook(self._before(at))
            block.register_forward_hook(self._after(at))

    def move_the_rest(self, module: torch.nn.Module) -> None:
        """Everything of the module that is in none of the blocks goes to the device for good."""
        own = {id(tensor) for block in self._blocks for tensor in _tensors(block)}
        with _outside_inference():
            for tensor in _tensors(module):
                if id(tensor) not in own:
                    tensor.data = tensor.data.to(self._device)

    def release(self) -> None:
        """Give the ring's memory back until the next block is called."""
        with _outside_inference():
            for place in range(len(self._ring)):
                self._streams.wait_for_copy(place)  # it must not arrive where something else is by then
            for block, home in zip(self._blocks, self._home, strict=True):
                _spread(block, home)  # also those that left the ring: they still refer to its memory
        self._ring, self._holds = [], []

    def _take(self) -> None:
        """Memory for the ring."""
        size, places = max(home.nbytes for home in self._home), min(RING, len(self._blocks))
        with _outside_inference():
            self._ring = [torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(places)]
        self._holds = [None] * places
        for place in range(places):
            self._streams.computed(place)  # its memory may have been something else's, which is still read

    def _before(self, at: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if not self._ring:
                self._take()
            if at in self._holds:
                self.in_time += 1
            else:
                self._copy(at)
            self._streams.wait_for_copy(self._holds.index(at))
            following = (at + 1) % len(self._blocks)
            if len(self._ring) > 1 and following not in self._holds:
                self._copy(following, keep=at)

        return hook

    def _after(self, at: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._streams.computed(self._holds.index(at))

        return hook

    def _copy(self, at: int, keep: int | None = None) -> None:
        """Enqueue the copy of a block into a place of the ring that does not hold `keep`."""
        place = next(i for i, held in enumerate(self._holds) if held is None or held != keep)
        self._holds[place] = at
        self.copies += 1
        home, room = self._home[at], self._ring[place]
        with self._streams.copying(place):
            room[: home.nbytes].copy_(home, non_blocking=True)
        with _outside_inference():
            _spread(self._blocks[at], room)


class Streams:
    """The order between copies and arithmetic on the device. On a CPU both happen at once, so there is none.

    Args: device: where the ring is.
    """

    def __init__(self, device: torch.device):
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._copied: dict[int, torch.cuda.Event] = {}
        self._free: dict[int, torch.cuda.Event] = {}

    @contextmanager
    def copying(self, place: int) -> Iterator[None]:
        """What is enqueued here runs beside the arithmetic, once the block that was in this place has computed."""
        if self._copies is None:
            yield
            return
        with torch.cuda.stream(self._copies):
            if place in self._free:
                self._copies.wait_event(self._free[place])
            yield
            self._copied[place] = self._copies.record_event()

    def wait_for_copy(self, place: int) -> None:
        """The arithmetic that is enqueued from here on begins when the last copy into this place is done."""
        if place in self._copied:
            torch.cuda.current_stream().wait_event(self._copied[place])

    def computed(self, place: int) -> None:
        """The arithmetic that is enqueued up to here is the last that reads this place."""
        if self._copies is not None:
            self._free[place] = torch.cuda.current_stream().record_event()


class _Slot:
    """A place that holds a tensor, in one or several modules."""

    def __init__(self, home: torch.Tensor, put: Callable[[torch.Tensor], None]):
        self.home = home
        """What it holds in main memory."""
        self.put = put


def _slots(module: torch.nn.Module) -> list[_Slot]:
    """What must be exchanged for a module's weights to be elsewhere."""
    places: dict[int, tuple[torch.Tensor, list[tuple[dict, str]]]] = {}
    for part in module.modules():
        if hasattr(getattr(part, "weight", None), "CB"):
            continue  # bitsandbytes' 8bit layers cannot move: the few that embed stay on the device
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None:  # T5 has its table of tokens in two places
                    places.setdefault(id(tensor), (tensor, []))[1].append((table, name))
    found = []
    for tensor, own in places.values():
        if (state := getattr(tensor, "quant_state", None)) is not None:  # bitsandbytes: the object stays
            found += [_attribute(tensor, "data"), _attribute(state, "absmax"), _attribute(state, "code")]
        else:
            found.append(_Slot(tensor, partial(_place, own)))
    return found


def _attribute(owner: Any, name: str) -> _Slot:
    # Without its subclass: bitsandbytes' weights would quantize themselves when they move.
    return _Slot(getattr(owner, name).as_subclass(torch.Tensor), partial(setattr, owner, name))


def _copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.clone() if tensor.device == device else tensor.to(device, non_blocking=True)


def _place(own: list[tuple[dict, str]], tensor: torch.Tensor) -> None:
    is_weight = any(isinstance(table[name], torch.nn.Parameter) for table, name in own)
    if is_weight and not isinstance(tensor, torch.nn.Parameter):
        tensor = torch.nn.Parameter(tensor, requires_grad=False)
    for table, name in own:
        table[name] = tensor


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    """Weights and buffers, a shared one once."""
    found = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return list(found.values())


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    try:
        return tensor.pin_memory()
    except RuntimeError as error:  # there is a limit for locked memory
        log.warning("weights stay in pageable memory, which is slower: %s", error)
        return tensor


def _flat(block: torch.nn.Module, pinned: bool) -> torch.Tensor:
    """The block's weights one after the other, as bytes; the block uses them there."""
    size = sum(_aligned(tensor.nbytes) for tensor in _tensors(block))
    flat = torch.empty(size, dtype=torch.uint8)
    flat = _pinned(flat) if pinned else flat
    at = 0
    for tensor in _tensors(block):
        flat[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor.data)
        at += _aligned(tensor.nbytes)
    _spread(block, flat)
    return flat


def _spread(block: torch.nn.Module, flat: torch.Tensor) -> None:
    """Let the block use the weights that lie in these bytes."""
    at = 0
    for tensor in _tensors(block):
        tensor.data = flat[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        at += _aligned(tensor.nbytes)


def _aligned(size: int) -> int:
    return -(-size // 256) * 256


@contextmanager
def _outside_inference() -> Iterator[None]:
    """The engine moves weights while it computes, but tensors made in inference mode cannot become weights."""
    with torch.inference_mode(False), torch.no_grad():
        yield
