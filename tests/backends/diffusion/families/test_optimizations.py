"""Every family's blocks, text encoders and last layers are found by the optimizations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from fastgen.config.optimizations import (
    Attention,
    Compile,
    Layout,
    NormRope,
    Offload,
    Optimizations,
    Quantize,
    Shard,
    StepCache,
)
from fastgen.errors import SettingsError
from fastgen.opt import attention, layout, norm_rope
from fastgen.resolver.sharding import check_heads
from tests.backends.diffusion.conftest import open_backend
from tests.backends.diffusion.families import tiny
from tests.backends.diffusion.families.alike import Case, draw

MAKERS = {
    "flux2": lambda folder: tiny.flux2(folder, distilled=False),
    "flux2_kept": tiny.flux2_kept,
    "chroma": tiny.chroma,
    "z_image": tiny.z_image,
    "qwen_image": tiny.qwen_image,
    "qwen_image_edit": lambda folder: tiny.qwen_edit(folder, 64 * 64, zero_cond_t=True),
}
T2I = [Case("a red circle", 4, 3.0, 1), Case("a dog on a blue background", 3, 0.0, 2)]
EDITS = [replace(case, references=((64, 64), (32, 96))) for case in T2I]
CASES = dict.fromkeys(MAKERS, T2I) | dict.fromkeys(("qwen_image_edit", "flux2_kept"), EDITS)


@pytest.fixture(scope="module", params=MAKERS)
def opened(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    MAKERS[request.param](folder / "model")
    backends = []

    def open_it(**flags):
        task = "edit" if CASES[request.param] is EDITS else "t2i"
        backends.append(open_backend(task, folder / "out", model=str(folder / "model"), **flags))
        return backends[-1]

    open_it.family = request.param
    open_it.cases = CASES[request.param]
    open_it.plain = draw(open_it(), open_it.cases)
    yield open_it
    for backend in backends:
        backend.close()


def test_pictures_stay_the_same_over_two_devices(opened):
    for got, want in zip(draw(opened(gpus="cpu:2", gpus_per_replica=2), opened.cases), opened.plain, strict=True):
        assert (got - want).abs().max() < 1e-4


def test_steps_are_left_out(opened):
    backend = opened(cache="first-block:2")
    for got, want in zip(draw(backend, opened.cases), opened.plain, strict=True):
        assert torch.isfinite(got).all() and (got - want).abs().max() > 1e-4


def test_quantized_layers_draw_nearly_the_same(opened):
    backend = opened(quantize="8bit,text:8bit")
    facts = backend.modules.transformer
    assert any(type(layer).__name__ == "Linear8bit" for layer in facts.modules())
    for got, want in zip(draw(backend, opened.cases), opened.plain, strict=True):
        assert 0 < (got - want).abs().mean() < 0.05


CACHES = {"first": StepCache("first-block", 1e-6), "taylor": StepCache("taylorseer", 1e-6)}
"""So careful that they compute every step in full."""
TRACED = Compile(True, "eager")
"""Graphs are traced and guarded as ever, but no code is generated for them."""
TOGETHER = {
    "shard, taylorseer, math, int8": Optimizations(
        shard=Shard("shard"), stepcache=CACHES["taylor"], attention=Attention("math"), quantize=Quantize("int8")
    ),
    "group, math, first-block": Optimizations(
        offload=Offload("group"), attention=Attention("math"), stepcache=CACHES["first"]
    ),
    "model, taylorseer": Optimizations(offload=Offload("model"), stepcache=CACHES["taylor"]),
    "8bit, text, first-block": Optimizations(quantize=Quantize("8bit", "8bit"), stepcache=CACHES["first"]),
}
COMPILED = "model, compile, int8, taylorseer"
TOGETHER[COMPILED] = Optimizations(
    offload=Offload("model"), compile=TRACED, quantize=Quantize("int8"), stepcache=CACHES["taylor"]
)
"""Kinds that docs/optimizations.md says go together, many in few combinations. On a CPU `refuse` would not let offload
pass, but it computes the same there."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == COMPILED else ()) for name in TOGETHER]
)
def test_what_goes_together_does(opened, name):
    if name == COMPILED and opened.family in ("qwen_image", "chroma", "flux2_kept"):
        pytest.skip("what is compiled here is shown by the others")
    chosen = TOGETHER[name]
    backend = opened(
        optimizations=chosen, **({"gpus": "cpu:2", "gpus_per_replica": 2} if not chosen.shard.is_plain else {})
    )
    found = draw(backend, opened.cases)
    if chosen.compile.on:
        torch._dynamo.reset()
    for got, want in zip(found, opened.plain, strict=True):
        if chosen.quantize.is_plain:
            assert (got - want).abs().max() < 1e-4
        else:
            assert 0 < (got - want).abs().mean() < 0.05


def test_a_kernel_without_masks_is_refused_where_prompts_need_them(opened, monkeypatch):
    """As FlashAttention and Sage are, in the trial and not while rows are at work."""
    from diffusers.models import attention_dispatch

    modules, own = opened().modules, attention_dispatch.dispatch_attention_fn

    def maskless(*qkv, attn_mask=None, **more):
        if attn_mask is not None and more["backend"] != attention.NAMES["native"]:
            raise ValueError("`attn_mask` is not yet supported")
        return own(*qkv, attn_mask=attn_mask, **more)

    monkeypatch.setattr(attention_dispatch, "dispatch_attention_fn", maskless)
    if modules.parts.masks:
        with pytest.raises(SettingsError, match=r"--attention math: does not work here: .* is not yet supported"):
            attention.apply(modules, Attention("math"))
    else:
        assert attention.apply(modules, Attention("math")) == {"kernel": "math"}


def test_a_transformer_in_one_file_and_a_lora(opened, tmp_path):
    """The file is the model's own, so the pictures are too; the LoRA changes them."""
    state = opened().modules.transformer.state_dict()
    path, name = tmp_path / "own.safetensors", next(name for name in state if name.endswith("to_out.0.weight"))
    save_file({f"model.diffusion_model.{key}": value.clone() for key, value in state.items()}, path)
    for got, want in zip(draw(opened(transformer=str(path)), opened.cases), opened.plain, strict=True):
        # Kept references are read alone, and the sums of so small products depend on where weights lie in memory.
        assert torch.equal(got, want) or (opened.family == "flux2_kept" and (got - want).abs().max() < 1e-5)
    layer, width = name.removesuffix(".weight"), state[name].shape[0]
    save_file({f"{layer}.lora_A.weight": torch.ones(1, width), f"{layer}.lora_B.weight": torch.ones(width, 1)}, path)
    for got, want in zip(draw(opened(lora=[f"{path}:0.5"]), opened.cases), opened.plain, strict=True):
        assert (got - want).abs().max() > 0.01


def test_what_is_for_flux1_alone_is_refused_by_name(opened):
    backend = opened()
    with pytest.raises(SettingsError, match=r"^fuse_qkv: only for FLUX\.1; leave it out with this model"):
        layout.apply(backend.modules, Layout(fuse_qkv=True))
    with pytest.raises(SettingsError, match=r"^norm_rope: its kernel is for FLUX\.1; leave it out with this model"):
        norm_rope.apply(backend.modules, NormRope(True))
    settings = backend.settings
    with pytest.raises(SettingsError, match=r"--parallel context: only FLUX\.1 models, and .*use --parallel shard"):
        check_heads(settings.model, Optimizations(shard=Shard("context")), settings.placement.devices)
