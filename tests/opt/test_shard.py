"""accelerate lays the blocks out as they were cut, whatever their sizes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fastgen.config.families import FLUX1
from fastgen.config.fit.stages import Cut
from fastgen.config.optimizations import Shard
from fastgen.errors import SettingsError
from fastgen.opt import shard
from tests.opt.conftest import draw


@pytest.fixture(scope="module")
def flux():
    """The full-size transformer without weights."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True).to(torch.bfloat16)
    return SimpleNamespace(transformer=transformer, parts=FLUX1)


@pytest.mark.parametrize(
    "stages",
    [
        ((0, 28), (28, 57)),
        ((0, 19), (19, 38), (38, 57)),
        ((0, 18), (18, 40), (40, 57)),
        ((0, 14), (14, 28), (28, 42), (42, 57)),
        ((0, 1), (1, 2), (2, 57)),
        ((0, 56), (56, 57)),
    ],
)
def test_every_block_is_on_its_device(flux, stages):
    where = shard.device_map(flux, Cut(stages, 0))
    numbers = [where.get(name, where.get(name.partition(".")[0])) for name, _ in shard.blocks_of(flux)]
    assert numbers == [number for number, (start, stop) in enumerate(stages) for _ in range(start, stop)]
    assert [where[name] for name in ("x_embedder", "time_text_embed", "context_embedder")] == [0, 0, 0]
    assert where["norm_out"] == where["proj_out"] == len(stages) - 1


def test_nothing_else_moves_what_was_placed(tiny):
    made = tiny(parallel="shard")
    assert [(one.start, one.stop) for one in made.modules.stages] == [(0, 3), (3, 6)]
    assert made.facts["offload"] == {"away": []}
    assert torch.equal(draw(made), draw(tiny()))


def test_more_devices_than_blocks_are_refused(flux):
    modules = SimpleNamespace(**vars(flux), devices=(torch.device("cpu"),) * 58)
    with pytest.raises(SettingsError, match=r"58: the model has 57 blocks.*use --gpus-per-replica 57 or fewer"):
        shard.apply(modules, Shard("shard"))


def test_with_a_step_cache_steps_end_on_the_first_device(tiny):
    """On devices that differ by name, here in vain: everything is in main memory."""
    made = tiny(parallel="shard", cache="first-block:0.4")
    assert made.modules.end_device == made.modules.device
    assert torch.equal(draw(made), draw(tiny(cache="first-block:0.4")))
