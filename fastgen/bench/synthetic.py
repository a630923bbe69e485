"""Full-size FLUX.1 folders without weights, from the configs of the published models, to measure speed without the
weights. The engine fills such a model with random numbers (`backends/diffusion/synthetic.py`); its images are noise.

The figures are those of the published `config.json` files of FLUX.1-dev and FLUX.1-Kontext-dev. The tokenizers are
those of the embedded model: prompts become fewer and different tokens, but are padded to the usual number.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fastgen.config.families import KONTEXT_SIZES
from fastgen.config.model_cards import SCHEDULER, TINY

TASKS = {"flux-dev": "t2i", "flux-kontext": "edit"}
NAMES = tuple(TASKS)
PARAMETERS = 17e9
"""All parts together, approximately: transformer 11.9, T5 4.8, CLIP 0.12, VAE 0.08 billion."""
TRANSFORMER = {
    "_class_name": "FluxTransformer2DModel",
    "attention_head_dim": 128,
    "axes_dims_rope": [16, 56, 56],
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "patch_size": 1,
    "pooled_projection_dim": 768,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 16,
    "layers_per_block": 2,
    "mid_block_add_attention": True,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
CLIP = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 77,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
    "vocab_size": 49408,
    "bos_token_id": 784,
    "eos_token_id": 785,
    "pad_token_id": 785,
}
T5 = {
    "architectures": ["T5EncoderModel"],
    "model_type": "t5",
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "num_heads": 64,
    "num_layers": 24,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "vocab_size": 32128,
    "is_encoder_decoder": False,
    "use_cache": False,
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
SCHEDULE = {
    "_class_name": SCHEDULER,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}


def make(name: str, folder: Path, smaller: dict[str, dict] | None = None) -> Path:
    """Write the folder of a model.

    Args:
        name: one of NAMES.
        smaller: part -> values that differ from the published ones.
    """
    pipeline = "FluxKontextPipeline" if name == "flux-kontext" else "FluxPipeline"
    parts = {"transformer": TRANSFORMER, "vae": VAE, "text_encoder": CLIP, "text_encoder_2": T5}
    files = {
        "model_index.json": {"_class_name": pipeline},
        "scheduler/scheduler_config.json": SCHEDULE,
        # Otherwise edits would take the nearest of Kontext's sizes, as with the published model.
        "fastgen.json": {
            "synthetic": True,
            **({"edits": True, "preferred_sizes": KONTEXT_SIZES} if name == "flux-kontext" else {}),
        },
        **{f"{part}/config.json": config | (smaller or {}).get(part, {}) for part, config in parts.items()},
    }
    for path, value in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(TINY / part, folder / part, dirs_exist_ok=True)
    return folder
