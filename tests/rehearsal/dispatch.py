"""Every operator on its way: those on tensors of the fake card are counted and answered without data."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch._higher_order_ops.out_dtype import out_dtype
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from tests.rehearsal.meter import Meter

aten = torch.ops.aten
RANDOM = {"uniform_", "normal_", "random_", "exponential_", "trunc_normal_", "bernoulli_"}
FREE = {
    aten.detach.default,
    aten.alias.default,
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
}
"""They start no kernel, apart from views."""
WAIT = {aten.nonzero.default, aten.equal.default, aten.masked_select.default, aten._unique2.default}
"""The host waits for their results, or for the sizes of these."""
COUNTED = {**flop_registry, aten._int_mm: flop_registry[aten.mm]}
ONE_TYPE = {*flop_registry, aten.native_layer_norm, aten.native_group_norm, aten._fused_rms_norm} - {aten._scaled_mm}
SMALL = 1 << 12
"""A tensor of so few numbers is always answered with numbers."""
FLASH_HEAD_SIZE = 256
_composite: dict[Any, bool] = {}


class FakeCard(TorchDispatchMode):
    """Tensors on the CPU stay real, unless they were made in `fake`; those on `cuda` have no data. Enter it in every
    thread that computes."""

    def __init__(self, meter: Meter, fake: FakeTensorMode):
        super().__init__()
        self.meter = meter
        self.fake = fake

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(_is_wrapper(cls) for cls in types):
            return NotImplemented  # it unpacks itself, and what it does inside comes here again
        if kwargs.get("pin_memory"):  # only a driver can pin
            made = self.__torch_dispatch__(func, types, args, {**kwargs, "pin_memory": False})
            return mark_pinned(made)
        leaves = tree_leaves((args, kwargs))
        fakes = [leaf for leaf in leaves if isinstance(leaf, FakeTensor)]
        device = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
        if not fakes and (device is None or device.type != "cuda"):
            return func(*args, **kwargs)
        on_card = any(fake.fake_device.type == "cuda" for fake in fakes)
        if func.namespace == "prim":
            with self.fake:
                return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            return self._scalar(args[0])
        if func._overloadpacket.__name__ in RANDOM:
            return args[0]
        if func is aten.scaled_dot_product_attention.default and on_card:
            return self._attention(*args, **kwargs)
        if func not in _composite:
            key = "CompositeImplicitAutograd"
            _composite[func] = func._overloadpacket not in COUNTED and (
                torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)
            )
        if _composite[func]:
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        if func is aten._to_copy.default:
            copied = self._copy(args[0], device or args[0].device, bool(kwargs.get("non_blocking")), kwargs)
            if copied is not None:
                return copied
        elif func is aten.copy_.default:
            if self._copy_into(*args, **kwargs):
                return args[0]
        elif func is aten._pin_memory.default:
            return args[0]
        elif on_card and func in WAIT:
            self.meter.sync(func._overloadpacket.__name__)
            if func is aten.nonzero.default:  # as many as there can be
                with self:
                    return torch.empty(args[0].numel(), args[0].dim(), dtype=torch.int64, device=args[0].device)
        elif on_card and func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
            args = (args[0], self._index(args[1]), *args[2:])
        return self._run(func, args, kwargs, on_card)

    def _run(self, func: Any, args: Any, kwargs: Any, on_card: bool) -> Any:
        """Shapes, dtypes and devices as the real dispatcher would find them, and what it costs."""
        args, kwargs = tree_map(self._without_data, (args, kwargs))
        if on_card:
            _check_types(func, args, kwargs)
        with self.fake:
            out = func(*args, **kwargs)
        outs = [x for x in tree_leaves(out) if isinstance(x, FakeTensor) and x.fake_device.type == "cuda"]
        for one in outs:
            self.meter.born(one)
        if (outs or on_card) and not func.is_view and func not in FREE and any(one.numel() for one in outs):
            work = self.meter.work
            if func._overloadpacket in COUNTED:
                flops = COUNTED[func._overloadpacket](*args, **kwargs, out_val=out)
                work.flops += flops
                work.float32_flops += flops * (
                    outs[0].dtype in (torch.float32, torch.float64)
                )  # the others are statistics
            fakes = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, FakeTensor)]
            work.moved_bytes += sum(one.nbytes for one in fakes) + sum(one.nbytes for one in outs)
            work.launches += 1
        return out

    def _without_data(self, leaf: Any) -> Any:
        if isinstance(leaf, FakeTensor):
            leaf.constant = None  # else it would be computed with what was once read
        elif isinstance(leaf, torch.Tensor) and not _is_wrapper(type(leaf)):
            with self.fake:
                return torch.empty_strided(leaf.size(), leaf.stride(), dtype=leaf.dtype, device=leaf.device)
        return leaf

    def _scalar(self, tensor: torch.Tensor) -> bool | int | float:
        if tensor.device.type == "cuda":
            self.meter.sync("item")
        if tensor.dtype == torch.bool:
            return True
        return self.meter.answer if tensor.is_floating_point() else 1

    def _answer(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What the host sees of a tensor of the card."""
        value: Any = self.meter.answer if dtype.is_floating_point else dtype == torch.bool
        return torch.full(tensor.shape, value, dtype=dtype)

    def _copy(self, source: torch.Tensor, target: torch.device, no_wait: bool, kwargs: dict) -> torch.Tensor | None:
        """`.to(...)` between devices. Returns the copy if it has data."""
        work, whence = self.meter.work, source.device
        if whence.type == "cuda" and target.type == "cpu":
            work.to_host_bytes += source.nbytes
            self.meter.sync("device to host")
            # Results are computed in inference mode and read; weights are neither.
            if source.numel() <= SMALL or torch.is_inference_mode_enabled():
                return self._answer(source, kwargs.get("dtype") or source.dtype)
        elif whence.type == "cpu" and target.type == "cuda":
            work.to_device_bytes += source.nbytes
            if not (no_wait and is_pinned(source)):
                self.meter.sync("host to device")
        elif whence.type == target.type == "cuda" and target.index not in (None, whence.index):
            work.between_bytes += source.nbytes
        return None

    def _copy_into(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> bool:
        """`target.copy_(source)`. Returns whether nothing is left to do, since the target is real."""
        whence, where_to = source.device.type, target.device.type
        if whence == "cpu" and where_to == "cuda":
            self.meter.work.to_device_bytes += source.nbytes
            if not (non_blocking and is_pinned(source)):
                self.meter.sync("host to device")
        elif whence == "cuda" and where_to == "cpu":
            self.meter.work.to_host_bytes += source.nbytes
            if not (non_blocking and is_pinned(target)):
                self.meter.sync("device to host")
            if not isinstance(target, FakeTensor):
                target.copy_(self._answer(source, target.dtype).expand(target.shape))
                return True
        return False

    def _index(self, indices: Any) -> list[torch.Tensor | None]:
        """An index on the host is sent to the device. A mask is counted first; here all of it is taken."""
        found: list[torch.Tensor | None] = []
        for index in indices:
            if isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8):
                self.meter.sync("index by a mask")
                with self:
                    found += [torch.empty(index.numel(), dtype=torch.int64, device=index.device)] * index.dim()
                continue
            if isinstance(index, torch.Tensor) and index.device.type == "cpu" and index.dim():
                self.meter.sync("index on the host")
            found.append(index)
        return found

    def _attention(self, query: Any, key: Any, value: Any, *more: Any, **kwargs: Any) -> torch.Tensor:
        """The kernel that PyTorch chooses on a card; without one it would choose the slow one that needs none."""
        mask = kwargs.get("attn_mask", more[0] if more else None)
        scale = kwargs.get("scale")
        half = query.dtype in (torch.bfloat16, torch.float16)
        with self:
            if mask is None and half and query.shape[-1] <= FLASH_HEAD_SIZE:
                return aten._scaled_dot_product_flash_attention.default(query, key, value, 0.0, False, scale=scale)[0]
            if mask is not None:
                mask = mask.expand(*query.shape[:-1], key.shape[-2])
            return aten._scaled_dot_product_efficient_attention.default(
                query, key, value, mask, False, 0.0, False, scale=scale
            )[0]


@out_dtype.py_impl(FakeCard)
def _product_of_integers(mode: FakeCard, product: Any, dtype: torch.dtype, *args: Any) -> torch.Tensor:
    """How torchao asks for int8 products that are int32."""
    if product is not aten.mm.default:
        raise NotImplementedError(f"{product} with results of {dtype} cannot be rehearsed")
    with mode:
        return torch._int_mm(*args)


_pinned: set[int] = set()


def pin(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor.pin_memory()`."""
    if _is_wrapper(type(tensor)):
        return aten._pin_memory.default(tensor)  # it pins what it is made of
    return mark_pinned(tensor if isinstance(tensor, FakeTensor) else tensor.clone())


def mark_pinned(tensor: torch.Tensor) -> torch.Tensor:
    """From now on its memory counts as pinned, until it is freed."""
    storage = tensor.untyped_storage()
    _pinned.add(storage._cdata)
    weakref.finalize(storage, _pinned.discard, storage._cdata).atexit = False
    return tensor


def is_pinned(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage()._cdata in _pinned


def _check_types(func: Any, args: Any, kwargs: Any) -> None:
    """Kernels of products and norms on a GPU take one type of float; the shapes alone would not tell."""
    if func._overloadpacket in ONE_TYPE:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        types = {one.dtype for one in tensors if one.is_floating_point()}
        if len(types) > 1:
            raise RuntimeError(f"{func}: the tensors must have the same dtype, but they have {sorted(map(str, types))}")


def _is_wrapper(cls: type) -> bool:
    """Whether tensors of this type are made of others, such as torchao's quantized weights."""
    return cls is not torch.Tensor and not issubclass(cls, FakeTensor) and hasattr(cls, "__tensor_flatten__")
