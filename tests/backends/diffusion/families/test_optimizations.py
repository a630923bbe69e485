"""Every family's blocks, text encoders and last layers are found by the optimizations."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from fastgen.errors import SettingsError
from tests.backends.diffusion.conftest import open_backend
from tests.backends.diffusion.families import tiny
from tests.backends.diffusion.families.alike import Case, draw

MAKERS = {
    "flux2": lambda folder: tiny.flux2(folder, distilled=False),
    "z_image": tiny.z_image,
    "qwen_image": tiny.qwen_image,
}
CASES = [Case("a red circle", 4, 3.0, 1), Case("a dog on a blue background", 3, 0.0, 2)]


@pytest.fixture(scope="module", params=MAKERS)
def opened(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    MAKERS[request.param](folder / "model")
    backends = []

    def open_it(**flags):
        backends.append(open_backend("t2i", folder / "out", model=str(folder / "model"), **flags))
        return backends[-1]

    open_it.plain = draw(open_it(), CASES)
    yield open_it
    for backend in backends:
        backend.close()


@pytest.mark.parametrize("flags", [{"gpus": "cpu:2", "gpus_per_replica": 2}, {"cache": "first-block:0.000001"}])
def test_pictures_stay_the_same(opened, flags):
    for got, want in zip(draw(opened(**flags), CASES), opened.plain, strict=True):
        assert (got - want).abs().max() < 1e-4


def test_steps_are_left_out(opened):
    backend = opened(cache="first-block:2")
    for got, want in zip(draw(backend, CASES), opened.plain, strict=True):
        assert torch.isfinite(got).all() and (got - want).abs().max() > 1e-4


def test_quantized_layers_draw_nearly_the_same(opened):
    backend = opened(quantize="8bit,text:8bit")
    facts = backend.modules.transformer
    assert any(type(layer).__name__ == "Linear8bit" for layer in facts.modules())
    for got, want in zip(draw(backend, CASES), opened.plain, strict=True):
        assert 0 < (got - want).abs().mean() < 0.05


def test_a_transformer_in_one_file_and_a_lora(opened, tmp_path):
    """The file is the model's own, so the pictures are too; the LoRA changes them."""
    state = opened().modules.transformer.state_dict()
    path, name = tmp_path / "own.safetensors", next(name for name in state if name.endswith("to_out.0.weight"))
    save_file({f"model.diffusion_model.{key}": value.clone() for key, value in state.items()}, path)
    for got, want in zip(draw(opened(transformer=str(path)), CASES), opened.plain, strict=True):
        assert torch.equal(got, want)
    layer, width = name.removesuffix(".weight"), state[name].shape[0]
    save_file({f"{layer}.lora_A.weight": torch.ones(1, width), f"{layer}.lora_B.weight": torch.ones(width, 1)}, path)
    for got, want in zip(draw(opened(lora=[f"{path}:0.5"]), CASES), opened.plain, strict=True):
        assert (got - want).abs().max() > 0.01


def test_fused_projections_are_refused(opened):
    with pytest.raises(SettingsError, match=r"only for FLUX\.1"):
        from fastgen import opt
        from fastgen.config.optimizations import Layout, Optimizations

        opt.apply_all(opened().modules, Optimizations(layout=Layout(fuse_qkv=True)))
