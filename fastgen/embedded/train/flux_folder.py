"""What training writes: the FLUX.1 folder in diffusers' format, and a sheet of what its model draws and edits."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import torch

from fastgen.config.model_cards import Defaults
from fastgen.embedded.scenes import CANVASES
from fastgen.embedded.train.text import Encoders
from fastgen.embedded.train.words import twins

DEFAULTS = Defaults(
    steps=12,
    guidance=3.5,
    width=128,
    height=128,
    pixels=128 * 128,
    preferred_sizes=CANVASES,
    max_sequence_length=64,
    edits=True,
)


def export(out: Path, model: Any, processors: dict, encoders: Encoders, vae: Any) -> None:
    """Write the complete FLUX.1 folder in diffusers' format, in float16."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    t5 = copy.deepcopy(encoders.t5).cpu()
    with torch.no_grad():
        for plain, capitalised in twins(encoders.tokenizer_2):
            t5.shared.weight[capitalised] = t5.shared.weight[plain]
    model = copy.deepcopy(model).cpu()
    model.set_attn_processor(dict(processors))
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=1.0,
        max_shift=1.15,
        base_image_seq_len=64,
        max_image_seq_len=4096,
    )
    pipeline = FluxPipeline(
        scheduler=scheduler,
        vae=copy.deepcopy(vae).to("cpu", memory_format=torch.contiguous_format),
        text_encoder=copy.deepcopy(encoders.clip).cpu(),
        tokenizer=encoders.tokenizer,
        text_encoder_2=t5,
        tokenizer_2=encoders.tokenizer_2,
        transformer=model,
    )
    shutil.rmtree(out, ignore_errors=True)
    for name, part in pipeline.components.items():  # do not store the path of this VAE
        if hasattr(part, "register_to_config"):
            part.register_to_config(_name_or_path=f"fastgen-tiny-flux/{name}")
    pipeline.to(torch.float16).save_pretrained(out)
    (out / "fastgen.json").write_text(json.dumps(msgspec.to_builtins(DEFAULTS), indent=2) + "\n")
    for file in out.rglob("*"):  # save_pretrained writes weights that only the owner can read
        os.chmod(file, 0o755 if file.is_dir() else 0o644)


def samples(model: Path, sheet: Path, count: int = 40) -> str:
    """Draw and edit unseen scenes with diffusers' pipelines, save them as a sheet, and say how many are right."""
    from fastgen.embedded.train.check import check_edits, check_prompts, contact_sheet

    drawn, pictures = check_prompts(model, count, shapes=1)
    two, more = check_prompts(model, count, shapes=2)
    edits, edited = check_edits(model, count)
    contact_sheet(pictures[:20] + more[:20] + edited[:40], sheet)
    return f"right: one shape {drawn}; two shapes {two}; edits {edits}"
