"""What each GPU of a replica needs for a full-size model."""

from __future__ import annotations

from msgspec.structs import replace

from fastgen.config.fit.memory import Work
from fastgen.config.fit.sharded import STEP_GIB, divide, least_gib
from fastgen.config.optimizations import Optimizations, Shard
from fastgen.resolver import sizes
from tests.resolver.gpus import gpu, resolved

WORK = Work(batch=1, image_tokens=4096, reference_tokens=0, text_tokens=512, pixels=1024**2)


def test_the_least_memory_is_just_enough(tmp_path):
    cards = [gpu("A100", 80.0, "8.0")]
    flux = sizes.read(resolved(tmp_path, "FLUX.1-dev", *cards).model)
    choices = replace(Optimizations(), shard=Shard("shard"))
    assert divide(flux, WORK, choices, 2, [12.0, 12.0]) is None
    for count in (2, 3, 4):
        least = least_gib(flux, WORK, choices, 2, count)
        found, need, _ = divide(flux, WORK, choices, 2, [least] * count)
        assert found.stages[0][0] == 0 and found.stages[-1][1] == 57
        assert least - 2 * 0.7 <= need.gib <= least  # blocks have up to 0.63 GiB
        assert divide(flux, WORK, choices, 2, [least - 2 * STEP_GIB] * count) is None
