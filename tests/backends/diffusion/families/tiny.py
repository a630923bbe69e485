"""Makes tiny models with random weights, one folder per family in diffusers' format, with a tokenizer of bytes. They
draw noise, but the same noise wherever they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from fastgen.config.model_cards import TINY

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIAL += ["<|video_pad|>", "<think>", "</think>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
VOCABULARY = 256 + len(SPECIAL)
IMAGE_TOKEN = 256 + SPECIAL.index("<|image_pad|>")
MISTRAL = ["<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]"]
DEV_TEMPLATE = (
    "<s>{% for message in messages %}{% set mark = 'SYSTEM_PROMPT' if message['role'] == 'system' else 'INST' %}"
    "[{{ mark }}]{% for block in message['content'] %}{{ block['text'] }}{% endfor %}[/{{ mark }}]{% endfor %}"
)


def tokenizer() -> Any:
    """One token per byte, in the form of Qwen's."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2TokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    found = Qwen2TokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=4096
    )
    found.chat_template = TEMPLATE
    return found


def mistral_tokenizer() -> Any:
    """One token per byte, in the form of Mistral's: it begins a text with a token of its own."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens([AddedToken(word, special=True) for word in MISTRAL])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    found = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>", padding_side="left"
    )
    found.chat_template = DEV_TEMPLATE
    return found


def drawn(module: torch.nn.Module, seed: int = 0, scale: float = 1.0) -> Any:
    """The module with random weights that keep the size of what goes through it, so that pictures are not flat."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                inputs = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale / inputs**0.5)
            elif name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.float().eval().requires_grad_(False)


def qwen3(layers: int, width: int = 32) -> Any:
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=1024,
    )
    return drawn(Qwen3Model(config), 1)


def mistral3(layers: int, width: int = 32) -> Any:
    """It sees images, which FLUX.2-dev does not use."""
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = {"vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": 2 * width, "head_dim": 16}
    text |= {"num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": None}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"head_dim": 16, "image_size": 28, "patch_size": 14, "vocab_size": VOCABULARY}
    config = Mistral3Config(text_config=text, vision_config=vision, image_token_index=262, tie_word_embeddings=False)
    return drawn(Mistral3ForConditionalGeneration(config), 1)


def scheduler(**config: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**config)


TRANSFORMERS = {
    "flux2": (
        "Flux2Transformer2DModel",
        {
            "in_channels": 16,
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 96,
            "axes_dims_rope": (4, 4, 4, 4),
            "guidance_embeds": False,
        },
    ),
    "chroma": (
        "ChromaTransformer2DModel",
        {
            "in_channels": 64,
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "axes_dims_rope": (4, 6, 6),
            "approximator_num_channels": 16,
            "approximator_hidden_dim": 32,
            "approximator_layers": 2,
        },
    ),
    "z_image": (
        "ZImageTransformer2DModel",
        {
            "in_channels": 4,
            "dim": 32,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 32,
            "axes_dims": [4, 6, 6],
            "axes_lens": [256, 32, 32],
        },
    ),
    "qwen_image": (
        "QwenImageTransformer2DModel",
        {
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "axes_dims_rope": (4, 6, 6),
        },
    ),
}


def transformer(family: str, **config: Any) -> Any:
    """The transformer of a family; `config`: in which it differs."""
    import diffusers

    name, usual = TRANSFORMERS[family]
    return drawn(getattr(diffusers, name)(**(usual | config)))


def flux2(folder: Path, distilled: bool) -> Any:
    """Saves a FLUX.2 klein and returns diffusers' pipeline of it."""
    from diffusers import Flux2KleinPipeline

    return _saved(
        Flux2KleinPipeline(**_flux2_parts(), text_encoder=qwen3(30), tokenizer=tokenizer(), is_distilled=distilled),
        folder,
    )


def flux2_kept(folder: Path) -> Any:
    """Saves a FLUX.2 klein with kept references and returns diffusers' pipeline of it."""
    from diffusers import Flux2KleinKVPipeline

    return _saved(Flux2KleinKVPipeline(**_flux2_parts(), text_encoder=qwen3(30), tokenizer=tokenizer()), folder)


def flux2_dev(folder: Path) -> Any:
    """Saves a FLUX.2-dev and returns diffusers' pipeline of it."""
    from diffusers import Flux2Pipeline

    parts = _flux2_parts(guidance_embeds=True)
    return _saved(Flux2Pipeline(**parts, text_encoder=mistral3(33), tokenizer=mistral_tokenizer()), folder)


def _flux2_parts(**config: Any) -> dict[str, Any]:
    from diffusers import AutoencoderKLFlux2

    vae = drawn(
        AutoencoderKLFlux2(
            block_out_channels=(16, 16, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4
        ),
        2,
    )
    generator = torch.Generator().manual_seed(3)
    vae.bn.running_mean.copy_(torch.randn(16, generator=generator) * 0.2)
    vae.bn.running_var.copy_(torch.rand(16, generator=generator) + 0.5)
    return {
        "scheduler": scheduler(shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15),
        "vae": vae,
        "transformer": transformer("flux2", **config),
    }


def chroma(folder: Path) -> Any:
    """Saves a Chroma and returns diffusers' pipeline of it."""
    from diffusers import ChromaPipeline
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    encoder = T5Config(
        vocab_size=330, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    pipeline = ChromaPipeline(
        scheduler=scheduler(shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15),
        vae=drawn(vae(16), 2),
        text_encoder=drawn(T5EncoderModel(encoder), 1),
        tokenizer=AutoTokenizer.from_pretrained(TINY / "tokenizer_2"),
        transformer=transformer("chroma"),
    )
    return _saved(pipeline, folder)


def z_image(folder: Path) -> Any:
    """Saves a Z-Image and returns diffusers' pipeline of it."""
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline(
        scheduler=scheduler(shift=3.0),
        vae=drawn(vae(4), 2),
        text_encoder=qwen3(3),
        tokenizer=tokenizer(),
        transformer=transformer("z_image"),
    )
    return _saved(pipeline, folder)


def qwen_image(folder: Path) -> Any:
    """Saves a Qwen-Image and returns diffusers' pipeline of it."""
    from diffusers import QwenImagePipeline

    return _saved(QwenImagePipeline(**_qwen_parts()), folder)


FEW = (28 * 28, 28 * 28 * 64)


def qwen_edit(folder: Path, pixels: int, plus: bool = True, looks: tuple[int, int] = FEW, **config: Any) -> Any:
    """Saves a Qwen-Image-Edit and returns diffusers' pipeline of it. `pixels`: of its input images; `looks`: how many
    of them its text encoder sees, from and to; `config`: of its transformer."""
    from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline

    kind = QwenImageEditPlusPipeline if plus else QwenImageEditPipeline
    pipeline = _saved(kind(**_qwen_parts(**config), processor=processor(looks)), folder)
    own = {"pixels": pixels, "reference_pixels": pixels, "width": 64, "height": 64}
    (folder / "fastgen.json").write_text(json.dumps(own))
    return pipeline


def processor(looks: tuple[int, int] = FEW) -> Any:
    """Qwen2-VL's, without videos, for which it needs torchvision."""
    from transformers import Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    class Processor(Qwen2VLProcessor):
        def get_attributes(*_):
            return ["image_processor", "tokenizer"]

        def __init__(self, image_processor=None, tokenizer=None, **more):
            super().__init__(image_processor, tokenizer, **more)

    images = Qwen2VLImageProcessorPil(size={"shortest_edge": looks[0], "longest_edge": looks[1]})
    return Processor(images, tokenizer())


def _qwen_parts(**config: Any) -> dict[str, Any]:
    from diffusers import AutoencoderKLQwenImage
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    statistics = torch.randn(4, generator=torch.Generator().manual_seed(4))
    made = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=(statistics * 0.2).tolist(),
        latents_std=(statistics.abs() + 0.5).tolist(),
    )
    language = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"},
            "max_position_embeddings": 2048,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        image_token_id=IMAGE_TOKEN,
        video_token_id=256 + SPECIAL.index("<|video_pad|>"),
        vision_start_token_id=256 + SPECIAL.index("<|vision_start|>"),
        vision_end_token_id=256 + SPECIAL.index("<|vision_end|>"),
    )
    return {
        "scheduler": scheduler(
            shift=1.0,
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=0.9,
            max_image_seq_len=8192,
            shift_terminal=0.02,
        ),
        "vae": drawn(made, 2),
        "text_encoder": drawn(Qwen2_5_VLForConditionalGeneration(language), 1),
        "tokenizer": tokenizer(),
        "transformer": transformer("qwen_image", **config),
    }


def vae(channels: int) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _saved(pipeline: Any, folder: Path) -> Any:
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
