"""Short names, and the tables in docs/models.md: counted on the published configs without weights.

python -m tests.config.test_short_names     writes them anew
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from fastgen import opt
from fastgen.bench import peak, synthetic
from fastgen.config import model_cards
from fastgen.config.families import FLUX1, PARTS
from fastgen.config.fit.card import DRIVER, Card
from fastgen.config.fit.memory import GIB, Sizes, Work, need
from fastgen.config.fit.planner import Model as Asked
from fastgen.config.fit.planner import Planner
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Offload, Optimizations
from fastgen.config.short_names import SHORT_NAMES
from fastgen.errors import ModelError, SettingsError
from fastgen.resolver import sizes
from tests.rehearsal.expected import block_flops
from tests.resolver.gpus import HOST_GIB, gpu

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
SIDE, TEXT = 1024, 512
KLEIN_4B = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680}
KLEIN_9B = {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288}
QWEN3 = {"vocab_size": 151936, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
QWEN3_4B = QWEN3 | {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36}
QWEN3_8B = QWEN3 | {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36}


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

    @property
    def work(self) -> Work:
        """For one image of 1024x1024."""
        tokens = (SIDE // 16) ** 2
        return Work(self.passes, tokens, self.references * tokens, TEXT, SIDE * SIDE)


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
        QWEN3_4B,
        ("AutoencoderKLFlux2", {}),
        4,
        1,
        "klein",
    ),
    "FLUX.2-klein-9B": Model(
        "flux2",
        ("Flux2Transformer2DModel", KLEIN_9B | {"guidance_embeds": False}),
        QWEN3_8B,
        ("AutoencoderKLFlux2", {}),
        4,
    ),
    "FLUX.2-dev": Model(
        "flux2_dev", ("Flux2Transformer2DModel", {}), {}, ("AutoencoderKLFlux2", {}), 50, 1, "flux2-dev"
    ),
    "Chroma1-HD": Model("chroma", ("ChromaTransformer2DModel", {}), {}, FLUX1_VAE, 40, 2, "chroma"),
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
    """Each only once."""
    if id(model) not in _counted:
        _counted[id(model)] = _count(model)
    return _counted[id(model)]


_counted: dict[int, Counted] = {}


def _count(model: Model) -> Counted:
    parts, found = PARTS[model.family], modules(model)
    transformer = found["transformer"]
    blocks = [block for name in parts.blocks for block in getattr(transformer, name)]
    counted = (
        sizes.of_flux(transformer.config, synthetic.CLIP, synthetic.T5, synthetic.VAE)
        if parts == FLUX1
        else sizes.of_shapes(parts, *(_shapes(found[name]) for name in parts.modules))
    )
    image = (SIDE // 16) ** 2 * (1 + model.references)
    flops = sum(block_flops(block, parts.per_sample, counted.width, TEXT, image) for block in blocks)
    return Counted(counted, flops)


def modules(model: Model) -> dict[str, Any]:
    """Its parts by the names of their folders, without weights; of FLUX.1, whose text encoders are reckoned from their
    configs, without these."""
    import diffusers

    name, config = model.transformer
    with torch.device("meta"):
        found = {
            "transformer": getattr(diffusers, name).from_config(config),
            "vae": getattr(diffusers, model.vae[0]).from_config(model.vae[1]),
        }
        return found if model.family == "flux" else found | {"text_encoder": _text_encoder(model)}


def _shapes(module: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def _text_encoder(model: Model) -> Any:
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen3Config,
        Qwen3Model,
        T5Config,
        T5EncoderModel,
    )

    if model.family == "chroma":
        return T5EncoderModel(T5Config(**synthetic.T5))
    if model.family == "flux2_dev":  # Mistral Small 3.1, whose sizes are the defaults of the class
        return Mistral3ForConditionalGeneration(Mistral3Config())
    if model.family.startswith("qwen_image"):
        text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 152064}
        text |= {"num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False}
        vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
        return Qwen2_5_VLForConditionalGeneration(config)
    return Qwen3Model(Qwen3Config(**model.text))


def table() -> str:
    kinds = ("none", "text", "model", "group")
    lines = [
        "| model | `--model` | transformer | text encoders | VAE | weights | TFLOP a pass | passes an image "
        "| all on the GPU | `text` | `model` | `group` |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, model in MODELS.items():
        found = count(model)
        parts, work = found.sizes, model.work
        memory = [f"{need(parts, work, Optimizations(offload=Offload(kind)), 2).gib:.1f}" for kind in kinds]
        billions = [f"{count / 1e9:.2f} B" for count in (parts.transformer.all, parts.text.all + parts.clip.all)]
        cells = [name, f"`{model.short}`" if model.short else "", *billions, f"{parts.vae.all / 1e6:.0f} M"]
        cells += [f"{found.weights_gib:.1f}", f"{found.flops / 1e12:.1f}", f"{model.steps * model.passes}", *memory]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


CARDS = {
    "12 GB": gpu("RTX 3060", 12.0, "8.6"),
    "16 GB": gpu("RTX 4080", 16.0, "8.9"),
    "24 GB": gpu("RTX 4090", 24.0, "8.9"),
    "32 GB": gpu("RTX 5090", 31.8, "12.0"),
    "48 GB": gpu("L40S", 45.0, "8.9"),
    "80 GB": gpu("H100 80GB HBM3", 79.6, "9.0"),
}


def cards() -> str:
    """What the planner chooses for a GPU of each size."""
    lines = ["| model | " + " | ".join(CARDS) + " |", "|---" * (1 + len(CARDS)) + "|"]
    for name, model in MODELS.items():
        found = count(model).sizes
        cells = []
        for card in CARDS.values():
            room = round(card.memory_gib * (1 - DRIVER), 2)
            on = Card(card.name, room, room, HOST_GIB)
            planner = Planner(Asked(name, found, model.work, "bf16", 2), on, partial(_refuse, card), {})
            try:
                chosen, plan = planner.plan(Optimizations())
            except SettingsError:
                cells.append("does not fit")
                continue
            words = ["bf16" if chosen.quantize.is_plain else chosen.quantize.word()]
            words += [] if chosen.offload.is_plain else [f"offload {chosen.offload.kind}"]
            cells.append(f"{', '.join(words)}: {plan.need.gib:.1f}")
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _refuse(card: Gpu, choices: Optimizations) -> str:
    with patch("fastgen.opt.quantize.unfit", lambda name: ""):
        return opt.refuse(choices, card)


TABLES = {"models": table, "cards": cards}


def between(text: str, name: str) -> tuple[str, str, str]:
    """The page before a table, the table, and what follows."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, rest = text.split(begin)
    return before + begin, rest.split(end)[0], end + rest.split(end)[1]


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_the_page_are_counted(name):
    assert between(PAGE.read_text("utf-8"), name)[1] == TABLES[name](), "python -m tests.config.test_short_names"


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
        model_cards.resolve_model(short, "edit")
    assert asked == [SHORT_NAMES[short].hub_id]


@pytest.mark.parametrize(
    ("task", "memory", "cached", "want"),
    [
        ("t2i", (24.0, 24.0), (), "Tongyi-MAI/Z-Image-Turbo"),
        ("t2i", (80.0, 16.0), (), "black-forest-labs/FLUX.2-klein-4B"),
        ("t2i", (0.0,), (), "black-forest-labs/FLUX.2-klein-4B"),
        ("edit", (80.0,), (), "black-forest-labs/FLUX.2-klein-4B"),
        ("t2i", (24.0,), ("black-forest-labs/FLUX.1-dev",), "black-forest-labs/FLUX.1-dev"),
        ("edit", (24.0,), ("black-forest-labs/FLUX.1-dev",), "black-forest-labs/FLUX.2-klein-4B"),
    ],
)
def test_auto_goes_by_memory_and_licence_and_keeps_what_is_here(task, memory, cached, want, monkeypatch):
    asked = []

    def missing(name: str) -> Path:
        asked.append(name)
        raise ModelError(f"{name} is not here")

    monkeypatch.setattr(model_cards, "is_cached", lambda name: name in cached)
    monkeypatch.setattr(model_cards, "_from_hub", missing)
    with pytest.raises(ModelError):
        model_cards.resolve_model(model_cards.auto_on_gpu(task, min(memory)), task)
    assert asked == [want]


def test_the_note_has_licence_and_size(monkeypatch):
    monkeypatch.setattr(model_cards, "_from_hub", lambda name: model_cards.TINY)
    card, notes = model_cards.resolve_model("flux-dev", "t2i")
    assert card.name == "black-forest-labs/FLUX.1-dev"
    assert notes[0].startswith("--model flux-dev is black-forest-labs/FLUX.1-dev: a non-commercial licence")
    weights = {model.short: count(model).weights_gib for model in MODELS.values() if model.short}
    for name, gib in weights.items():
        assert SHORT_NAMES[name].weights_gib == pytest.approx(gib, abs=0.06)


def main() -> None:
    text = PAGE.read_text("utf-8")
    for name, make in TABLES.items():
        before, _, after = between(text, name)
        text = before + make() + after
    with tempfile.NamedTemporaryFile("w", dir=PAGE.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(PAGE)


if __name__ == "__main__":
    main()
