"""When the memory of a device is full: fewer samples at a time, and what the user can change. Does not know what is
computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence

import torch

from fastgen.backends.diffusion.family import Family, Sample
from fastgen.config.device_errors import is_out_of_memory
from fastgen.config.settings import Settings

log = logging.getLogger(__name__)


class OutOfMemory(Exception):
    """Not even one sample fits."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a memory is full, in our words or in those of a library."""
    return isinstance(error, OutOfMemory) or is_out_of_memory(error)


class Room:
    """How many samples fit together, by what they have in common.

    Args:
        batch_for: pixels of a sample -> how many should go through the model together.
        advice: what the user can change if not even one fits.
    """

    def __init__(self, family: Family, batch_for: Callable[[int], int], advice: Callable[[], str] = str):
        self._family = family
        self._batch_for = batch_for
        self._advice = advice
        self._fits: dict[Hashable, int] = {}
        """Where memory ran out: how many fit."""

    def most(self, sample: Sample) -> int:
        """How many samples like this one go through the model together."""
        most = self._batch_for(sample.width * sample.height)
        if sample.negative is not None:  # it goes through twice
            most = max(1, most // 2)
        return min(most, self._fits.get(self._kind(sample), most)) if self._fits else most

    def fit(self, samples: Sequence[Sample]) -> bool:
        """Whether these go through the model together, where each is filled up to the size of the largest. One alone
        does."""
        if len(samples) == 1:
            return True
        rows = len(samples) + sum(sample.negative is not None for sample in samples)  # these go through twice
        if any(rows > self._batch_for(pixels) for pixels in {sample.width * sample.height for sample in samples}):
            return False
        return not self._fits or all(
            len(samples) <= self._fits.get(self._kind(sample), len(samples)) for sample in samples
        )

    def shrink(self, sample: Sample, count: int, doing: str) -> int:
        """So many samples like this one were too many. Returns how many to try from now on.

        Raises:
            OutOfMemory: it was one.
        """
        self.empty_cache()
        size = f"{sample.width}x{sample.height}"
        for width, height in sample.reference_sizes:
            size += f", reference {width}x{height}"
        if count == 1:
            raise OutOfMemory(f"out of memory while {doing} one sample of {size}; {self._advice()}")
        fits = self._fits[self._kind(sample)] = -(-count // 2)
        log.warning("out of memory while %s %d samples of %s: %d at a time from now on", doing, count, size, fits)
        return fits

    def _kind(self, sample: Sample) -> Hashable:
        return self._family.key(sample), sample.width, sample.height

    def forget(self) -> None:
        """As if memory had never run out."""
        self._fits.clear()

    def empty_cache(self) -> None:
        """Give the device's memory back that nothing uses."""
        if self._family.modules.device.type == "cuda":
            torch.cuda.empty_cache()


def advice(settings: Settings, on_gpu: bool, one_sample: bool) -> str:
    """What the user can change, by what the settings leave open.

    Args:
        one_sample: whether the model fits, and not even one sample besides.
    """
    chosen = settings.optimizations
    kinds = (chosen.quantize.transformer, chosen.quantize.text)
    ways = []
    if one_sample:
        ways.append("a smaller size")
    if settings.engine.dtype == "float32":
        ways.append("--dtype bfloat16")
    if kinds == ("none", "none"):
        ways.append("--quantize 8bit,text:8bit (half of the weights), then 4bit,text:4bit")
    elif "none" in kinds:
        transformer, text = (kind if kind != "none" else "8bit" for kind in kinds)
        ways.append(f"--quantize {transformer},text:{text}")
    elif "4bit" not in kinds:
        ways.append("--quantize 4bit,text:4bit")
    if on_gpu:
        ways += _less_at_once(settings)
    fast = settings.placement.profile.opt.fast.quantize
    if fast and kinds[0] == "none" and chosen.quality != "fast":
        ways.append(f"--quality fast (it has --quantize {fast})")
    ways.append("a GPU with more memory" if on_gpu else "a machine with more memory")
    if not one_sample:
        ways.append("a smaller model")
    return f"try, in this order: {'; '.join(ways)}"


def _less_at_once(settings: Settings) -> list[str]:
    """The kinds of --offload that keep less on the GPU than the one in use."""
    quantized = not settings.optimizations.quantize.is_plain
    steps = ["none", "text", "model"] if quantized else ["none", "text", "model", "group"]
    kind = settings.optimizations.offload.kind
    left = steps[steps.index(kind) + 1 :] if kind in steps else []
    return [f"--offload {', then '.join(left)}"] if left else []
