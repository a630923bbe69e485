"""How much memory a model takes on a GPU: `need`, a pure function of sizes, work and choices. Imports no torch.

The constants were counted on full-size modules without data, on a CPU; none has been measured on a GPU. Rehearsed and
measured peaks belong here. Does not know cards, or which choice is better.
"""

from __future__ import annotations

import msgspec

from fastgen.config.optimizations import Optimizations

GIB = 2**30
CONTEXT_GIB = 0.5
"""The CUDA context with PyTorch's kernels. It is outside of PyTorch's allocator."""
WORKSPACES_GIB = 0.3
"""cuBLAS has up to 32 MiB per handle and stream, cuDNN takes some for the VAE's convolutions."""
COMPILED_GIB = 0.3
"""Buffers with which compiled code is tuned."""
PROMPTS_GIB = 1.0
"""Embeddings of earlier prompts, where the text encoders stay on the GPU; otherwise they wait in main memory."""
ROUNDING = 0.01
"""Of the weights: the allocator hands out large blocks in steps of 2 MiB."""
FRAGMENTATION = 0.1
"""Of the activations: their sizes change from phase to phase, so free blocks do not always fit."""
PROMPTS_TOGETHER = 16
"""Prompts that go through the text encoders together (`encode.CHUNK`)."""
TEXT_VALUES = 6.0
"""Per prompt token, in widths of T5's inner layer: 5.8 counted."""
STEP_VALUES = 18.0
"""Per token of text, image and reference, in widths of the transformer: 17.0 counted for FLUX.1's widest block."""
PIXEL_VALUES = 1130.0
"""Per pixel that the VAE decodes or encodes: 2.2 GiB rehearsed for 1024x1024 in bfloat16, where its attention keeps all
scores; 1.5 GiB counted without them."""
BLOCKS_AT_ONCE = 2
"""Blocks on the GPU while layers are streamed: one that computes, one on its way."""

QUANTIZED_BYTES = {
    "8bit": 1.0,
    "int8": 1.0,
    "fp8": 1.0,
    "4bit": 0.5 + 4 / 64,
    "mxfp8": 1.0 + 1 / 32,
    "nvfp4": 0.5 + 1 / 16,
}
"""Per weight of a quantized layer. 4bit has a float32 scale for each 64 weights, mxfp8 a byte for each 32 and nvfp4 one
for each 16; the others have a scale per row."""
EIGHT_BITS = {"4bit": "8bit", "nvfp4": "mxfp8"}
"""The kind of the embedder, where it is not that of the other layers."""
BITSANDBYTES = ("8bit", "4bit")


class Part(msgspec.Struct, frozen=True):
    """Parameters of one part of a model."""

    all: int
    linear: int = 0
    """In the layers that torchao's kinds quantize."""
    bitsandbytes: int = 0
    """In the layers that bitsandbytes' kinds quantize."""
    embedder: int = 0
    """Of these, in the layers that have 8 bits where the others have 4."""
    blocks: int = 0
    """In the blocks that can be streamed."""
    largest_block: int = 0
    by_block: tuple[int, ...] = ()
    """In each of these blocks, in the order in which they run."""
    largest_layer: int = 0
    """In the largest layer that can be quantized."""

    def gib(self, kind: str, dtype_bytes: int) -> float:
        """Weights if its layers are quantized as `kind`, "none" for none; the rest has `dtype_bytes` a parameter."""
        if kind == "none":
            return self.all * dtype_bytes / GIB
        quantized = self.bitsandbytes if kind in BITSANDBYTES else self.linear
        eight = self.embedder if kind in EIGHT_BITS else 0
        own = (quantized - eight) * QUANTIZED_BYTES[kind] + eight * QUANTIZED_BYTES[EIGHT_BITS.get(kind, kind)]
        return (own + (self.all - quantized) * dtype_bytes) / GIB

    def unpacked_gib(self, kind: str, dtype_bytes: int) -> float:
        """What a product with quantized weights takes besides: bitsandbytes unpacks the 4 bits of a whole layer."""
        return self.largest_layer * dtype_bytes / GIB if kind == "4bit" else 0.0


class Sizes(msgspec.Struct, frozen=True):
    """A model, as far as its memory is concerned."""

    transformer: Part
    text: Part
    """The large text encoder."""
    clip: Part
    vae: Part
    width: int
    """Of a token in the transformer."""
    text_width: int
    """Of a token in the widest layer of the text encoder."""


class Work(msgspec.Struct, frozen=True):
    """What goes through the model together."""

    batch: int
    image_tokens: int
    """Of one image."""
    reference_tokens: int
    """Of the image that it is made from; 0 in t2i."""
    text_tokens: int
    pixels: int
    """Of the largest image that the VAE decodes or encodes."""
    kept_tokens: int = 0
    """Of these of the reference, whose keys and values stay from step to step."""


class Need(msgspec.Struct, frozen=True):
    """What a choice needs, in GiB. `terms` are those of the phase that needs most."""

    phase: str
    terms: dict[str, float]
    host_gib: float
    """Main memory for weights that are not always on the GPU."""

    @property
    def gib(self) -> float:
        return sum(self.terms.values())

    @property
    def least_gib(self) -> float:
        """Without the margin: with less, it cannot work."""
        return self.gib - self.terms["margin"]

    def explain(self) -> str:
        """Such as "while decoding: weights 31.4, activations 2.2 ..."."""
        terms = ", ".join(f"{name} {gib:.1f}" for name, gib in self.terms.items() if gib >= 0.05)
        return f"while {self.phase}: {terms}"


def need(sizes: Sizes, work: Work, choices: Optimizations, dtype_bytes: int) -> Need:
    """What one GPU must have free for these choices.

    Args:
        dtype_bytes: of a value in the engine's type; weights have it too, unless they are quantized.
    """
    held, away = _weights(sizes, choices, dtype_bytes)
    activations = _activations(sizes, work, choices, dtype_bytes)
    stays = choices.offload.kind == "none"
    kinds = {
        phase: {
            "weights": held[phase],
            "activations": activations[phase],
            "prompts": PROMPTS_GIB if stays else 0.0,
            "CUDA": CONTEXT_GIB + WORKSPACES_GIB + (COMPILED_GIB if choices.compile.on else 0.0),
            "margin": ROUNDING * held[phase] + FRAGMENTATION * activations[phase],
        }
        for phase in held
    }
    worst = max(kinds, key=lambda phase: sum(kinds[phase].values()))
    return Need(worst, kinds[worst], away)


def _weights(sizes: Sizes, choices: Optimizations, dtype_bytes: int) -> tuple[dict[str, float], float]:
    """Phase -> GiB of weights on the GPU; and GiB that main memory holds besides."""
    transformer = sizes.transformer.gib(choices.quantize.transformer, dtype_bytes)
    text = sizes.text.gib(choices.quantize.text, dtype_bytes) + sizes.clip.gib("none", dtype_bytes)
    vae = sizes.vae.gib("none", dtype_bytes)
    values = dtype_bytes / GIB
    # A text encoder in its own type is read from its file, which main memory caches if it has room.
    visits = 0.0 if choices.quantize.text == "none" else text
    outside = (sizes.transformer.all - sizes.transformer.blocks) * values
    streamed = outside + BLOCKS_AT_ONCE * sizes.transformer.largest_block * values
    whole = transformer + text + vae
    encoding, denoising, decoding, away = {
        "none": (whole, whole, whole, 0.0),
        "text": (whole, transformer + vae, transformer + vae, visits),
        "model": (text, transformer, vae, transformer + visits),
        "group": (text + vae + outside, streamed + vae, streamed + vae, transformer + visits),
    }[choices.offload.kind]
    return {"encoding prompts": encoding, "denoising": denoising, "decoding": decoding}, away


def spare_gib(sizes: Sizes, work: Work, choices: Optimizations, dtype_bytes: int) -> tuple[float, float, float]:
    """What a replica keeps free of weights, see `Shard.spare_gib`: activations and what CUDA takes beside its
    context."""
    activations = {
        phase: (1 + FRAGMENTATION) * gib for phase, gib in _activations(sizes, work, choices, dtype_bytes).items()
    }
    cuda = WORKSPACES_GIB + (COMPILED_GIB if choices.compile.on else 0.0)
    first = max(activations["denoising"], activations["decoding"]) + PROMPTS_GIB
    each = (first, activations["denoising"], max(activations["denoising"], activations["encoding prompts"]))
    return (each[0] + cuda, each[1] + cuda, each[2] + cuda)


def _activations(sizes: Sizes, work: Work, choices: Optimizations, dtype_bytes: int) -> dict[str, float]:
    """Phase -> GiB besides the weights."""
    cached = 0.0
    if choices.stepcache.kind != "none":  # what the first block and the others added, and a comparison in float32
        kept = 2 * (choices.stepcache.order + 1) * work.batch * dtype_bytes + 2 * 4
        cached = kept * work.image_tokens * sizes.width / GIB
    # Twice, because they are joined anew whenever a sample comes or leaves.
    kept = 2 * 2 * work.batch * work.kept_tokens * len(sizes.transformer.by_block) * sizes.width
    cached += kept * dtype_bytes / GIB
    tokens = work.text_tokens + work.image_tokens + work.reference_tokens
    values = dtype_bytes / GIB
    text = sizes.text.unpacked_gib(choices.quantize.text, dtype_bytes)
    cached += sizes.transformer.unpacked_gib(choices.quantize.transformer, dtype_bytes)
    return {
        "encoding prompts": PROMPTS_TOGETHER * work.text_tokens * TEXT_VALUES * sizes.text_width * values + text,
        "denoising": work.batch * tokens * STEP_VALUES * sizes.width * values + cached,
        "decoding": work.pixels * PIXEL_VALUES * values,
    }
