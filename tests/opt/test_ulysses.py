"""Tokens that are divided among processes: four of them compute what one computes.

python -m tests.opt.test_ulysses FOLDER     the four of them
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastgen.backends.diffusion.families.flux1.family import Flux1
from fastgen.backends.diffusion.families.flux1.latents import make_noise
from fastgen.backends.diffusion.families.flux1.text import Prompt
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.modules import Modules
from fastgen.backends.diffusion.ranks.group import join
from fastgen.backends.diffusion.step_engine import denoise
from fastgen.config.families import FLUX1
from fastgen.config.model_cards import TINY
from fastgen.config.optimizations import StepCache
from fastgen.opt import context
from fastgen.opt.ulysses import Ranks

PATIENCE_S = 120
TEXT, REFERENCE = 7, (48, 80)
"""Tokens of a prompt, and the size of an image with 15: neither can be divided by four."""


def latents(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Of samples of several sizes, with different steps in a group, with and without reference and step cache."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    torch.set_num_threads(1)
    transformer = FluxTransformer2DModel.from_pretrained(str(TINY), subfolder="transformer").eval()
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(str(TINY), subfolder="scheduler")
    none = (None,) * 3
    modules = Modules(transformer, *none, scheduler, torch.device("cpu"), torch.float32, FLUX1, ranks=ranks)
    assert context.apply(modules) == {"ranks": ranks.count}
    family, found = Flux1(modules), {}
    for name, size, text, edited, cache in (
        ("t2i", (48, 80), TEXT, False, StepCache()),
        ("one token", (16, 16), TEXT, False, StepCache()),
        ("none at all for some", (16, 16), 1, False, StepCache()),
        ("edit", (64, 48), TEXT, True, StepCache()),
        ("cache", (48, 80), TEXT, True, StepCache.parse("first-block:0.4")),
    ):
        modules.step_cache = cache if cache.kind != "none" else None
        samples = [_sample(transformer.config, number, size, text, edited) for number in range(3)]
        denoise(family, samples, 2)
        found[name] = torch.cat([sample.latents for sample in samples])
        found[f"{name} pattern"] = torch.tensor([[c == "1" for c in one.pattern.ljust(9)] for one in samples]).float()
    return found


def _sample(config: SimpleNamespace, number: int, size: tuple[int, int], text: int, edited: bool) -> Sample:
    generator = torch.Generator().manual_seed(number)
    embeds = torch.randn(text, config.joint_attention_dim, generator=generator)
    prompt = Prompt(embeds, torch.randn(config.pooled_projection_dim, generator=generator), text)
    sample = Sample(prompt, *size, 4 + 2 * number, 2.0 + number, make_noise(number, *size))
    if edited:
        sample.reference, sample.reference_sizes = torch.randn(15, 64, generator=generator), (REFERENCE,)
    return sample


def _process(number: int, count: int, folder: str) -> None:
    join(folder, number, count, torch.device("cpu"))
    torch.save(latents(Ranks(number, count)), Path(folder, f"{number}.pt"))


def _processes(count: int, folder: str) -> bool:
    """Forked, so that libraries are loaded once for all. Returns whether all went well."""
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=_process, args=(number, count, folder), daemon=True) for number in range(count)]
    for one in started:
        one.start()
    for one in started:
        one.join()
    return all(one.exitcode == 0 for one in started)


@pytest.mark.slow
def test_four_processes_compute_what_one_computes(tmp_path):
    command = [sys.executable, "-m", __name__, str(tmp_path)]
    processes = subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True)
    try:
        alone = latents(Ranks())
        assert processes.wait(PATIENCE_S) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(processes.pid, signal.SIGKILL)
        processes.wait()
    assert "0" in "".join("01"[int(flag)] for flag in alone["cache pattern"].flatten())
    for number in range(4):
        together = torch.load(tmp_path / f"{number}.pt")
        for name, wanted in alone.items():
            assert (together[name] - wanted).abs().max() < 1e-3, name


@pytest.mark.parametrize(
    ("length", "count", "sizes"), [(15, 4, [3, 4, 4, 4]), (1, 2, [0, 1]), (0, 3, [0, 0, 0]), (512, 2, [256, 256])]
)
def test_every_token_belongs_to_one_process(length, count, sizes):
    assert Ranks(0, count).sizes(length) == sizes
    tokens = torch.arange(length)
    assert torch.equal(torch.cat([Ranks(number, count).part(tokens, 0) for number in range(count)]), tokens)


@pytest.mark.parametrize(
    ("heads", "count", "fix"),
    [(24, 5, "--gpus-per-replica 4"), (24, 7, "--gpus-per-replica 6"), (7, 2, "--parallel shard")],
)
def test_heads_that_cannot_be_divided(heads, count, fix):
    assert context.refuse_heads(heads, count).endswith(f"cannot be divided among {count} devices; use {fix}")
    assert context.refuse_heads(24, 2) == ""


if __name__ == "__main__":
    sys.exit(0 if _processes(4, sys.argv[1]) else 1)
