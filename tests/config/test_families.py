"""The parts of each family are those of diffusers' modules, and its defaults those of the published models."""

from __future__ import annotations

import pytest
import torch

from fastgen.config.families import PARTS, PIPELINES, usual

CLASSES = {
    "flux": "FluxTransformer2DModel",
    "flux2": "Flux2Transformer2DModel",
    "flux2_kept": "Flux2Transformer2DModel",
    "flux2_dev": "Flux2Transformer2DModel",
    "chroma": "ChromaTransformer2DModel",
    "z_image": "ZImageTransformer2DModel",
    "qwen_image": "QwenImageTransformer2DModel",
    "qwen_image_edit": "QwenImageTransformer2DModel",
}


@pytest.mark.parametrize("family", CLASSES)
def test_parts_are_there(family):
    import diffusers

    small = {"z_image": {"n_layers": 1, "n_refiner_layers": 1}}.get(family, {"num_layers": 1})
    small |= {"num_single_layers": 1} if family.startswith(("flux", "chroma")) else {}
    with torch.device("meta"):
        transformer = getattr(diffusers, CLASSES[family])(**small)
    parts = PARTS[family]
    children = dict(transformer.named_children())
    assert {*parts.blocks, *parts.after, *parts.quantized, *parts.embedders} <= set(children)
    blocks = {type(block).__name__ for name in parts.blocks for block in children[name]}
    assert blocks <= set(transformer._no_split_modules) and blocks <= set(transformer._repeated_blocks)
    for name in parts.per_sample:
        assert any(layer.startswith(name) for layer, _ in children[parts.blocks[0]][0].named_modules())


@pytest.mark.parametrize(
    ("pipeline", "transformer", "index", "want"),
    [
        ("FluxPipeline", {"guidance_embeds": True}, {}, (28, 3.5, True)),
        ("FluxPipeline", {}, {}, (4, 0.0, True)),
        ("FluxKontextPipeline", {"guidance_embeds": True}, {}, (28, 2.5, True)),
        ("Flux2KleinPipeline", {}, {"is_distilled": True}, (4, 1.0, False)),
        ("Flux2KleinPipeline", {}, {}, (50, 4.0, True)),
        ("Flux2KleinKVPipeline", {}, {}, (4, 1.0, False)),
        ("Flux2Pipeline", {}, {}, (50, 4.0, False)),
        ("ChromaPipeline", {}, {}, (40, 3.0, True)),
        ("ZImagePipeline", {}, {}, (9, 0.0, True)),
        ("QwenImagePipeline", {}, {}, (50, 4.0, True)),
        ("QwenImageEditPipeline", {}, {}, (50, 4.0, True)),
        ("QwenImageEditPlusPipeline", {}, {}, (40, 4.0, True)),
    ],
)
def test_defaults(pipeline, transformer, index, want):
    found = usual(pipeline, transformer, index)
    assert (found.steps, found.guidance, found.true_cfg) == want
    assert PIPELINES[pipeline].family in PARTS
