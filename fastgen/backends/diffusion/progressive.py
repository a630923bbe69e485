"""A sample that takes its first steps as a small image: how it begins, its noise levels, and how it grows. Does not
know groups or the architecture.

With orthonormal cosine transforms, the lowest frequencies of white noise are white noise of a smaller image, and those
of an image are the smaller image times r, where r is the root of the ratio of their pixels. So a full image at noise
level t = r s / (1 + (r - 1) s) has in its low frequencies what the small one has at level s, up to a factor. Both take
the same steps in this sense. The high frequencies are noise alone until then: that of the sample's own seed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from fastgen.backends.diffusion.family import Beginning, Family, Sample, Small
from fastgen.backends.diffusion.transfer import upload


def beginning(family: Family, sample: Sample) -> Sample | None:
    """The small image with which a sample begins; None if all of its steps are at the full size.

    Args:
        sample: without references and mask.
    """
    choice = family.modules.progressive
    if choice is None or sample.begun is not None or choice.steps(sample.steps) < 1:
        return None
    width, height = family.small_size(sample.width, sample.height, choice.scale)
    if (width, height) == (sample.width, sample.height):
        return None
    whole = family.to_grid(sample.noise, sample.width, sample.height)
    h, w = whole.shape[1] * height // sample.height, whole.shape[2] * width // sample.width
    noise = family.from_grid(_back(_frequencies(whole)[:, :h, :w]))
    return Sample(
        sample.prompt,
        width,
        height,
        sample.steps,
        sample.guidance,
        noise,
        negative=sample.negative,
        cfg=sample.cfg,
        whole=sample,
    )


def last_step(family: Family, sample: Sample) -> int:
    """After how many of its steps a sample leaves: to grow, or because it is done."""
    choice = family.modules.progressive
    return choice.steps(sample.steps) if sample.whole is not None and choice is not None else sample.steps


def levels(family: Family, sample: Sample) -> torch.Tensor:
    """The steps + 1 noise levels of a sample, on the CPU. A small image has those at which its low frequencies are as
    noisy as those of the full one in its own schedule."""
    if sample.whole is None:
        return family.sigmas(sample.steps, sample.noise.shape[0])
    full = family.sigmas(sample.steps, sample.whole.noise.shape[0])
    r = _ratio(sample, sample.whole)
    return full / (r - (r - 1) * full)


def grown(family: Family, small: Sample) -> Sample:
    """The sample at its full size, where it is after the steps of the small image, whose `latents` are there."""
    whole, steps = small.whole, last_step(family, small)
    assert whole is not None and small.latents is not None
    full, own = float(family.sigmas(small.steps, whole.noise.shape[0])[steps]), float(levels(family, small)[steps])
    device = small.latents.device
    noise = family.to_grid(upload(whole.noise, device), whole.width, whole.height)
    found = _frequencies(family.to_grid(small.latents, small.width, small.height))
    x = full * _frequencies(noise)
    x[:, : found.shape[1], : found.shape[2]] = found * (_ratio(small, whole) * (1 - full) / (1 - own))
    size = Small(steps, small.width, small.height, 1 / _ratio(small, whole) ** 2)
    whole.begun = Beginning(size, family.from_grid(_back(x)), small.pattern)
    return whole


def _ratio(small: Sample, whole: Sample) -> float:
    return math.sqrt(whole.width * whole.height / (small.width * small.height))


def _frequencies(grid: torch.Tensor) -> torch.Tensor:
    """The cosine transform of (channels, h, w), orthonormal."""
    return _cosines(grid.shape[1], grid.device) @ grid @ _cosines(grid.shape[2], grid.device).T


def _back(frequencies: torch.Tensor) -> torch.Tensor:
    """The inverse of `_frequencies`."""
    h, w = frequencies.shape[1:]
    return _cosines(h, frequencies.device).T @ frequencies @ _cosines(w, frequencies.device)


@lru_cache(maxsize=64)
def _cosines(size: int, device: torch.device) -> torch.Tensor:
    """(size, size), float32: a row per frequency."""
    at, frequency = torch.arange(size, dtype=torch.float64), torch.arange(size, dtype=torch.float64)[:, None]
    rows = torch.cos(math.pi / size * (at + 0.5) * frequency) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return upload(rows.float(), device)
