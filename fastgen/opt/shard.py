"""One model over the devices of a replica: each has a stage, which is some of the transformer's blocks. The other way,
`--parallel context`, is in context.py.

What: accelerate decides which block lies where (`infer_auto_device_map`), by the memory that is free and so that all
stages take about the same time. The VAE and the layers before the blocks are on the first device. Those after them are
on the last one, so that only the velocity comes back. The text encoders are where there is most room. Weights go from
the file straight to their device. Tokens cross a border once per step, 28 MB for an image of 1024x1024 in bfloat16. The
engine keeps one group of images more than there are stages under way, so that all devices work at the same time
(backends/diffusion/in_turn.py).
How much: not measured.
Quality: none is lost: the same operations on the same numbers, to the bit.
When not: where the model fits on one GPU. Replicas do the same work without a border.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from fastgen.config.fit.stages import Cut, cut
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Optimizations, Shard
from fastgen.errors import SettingsError
from fastgen.opt import context
from fastgen.opt.base import Modules, Stage, blocks_of
from fastgen.opt.quantize import BITSANDBYTES, weight_bytes

if TYPE_CHECKING:
    import torch

GIB = 2**30


def refuse(gpu: Gpu | None, choice: Shard, others: Optimizations) -> str | None:
    if choice.kind == "context":
        return context.refuse(gpu, others)
    if {others.quantize.transformer, others.quantize.text} & set(BITSANDBYTES):
        return "layers that bitsandbytes quantized cannot move to another device; use --quantize fp8 or int8, or none"
    if others.offload.kind == "group":
        return "blocks that come and go belong to one GPU; leave --offload out, or add GPUs to the replica"
    if others.offload.kind != "none":
        return "the devices of a replica hold the whole model; leave --offload out"
    if others.cuda_graphs.on:
        return "a recorded step belongs to one GPU; leave --cuda-graphs out"
    return None


def apply(modules: Modules, choice: Shard) -> dict:
    """Place every part. `offload` then moves nothing.

    Raises:
        SettingsError: it does not fit, or there are more devices than blocks.
    """
    if choice.kind == "context":
        return context.apply(modules)
    blocks, size = len(list(blocks_of(modules))), len(modules.devices)
    if blocks < size:
        raise SettingsError(
            f"--gpus-per-replica {size}: the model has {blocks} blocks, and each device needs at least one; use "
            f"--gpus-per-replica {blocks} or fewer"
        )
    parts = [getattr(modules, name) for name in modules.parts.text]
    rooms = [room - spare * GIB for room, spare in zip(_rooms(modules.devices), _spare(choice), strict=False)]
    found = _cut(modules, rooms, choice, sum(map(weight_bytes, parts)))
    if found is None:
        room = ", ".join(f"{one / GIB:.1f}" for one in rooms)
        raise SettingsError(
            f"--gpus-per-replica {len(rooms)}: the model does not fit; its GPUs have {room} GiB for weights. Use more "
            "GPUs for each replica"
        )
    where = device_map(modules, found)
    _place(modules, where)
    modules.text_device = modules.devices[found.text]
    for part in parts:
        part.to(modules.text_device)
    modules.vae.to(modules.device)
    modules.stages = _stages(modules, where)
    modules.end_device = modules.devices[where[modules.parts.after[0]]]
    stages = [[stage.start, stage.stop] for stage in modules.stages]
    return {"stages": stages, "text_encoders_on": found.text}


def device_map(modules: Modules, found: Cut) -> dict[str, int]:
    """Name of a part of the transformer -> the number of its device, as accelerate lays them out where each device has
    memory for its stage of a cut."""
    from accelerate import infer_auto_device_map
    from accelerate.utils import compute_module_sizes

    transformer = modules.transformer
    sizes = compute_module_sizes(transformer)
    blocks = [sizes[name] for name, _ in blocks_of(modules)]
    budgets = {number: sum(blocks[start:stop]) for number, (start, stop) in enumerate(found.stages)}
    # On the first device accelerate keeps room for the largest of the layers that follow, in case they come and go.
    after = found.stages[0][1]
    budgets[0] += sizes[""] - sum(blocks) - sum(sizes[name] for name in modules.parts.after) + max(blocks[after:])
    budgets[len(budgets) - 1] += sizes[""]
    return infer_auto_device_map(
        transformer, max_memory=budgets, no_split_module_classes=list(transformer._no_split_modules)
    )


def _spare(choice: Shard) -> Iterable[float]:
    first, other, _ = choice.spare_gib
    yield first
    while True:
        yield other


def _cut(modules: Modules, rooms: Sequence[float], choice: Shard, text: int) -> Cut | None:
    transformer = modules.transformer
    blocks = [float(weight_bytes(block)) for _, block in blocks_of(modules)]
    after = sum(weight_bytes(getattr(transformer, name)) for name in modules.parts.after)
    before = weight_bytes(transformer) - sum(blocks) - after + weight_bytes(modules.vae)
    _, other, with_text = choice.spare_gib
    return cut(blocks, rooms, before, after, text + max(0.0, with_text - other) * GIB)


def _rooms(devices: tuple[torch.device, ...]) -> list[float]:
    """Free bytes of each device. On a CPU all share the main memory, which the model is in already."""
    import torch

    if devices[0].type != "cuda":
        return [float(1 << 50)] * len(devices)
    return [float(torch.cuda.mem_get_info(device)[0]) for device in devices]


def _stages(modules: Modules, where: dict[str, int]) -> tuple[Stage, ...]:
    """The runs of blocks that are on the same device."""
    numbers = [where.get(name, where.get(name.partition(".")[0], -1)) for name, _ in blocks_of(modules)]
    starts = [at for at, number in enumerate(numbers) if at == 0 or number != numbers[at - 1]]
    stops = [*starts[1:], len(numbers)]
    return tuple(Stage(modules.devices[numbers[start]], start, stop) for start, stop in zip(starts, stops, strict=True))


def _place(modules: Modules, where: dict[str, int]) -> None:
    import torch

    for name, number in where.items():
        part = attrgetter(name)(modules.transformer)
        if isinstance(part, torch.nn.Parameter):  # one that is in no layer
            part.data = part.data.to(modules.devices[number])
        else:
            part.to(modules.devices[number])
