"""`torch.cuda` as it looks on a card, for code that asks. Works with a CPU build of torch and with a CUDA build."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._device import _device_constructors

from tests.rehearsal.cards import Card
from tests.rehearsal.dispatch import FakeCard, is_pinned, pin
from tests.rehearsal.meter import Meter

GUARDS = "_ZN3c104impl26device_guard_impl_registryE"
"""c10::impl::device_guard_impl_registry: one pointer per kind of device."""
CUDA, META = 1, 14
"""Their places in c10::DeviceType."""


def allow_cuda_tensors() -> None:
    """Fake tensors on `cuda` need a guard for that device, which sets the current one. A CPU build of torch has none;
    the one for `meta`, which does nothing, serves as well."""
    torch._C._ensureCUDADeviceGuardSet()  # a CUDA build without a device
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (META + 1)).in_dll(library, GUARDS)
    if not guards[CUDA] or not torch.cuda.is_available():  # that of a CUDA build asks for the driver
        assert guards[META], "this version of torch keeps its device guards elsewhere"
        guards[CUDA] = guards[META]


class Rehearsal:
    """Fake cards and the modes in which they are used."""

    def __init__(self, card: Card, answer: float = 0.0, count: int = 1):
        self.card = card
        self.meter = Meter(card, answer, count)
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)

    def mode(self) -> FakeCard:
        return FakeCard(self.meter, self.fake)


@contextmanager
def rehearsed(card: Card, answer: float = 0.0, count: int = 1) -> Iterator[Rehearsal]:
    """Inside the block, this process has so many of this card, and so have the threads that start in it.

    Args:
        answer: see Meter.
    """
    allow_cuda_tensors()
    _device_constructors()  # kept when first asked for, which must not be while some of them are replaced
    rehearsal = Rehearsal(card, answer, count)
    run = threading.Thread.run

    def run_on_card(thread: threading.Thread) -> None:
        with rehearsal.mode():
            run(thread)

    with ExitStack() as stack:
        for name, value in _cuda(rehearsal.meter).items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        for target, name, value in _tensors():
            stack.enter_context(patch.object(target, name, value))
        stack.enter_context(patch.object(threading.Thread, "run", run_on_card))
        stack.enter_context(patch.object(torch.version, "cuda", "13.0"))
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") is made on the CPU, then moved
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        stack.enter_context(rehearsal.mode())
        yield rehearsal


def _cuda(meter: Meter) -> dict[str, Any]:
    """Names of torch.cuda -> what they are on the card."""
    card = meter.card
    major, minor = card.compute_capability
    properties = SimpleNamespace(
        name=card.name,
        major=major,
        minor=minor,
        total_memory=card.memory_bytes,
        multi_processor_count=132,
        warp_size=32,
        gcnArchName="",
        shared_memory_per_block_optin=232448,
        L2_cache_size=50 << 20,
        regs_per_multiprocessor=65536,
        max_threads_per_multi_processor=2048,
        uuid="GPU-0",
    )

    class Stream:
        """Order is not rehearsed; a wait for a stream is a wait."""

        def __init__(self, *_: Any, **__: Any):
            self.device = torch.device("cuda:0")

        def synchronize(self) -> None:
            meter.sync("stream.synchronize")

        def wait_stream(self, *_: Any) -> None: ...
        def wait_event(self, *_: Any) -> None: ...
        def record_event(self, event: Any = None) -> Any:
            return event or Event()

        def query(self) -> bool:
            return True

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_: Any) -> None: ...

    class Event:
        def __init__(self, *_: Any, **__: Any): ...
        def record(self, *_: Any) -> None: ...
        def wait(self, *_: Any) -> None: ...
        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            meter.sync("event.synchronize")

        def elapsed_time(self, _: Any) -> float:
            return 1.0

    current = Stream()
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "device_count": lambda: len(meter.lives),
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "get_device_name": lambda *_: card.name,
        "get_device_capability": lambda *_: card.compute_capability,
        "get_device_properties": lambda *_: properties,
        "get_arch_list": lambda: [f"sm_{major}{minor}"],
        "is_bf16_supported": lambda *_, **__: major >= 8,
        "synchronize": lambda *_: meter.sync("synchronize"),
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda *_: None,
        "device": lambda *_: nullcontext(),
        "max_memory_reserved": lambda device=None: meter.peaks[_number(device)],
        "max_memory_allocated": lambda device=None: meter.peaks[_number(device)],
        "memory_allocated": lambda device=None: meter.lives[_number(device)],
        "memory_reserved": lambda device=None: meter.lives[_number(device)],
        "mem_get_info": lambda device=None: (card.memory_bytes - meter.lives[_number(device)], card.memory_bytes),
        "manual_seed": lambda *_: None,
        "manual_seed_all": lambda *_: None,
        "is_current_stream_capturing": lambda: False,
        "Stream": Stream,
        "Event": Event,
        "current_stream": lambda *_: current,
        "default_stream": lambda *_: current,
        "stream": lambda *_: nullcontext(),
    }


def _number(device: Any) -> int:
    return 0 if device is None else torch.device(device).index or 0


def _tensors() -> list[tuple[Any, str, Any]]:
    """What PyTorch itself does with tensors in a way that fake ones do not take: (owner, name, replacement)."""
    make, copy, data, to_list = torch.tensor, torch.Tensor.copy_, torch.Tensor.data, torch.Tensor.tolist

    def tensor(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        made = make(*args, **kwargs)
        return made if device is None else made.to(device)

    def copy_(self: torch.Tensor, source: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if isinstance(self, FakeTensor) and self.device.type == "cpu":
            return self  # weights being loaded
        return copy(self, source, *args, **kwargs)

    def set_data(self: FakeTensor, value: torch.Tensor) -> None:
        value = value if isinstance(value, FakeTensor) else self.fake_mode.from_tensor(value)
        data.__set__(self, value)
        self.fake_device = value.fake_device

    def tolist(self: torch.Tensor) -> Any:  # one copy, whereas a fake tensor would be asked for each number
        return to_list(self.cpu() if isinstance(self, FakeTensor) and self.device.type == "cuda" else self)

    return [
        (fake_tensor, "init_gpu_context", lambda *_: None),  # makes a tensor on a real card
        (torch.Tensor, "tolist", tolist),
        (FakeTensor, "tolist", tolist),
        (torch.nn.Module, "_apply", _apply),
        (torch, "tensor", tensor),
        (torch.Tensor, "copy_", copy_),
        (torch.Tensor, "pin_memory", lambda self, *_, **__: pin(self)),
        (torch.Tensor, "is_pinned", lambda self, *_: is_pinned(self)),
        (torch.Tensor, "record_stream", lambda self, *_: None),
        (FakeTensor, "data", property(data.__get__, set_data)),
    ]


def _apply(module: torch.nn.Module, change: Callable[[torch.Tensor], Any], recurse: bool = True) -> torch.nn.Module:
    """`nn.Module._apply`, without swapping the contents of tensors, which fake ones refuse; tied weights stay tied."""
    made: dict[int, torch.nn.Parameter] = {}
    for part in module.modules():
        for name, old in part._parameters.items():
            if old is not None:
                if id(old) not in made:
                    with torch.no_grad():
                        new = change(old)
                    is_parameter = isinstance(new, torch.nn.Parameter)
                    made[id(old)] = new if is_parameter else torch.nn.Parameter(new, requires_grad=False)
                part._parameters[name] = made[id(old)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = change(buffer)
    return module
