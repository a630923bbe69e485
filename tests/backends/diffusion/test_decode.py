"""What is not finite is no picture, whatever it would look like."""

from __future__ import annotations

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import save_file

from fastgen.backends.diffusion.decode import decode, to_uint8
from fastgen.backends.diffusion.report import not_finite
from fastgen.types import Done, Failed
from tests.backends.diffusion.conftest import open_backend, picture
from tests.backends.diffusion.test_engine import run


@pytest.mark.parametrize("finish", [list, to_uint8])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_latents_that_are_not_finite(t2i, finish, broken):
    latents = list(torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0)))
    latents[1][5, 7] = broken
    found = [one.wait() for one in decode(t2i.family, latents, 64, 64, 3, finish)]
    assert found[1] is None and found[0] is not None and found[2] is not None


def test_pixels_that_are_not_finite(t2i, monkeypatch):
    whole = t2i.modules.vae.decode

    def overflows(latents, return_dict):
        (pixels,) = whole(latents, return_dict=return_dict)
        pixels[0, 0, 3, 3] = -torch.inf  # which clamping would make black
        return (pixels,)

    monkeypatch.setattr(t2i.modules.vae, "decode", overflows)
    assert [one.wait() is None for one in decode(t2i.family, [torch.zeros(16, 64)] * 2, 64, 64, 2, to_uint8)] == [
        True,
        False,
    ]


def test_such_a_row_fails_and_its_company_does_not(t2i, monkeypatch):
    rows = [{"id": name, "prompt": "a fox", "seed": 1, "steps": 2} for name in "abc"]
    alone = run(t2i, [rows[0]])[0]
    whole = t2i.renderer.decode

    def overflows(samples, finish):
        samples[1].latents = samples[1].latents * torch.nan
        return whole(samples, finish)

    monkeypatch.setattr(t2i.renderer, "decode", overflows)
    first, second, third = run(t2i, rows)
    assert isinstance(first, Done) and isinstance(third, Done) and first.paths == alone.paths
    assert isinstance(second, Failed) and second.kind == "nan"
    assert "likely weights are broken (--lora," in second.message
    half = replace(t2i.settings, engine=replace(t2i.settings.engine, dtype="float16"))
    assert "float16 overflows with this model: use --dtype bfloat16" in not_finite(half)


def test_no_picture_of_it_is_written(tmp_path):
    """A LoRA with a NaN: t2i, and an edit of two turns."""
    key = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {f"{key}.lora_A.weight": torch.full((4, 128), torch.nan), f"{key}.lora_B.weight": torch.ones(128, 4)}
    save_file(tensors, tmp_path / "nan.safetensors")
    picture(1, 64, 64).save(tmp_path / "a.png")
    turns = [{"role": "user", "content": "make it red"}, {"role": "user", "content": "make it blue"}]
    rows = {
        "t2i": {"id": "a", "prompt": "a fox", "n": 2, "steps": 2},
        "edit": {"id": "a", "conversations": turns, "image": str(tmp_path / "a.png"), "steps": 2},
    }
    for task, row in rows.items():
        backend = open_backend(task, tmp_path / task, lora=(str(tmp_path / "nan.safetensors"),))
        (failed,) = run(backend, [row])
        backend.close()
        assert failed.kind == "nan" and not list((tmp_path / task / "images").iterdir())
