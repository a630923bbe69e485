"""Short names, and the table in docs/models.md: counted on the published configs without weights.

python -m tests.config.test_short_names     writes the table anew
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fastgen.bench import peak, synthetic
from fastgen.config import model_cards
from fastgen.config.families import PARTS
from fastgen.config.fit.memory import GIB, Part, Sizes, Work, need
from fastgen.config.optimizations import Offload, Optimizations
from fastgen.config.short_names import SHORT_NAMES
from fastgen.errors import ModelError

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- models -->\n", "<!-- /models -->\n"
SIDE, TEXT = 1024, 512
KLEIN_4B = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680}
KLEIN_9B = {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288}
QWEN3 = {"vocab_size": 151936, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
QWEN3_4B = QWEN3 | {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36}
QWEN3_8B = QWEN3 | {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36}
READ = 28
"""Layers of Qwen3 that FLUX.2 klein needs; the others are not loaded."""


@dataclass(frozen=True)
class Model:
    """A published model: its transformer's config where it differs from the class, its text encoder and its passes."""

    family: str
    transformer: tuple[str, dict]
    text: dict
    vae: tuple[str, dict]
    steps: int
    passes: int = 1
    """Per step: two with true guidance."""
    short: str = ""
    references: int = 0
    """Input images of an edit."""


FLUX1_VAE = ("AutoencoderKL", synthetic.VAE)
MODELS = {
    "FLUX.1-dev": Model("flux", ("FluxTransformer2DModel", synthetic.TRANSFORMER), {}, FLUX1_VAE, 28, 1, "flux-dev"),
    "FLUX.1-schnell": Model(
        "flux",
        ("FluxTransformer2DModel", synthetic.TRANSFORMER | {"guidance_embeds": False}),
        {},
        FLUX1_VAE,
        4,
        1,
        "flux-schnell",
    ),
    "FLUX.2-klein-4B": Model(
        "flux2",
        ("Flux2Transformer2DModel", KLEIN_4B | {"guidance_embeds": False}),
        QWEN3_4B | {"num_hidden_layers": READ},
        ("AutoencoderKLFlux2", {}),
        4,
        1,
        "klein",
    ),
    "FLUX.2-klein-9B": Model(
        "flux2",
        ("Flux2Transformer2DModel", KLEIN_9B | {"guidance_embeds": False}),
        QWEN3_8B | {"num_hidden_layers": READ},
        ("AutoencoderKLFlux2", {}),
        4,
    ),
    "Z-Image-Turbo": Model("z_image", ("ZImageTransformer2DModel", {}), QWEN3_4B, FLUX1_VAE, 9, 1, "z-image"),
    "Qwen-Image": Model(
        "qwen_image", ("QwenImageTransformer2DModel", {}), {}, ("AutoencoderKLQwenImage", {}), 50, 2, "qwen-image"
    ),
    "Qwen-Image-Edit-2511": Model(
        "qwen_image_edit",
        ("QwenImageTransformer2DModel", {"zero_cond_t": True}),
        {},
        ("AutoencoderKLQwenImage", {}),
        40,
        2,
        "qwen-edit",
        1,
    ),
}


@dataclass(frozen=True)
class Counted:
    sizes: Sizes
    flops: float
    """Of one forward pass of the blocks for one image."""

    @property
    def weights_gib(self) -> float:
        parts = (self.sizes.transformer, self.sizes.text, self.sizes.clip, self.sizes.vae)
        return 2 * sum(part.all for part in parts) / GIB


def count(model: Model) -> Counted:
    import diffusers

    name, config = model.transformer
    with torch.device("meta"):
        transformer = getattr(diffusers, name).from_config(config)
        vae = getattr(diffusers, model.vae[0]).from_config(model.vae[1])
        text, clip, text_width = _text_encoders(model)
    parts = PARTS[model.family]
    blocks = [block for name in parts.blocks for block in getattr(transformer, name)]
    sizes = [_parameters(block) for block in blocks]
    width = max(layer.in_features for layer in blocks[0].modules() if isinstance(layer, torch.nn.Linear))
    width = getattr(transformer, "inner_dim", None) or getattr(transformer, "dim", None) or width
    found = Sizes(
        Part(_parameters(transformer), blocks=sum(sizes), largest_block=max(sizes), by_block=tuple(sizes)),
        Part(text),
        Part(clip),
        Part(_parameters(vae)),
        width=width,
        text_width=text_width,
    )
    return Counted(found, sum(_flops(block, parts.per_sample, width, model.references) for block in blocks))


def _flops(block: Any, per_sample: tuple[str, ...], width: int, references: int) -> float:
    """Two for each weight and token that it sees, and attention: 4 L^2 d."""
    image = (SIDE // 16) ** 2 * (1 + references)
    linear = [(name, layer) for name, layer in block.named_modules() if isinstance(layer, torch.nn.Linear)]
    both = not any(_of_text(name) for name, _ in linear)
    found = 4.0 * (image + TEXT) ** 2 * width
    for name, layer in linear:
        once = name.startswith(("norm", *per_sample))
        tokens = 1 if once else image + TEXT if both else TEXT if _of_text(name) else image
        found += 2.0 * tokens * layer.weight.numel()
    return found


def _of_text(name: str) -> bool:
    return name.startswith(("ff_context", "txt_", "attn.add_", "attn.to_add_out"))


def _text_encoders(model: Model) -> tuple[int, int, int]:
    """Parameters of the large and of the other text encoder, and the width of the widest layer of the large one."""
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen3Config,
        Qwen3Model,
        T5Config,
        T5EncoderModel,
    )

    if model.family == "flux":
        t5, clip = T5EncoderModel(T5Config(**synthetic.T5)), CLIPTextModel(CLIPTextConfig(**synthetic.CLIP))
        return _parameters(t5), _parameters(clip), synthetic.T5["d_ff"]
    if model.family.startswith("qwen_image"):
        text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 152064}
        text |= {"num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False}
        vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
        return _parameters(Qwen2_5_VLForConditionalGeneration(config)), 0, 18944
    return _parameters(Qwen3Model(Qwen3Config(**model.text))), 0, model.text["intermediate_size"]


def _parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def table() -> str:
    kinds = ("none", "text", "model", "group")
    lines = [
        "| model | `--model` | transformer | text encoders | VAE | weights | TFLOP a pass | passes an image "
        "| all on the GPU | `text` | `model` | `group` |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, model in MODELS.items():
        found = count(model)
        sizes, work = found.sizes, Work(1, (SIDE // 16) ** 2, model.references * (SIDE // 16) ** 2, TEXT, SIDE * SIDE)
        memory = [f"{need(sizes, work, Optimizations(offload=Offload(kind)), 2).gib:.1f}" for kind in kinds]
        billions = [f"{count / 1e9:.2f} B" for count in (sizes.transformer.all, sizes.text.all + sizes.clip.all)]
        cells = [name, f"`{model.short}`" if model.short else "", *billions, f"{sizes.vae.all / 1e6:.0f} M"]
        cells += [f"{found.weights_gib:.1f}", f"{found.flops / 1e12:.1f}", f"{model.steps * model.passes}", *memory]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def test_the_table_of_the_page_is_counted():
    assert PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0] == table(), "python -m tests.config.test_short_names"


def test_flops_agree_with_those_of_the_bench():
    """It counts all of FLUX.1's blocks as equal."""
    want = peak.flops_per_step(synthetic.TRANSFORMER, (SIDE, SIDE), TEXT)
    assert count(MODELS["FLUX.1-dev"]).flops == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize("short", SHORT_NAMES)
def test_a_short_name_is_said_in_full(short, monkeypatch):
    asked = []

    def missing(name: str) -> Path:
        asked.append(name)
        raise ModelError(f"{name} is not here")

    monkeypatch.setattr(model_cards, "_from_hub", missing)
    with pytest.raises(ModelError):
        model_cards.resolve_model(short, "edit", on_gpu=True)
    assert asked == [SHORT_NAMES[short].hub_id]


def test_the_note_has_licence_and_size(monkeypatch):
    monkeypatch.setattr(model_cards, "_from_hub", lambda name: model_cards.TINY)
    card, notes = model_cards.resolve_model("flux-dev", "t2i", on_gpu=True)
    assert card.name == "black-forest-labs/FLUX.1-dev"
    assert notes[0].startswith("--model flux-dev is black-forest-labs/FLUX.1-dev: a non-commercial licence")
    sizes = {model.short: count(model).weights_gib for model in MODELS.values() if model.short}
    for name, gib in sizes.items():
        assert SHORT_NAMES[name].weights_gib == pytest.approx(gib, abs=0.06)


def main() -> None:
    text = PAGE.read_text("utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    with tempfile.NamedTemporaryFile("w", dir=PAGE.parent, delete=False, encoding="utf-8") as file:
        file.write(before + BEGIN + table() + END + after)
    Path(file.name).replace(PAGE)


if __name__ == "__main__":
    main()
