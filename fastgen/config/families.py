"""What the parts of each model family are called, for those who walk over them without knowing the architecture:
optimizations, the plan of what fits into memory, and the check of a model folder. And the defaults of the published
models. Data; imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

# What FLUX.1-Kontext was trained on (source: PREFERRED_KONTEXT_RESOLUTIONS in diffusers' pipeline_flux_kontext.py).
KONTEXT_SIZES = (
    (672, 1568),
    (688, 1504),
    (720, 1456),
    (752, 1392),
    (800, 1328),
    (832, 1248),
    (880, 1184),
    (944, 1104),
    (1024, 1024),
    (1104, 944),
    (1184, 880),
    (1248, 832),
    (1328, 800),
    (1392, 752),
    (1456, 720),
    (1504, 688),
    (1568, 672),
)


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The values to use if neither row nor flag sets them. A model folder may have its own in `fastgen.json`."""

    steps: int = 28
    guidance: float = 3.5
    width: int = 1024
    height: int = 1024
    pixels: int = 1024 * 1024
    """Pixel budget of an edit that sets no size."""
    preferred_sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) that the model was trained on; an edit that sets no size takes the nearest in shape."""
    max_pixels: int = 2048 * 2048
    max_sequence_length: int = 512
    """Tokens of a prompt; in FLUX padding counts as text, so this changes images."""
    edits: bool = False
    """Whether the model was trained to edit images."""
    references_apart: bool = False
    """Whether it sees several input images one by one. Otherwise they are put onto one sheet."""
    max_references: int = 16
    """Input images of one edit."""
    true_cfg: bool = True
    """Whether a row may have `negative_prompt` and `true_cfg_scale`."""
    text_to_image: bool = True
    """Whether it makes images without an input image."""
    reference_pixels: int = 0
    """Pixels of each input image as the model sees it; 0: as many as are rendered, and those after the first are never
    enlarged."""
    edit_grid: int = 0
    """The sides of input images, and of an edit that sets no size, are multiples of this; 0: of the model's grid."""


class Parts(msgspec.Struct, frozen=True):
    """The parts of a model, as its folder and diffusers name them."""

    blocks: tuple[str, ...]
    """The transformer's lists of blocks, in the order in which they run."""
    after: tuple[str, ...]
    """The transformer's layers after the blocks."""
    quantized: tuple[str, ...]
    """Where the transformer's linear layers are quantized, besides `embedders`."""
    embedders: tuple[str, ...]
    """Parts of the transformer that see one row per sample, such as the one that embeds the noise level. They have 8
    bits if the blocks have 4."""
    text: tuple[str, ...] = ("text_encoder",)
    """The text encoders."""
    large_text: str = "text_encoder"
    """The text encoder that can be quantized."""
    whole_text: tuple[str, ...] = ()
    """Its layers that bitsandbytes' kinds leave out."""
    tokenizers: tuple[str, ...] = ("tokenizer",)
    processor: str = ""
    """What prepares the images that the text encoder reads with a prompt; "" if it reads text only."""
    text_layers: int = 0
    """Layers of the text encoder that are kept, because later ones are never read; 0: all."""
    text_unused: tuple[str, ...] = ()
    """What else of the text encoder is left out, by words in the names of its weights."""
    embeds: str = "x_embedder"
    """The transformer's layer that image tokens enter by."""
    contrasts: bool = True
    """Whether guidance above 1 takes a second pass."""
    per_sample: tuple[str, ...] = ()
    """Layers of a block that see one row per sample, by the beginning of their name in it. Classes whose name begins
    with AdaLayerNorm count anyway."""

    keeps_references: bool = False
    """Whether each sample keeps the keys and values of its references from step to step."""
    masks: bool = False
    """Whether prompts of different lengths share a pass, so that attention needs a mask. Not every kernel has one."""
    fuses: bool = False
    """Whether query, key and value of its attention may be joined into one matrix."""
    grows: bool = False
    """Whether an image may take its first steps at a smaller size (`Family.to_grid` and `from_grid`)."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Folders with a config and weights."""
        return ("transformer", "vae", *self.text)

    @property
    def folders(self) -> tuple[str, ...]:
        """All that a model folder must have."""
        return (*self.modules, *self.tokenizers, *([self.processor] if self.processor else ()), "scheduler")


_FLUX_BLOCKS = ("transformer_blocks", "single_transformer_blocks")
FLUX1 = Parts(
    blocks=_FLUX_BLOCKS,
    after=("norm_out", "proj_out"),
    quantized=(*_FLUX_BLOCKS, "norm_out"),
    embedders=("time_text_embed",),
    text=("text_encoder", "text_encoder_2"),
    large_text="text_encoder_2",
    # T5 casts to the type of `wo`'s weights, but one cannot compute in the type of quantized weights.
    whole_text=("wo",),
    tokenizers=("tokenizer", "tokenizer_2"),
    contrasts=False,
    fuses=True,
    grows=True,
)

_FLUX2_MODULATIONS = ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")
FLUX2 = Parts(
    blocks=_FLUX_BLOCKS,
    after=("norm_out", "proj_out"),
    quantized=(*_FLUX_BLOCKS, "norm_out"),
    embedders=("time_guidance_embed", *_FLUX2_MODULATIONS),
    text_layers=28,  # klein reads the hidden states after layers 9, 18 and 27, not normalized
)
FLUX2_KEPT = msgspec.structs.replace(FLUX2, keeps_references=True)
FLUX2_DEV = msgspec.structs.replace(
    FLUX2,
    text_layers=31,  # it reads those after layers 10, 20 and 30
    text_unused=("vision_tower", "multi_modal_projector", "lm_head"),
    contrasts=False,
)
CHROMA = Parts(
    blocks=_FLUX_BLOCKS,
    after=("norm_out", "proj_out"),
    quantized=_FLUX_BLOCKS,
    embedders=("distilled_guidance_layer",),
    whole_text=FLUX1.whole_text,
    masks=True,
)
Z_IMAGE = Parts(
    blocks=("layers",),
    after=("all_final_layer",),
    quantized=("layers", "noise_refiner", "context_refiner"),
    embedders=("t_embedder",),
    embeds="all_x_embedder.2-1",
    per_sample=("adaLN_modulation",),
    masks=True,
)
QWEN_IMAGE = Parts(
    blocks=("transformer_blocks",),
    after=("norm_out", "proj_out"),
    quantized=("transformer_blocks", "norm_out"),
    embedders=("time_text_embed",),
    embeds="img_in",
    per_sample=("img_mod", "txt_mod"),
    text_unused=("lm_head", "visual"),
    masks=True,
)
QWEN_IMAGE_EDIT = msgspec.structs.replace(QWEN_IMAGE, processor="processor", text_unused=("lm_head",))
PARTS: dict[str, Parts] = {
    "flux": FLUX1,
    "flux2": FLUX2,
    "flux2_kept": FLUX2_KEPT,
    "flux2_dev": FLUX2_DEV,
    "chroma": CHROMA,
    "z_image": Z_IMAGE,
    "qwen_image": QWEN_IMAGE,
    "qwen_image_edit": QWEN_IMAGE_EDIT,
}
"""`ModelCard.family` -> its parts."""


def usual(pipeline: str, transformer: dict, index: dict) -> Defaults:
    """The defaults of a published model.

    Args:
        pipeline: one of `PIPELINES`.
        transformer: its transformer's config.
        index: its `model_index.json`.
    """
    return PIPELINES[pipeline].defaults(transformer, index)


def _flux(transformer: dict, index: dict) -> Defaults:
    # FLUX.1-schnell is the one without a guidance embedding; 4 steps, text of 256: its model card.
    return Defaults() if transformer.get("guidance_embeds") else _schnell()


def _kontext(transformer: dict, index: dict) -> Defaults:
    if not transformer.get("guidance_embeds"):
        return _schnell()
    return Defaults(guidance=2.5, edits=True, preferred_sizes=KONTEXT_SIZES)


def _schnell() -> Defaults:
    return Defaults(steps=4, guidance=0.0, max_sequence_length=256)


def _klein(transformer: dict, index: dict) -> Defaults:
    """FLUX.2 klein: 4 steps and no guidance where it is distilled, 50 steps and true guidance of 4 for the base models:
    diffusers' Flux2KleinPipeline and the model cards."""
    distilled = index.get("is_distilled") is True
    return Defaults(
        steps=4 if distilled else 50,
        guidance=1.0 if distilled else 4.0,
        edits=True,
        references_apart=True,
        max_references=10,
        true_cfg=not distilled,
    )


def _klein_kept(transformer: dict, index: dict) -> Defaults:
    """FLUX.2 klein KV, which is distilled."""
    return _klein(transformer, {"is_distilled": True})


def _flux2_dev(transformer: dict, index: dict) -> Defaults:
    """FLUX.2-dev: 50 steps, guidance of 4 in the model; diffusers' Flux2Pipeline and the model card."""
    return Defaults(steps=50, guidance=4.0, edits=True, references_apart=True, max_references=10, true_cfg=False)


def _chroma(transformer: dict, index: dict) -> Defaults:
    """Chroma1-HD: 40 steps and true guidance of 3, by its model card."""
    return Defaults(steps=40, guidance=3.0, max_references=0)


def _z_image(transformer: dict, index: dict) -> Defaults:
    """Z-Image-Turbo: 9 steps without guidance, by its model card."""
    return Defaults(steps=9, guidance=0.0, max_references=0)


def _qwen_image(transformer: dict, index: dict) -> Defaults:
    """Qwen-Image: 50 steps and true guidance of 4, the defaults of diffusers' QwenImagePipeline."""
    return Defaults(steps=50, guidance=4.0, max_references=0)


def _qwen_image_edit(transformer: dict, index: dict) -> Defaults:
    """Qwen-Image-Edit: one input image; diffusers' QwenImageEditPipeline."""
    return Defaults(
        steps=50,
        guidance=4.0,
        edits=True,
        references_apart=True,
        max_references=1,
        text_to_image=False,
        reference_pixels=1024 * 1024,
        edit_grid=32,
    )


def _qwen_image_edit_plus(transformer: dict, index: dict) -> Defaults:
    """Qwen-Image-Edit-2509 and later: 40 steps by their model cards."""
    return msgspec.structs.replace(_qwen_image_edit(transformer, index), steps=40, max_references=10)


@dataclass(frozen=True)
class Pipeline:
    """A pipeline of diffusers that a model folder may name."""

    family: str
    defaults: Callable[[dict, dict], Defaults]
    """(the transformer's config, `model_index.json`) -> what to use if neither row nor flag says."""


PIPELINES = {
    "FluxPipeline": Pipeline("flux", _flux),
    "FluxKontextPipeline": Pipeline("flux", _kontext),
    "Flux2KleinPipeline": Pipeline("flux2", _klein),
    "Flux2KleinKVPipeline": Pipeline("flux2_kept", _klein_kept),
    "Flux2Pipeline": Pipeline("flux2_dev", _flux2_dev),
    "ChromaPipeline": Pipeline("chroma", _chroma),
    "ZImagePipeline": Pipeline("z_image", _z_image),
    "QwenImagePipeline": Pipeline("qwen_image", _qwen_image),
    "QwenImageEditPipeline": Pipeline("qwen_image_edit", _qwen_image_edit),
    "QwenImageEditPlusPipeline": Pipeline("qwen_image_edit", _qwen_image_edit_plus),
}
"""`_class_name` in `model_index.json` -> what it is."""

REFUSED = {
    "QwenImageLayeredPipeline": "which takes an image apart into layers with an alpha channel; fastgen makes opaque "
    "images, and one from each edit",
}
"""Pipelines that could be taken for one of these, and why they are none."""
