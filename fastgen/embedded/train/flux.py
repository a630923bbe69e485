"""Train the embedded FLUX on text-to-image and Kontext edits together, and write the diffusers folder.

Stages, in one run: the text encoders learn the grammar (`text.py`), the VAE's latents of the training pairs are made
once (`latents.py`), then the transformer learns to denoise (`flow.py`); at last guidance is distilled in, so that
`guidance` works without a second forward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from fastgen.embedded.train import latents
from fastgen.embedded.train import text as text_training
from fastgen.embedded.train.flow import FlowLoss
from fastgen.embedded.train.flux_folder import export, samples
from fastgen.embedded.train.forward import Meaning, PerSample, Positions, Velocity
from fastgen.embedded.train.loop import Trainer, rank
from fastgen.embedded.train.text import EDIT_LENGTH, LENGTH, Encoders

LR = 4e-3
DISTIL = 0.1
"""Steps that distil guidance after the others, as a share of those. They train only the guidance embedder, so what the
rest has learnt stays unchanged."""


def make() -> Any:
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=text_training.WIDTH,
        pooled_projection_dim=text_training.WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    with torch.no_grad():  # every block starts as the identity (source: DiT, Peebles and Xie 2023, "adaLN-Zero")
        for name, module in model.named_modules():
            if name.endswith(
                ("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear", "proj_out")
            ) and (name == "proj_out" or "norm" in name):
                module.weight.zero_()
                module.bias.zero_()
    return model


def matrices(name: str, weight: torch.Tensor) -> bool:
    return "transformer_blocks" in name and weight.dim() == 2 and "norm" not in name


def train(
    folder: Path,
    vae_folder: Path,
    out: Path,
    steps: int,
    seed: int,
    *,
    pairs: int = 12_000,
    text_steps: int = 500,
    compiled: bool = True,
    device: str = "cpu",
    start: Path | None = None,
) -> None:
    """Train with the checkpoint and the latents in `folder`, and write the whole FLUX folder to `out`.

    Args:
        start: a folder from an earlier training; this one starts from its weights, including the VAE.
    """
    torch.manual_seed(seed)
    encoders = _encoders(folder, start, text_steps, seed, device)
    vae = _frozen_vae(vae_folder if start is None else start / "vae", device)
    kept = _latents(vae, folder / "latents", pairs, seed)
    model = _transformer(start).to(device)
    usual = copy.deepcopy(model.attn_processors)
    model.set_attn_processor(PerSample())
    meaning = Meaning(model.inner_dim).to(device)
    modules = {"transformer": model, "clip": encoders.clip, "t5": encoders.t5, "meaning": meaning}
    slow = {"clip": 0.1, "t5": 0.1}

    def by_muon(name: str, weight: torch.Tensor) -> bool:
        return name.startswith("transformer.") and matrices(name, weight)

    trainer = Trainer(folder, modules, by_muon, LR, steps, cool=0.4, slow=slow)
    positions = {edit: Positions(model, EDIT_LENGTH if edit else LENGTH, edit) for edit in (False, True)}
    loss = FlowLoss(kept, encoders, positions, _velocity(model, compiled), meaning, steps, seed, device)

    def show(trainer: Trainer) -> str:
        export(out, model, usual, encoders, vae)
        model.set_attn_processor(PerSample())
        return samples(out, folder / "samples.png")

    trainer.train(loss, show, show_every_s=600)
    trainer.settle()
    distilled = _distil(folder / "distil", model, modules, loss, compiled)
    if not rank():
        print(show(distilled))
        print(f"wrote {out}")


def _encoders(folder: Path, start: Path | None, text_steps: int, seed: int, device: str) -> Encoders:
    """The encoders of `start`; else new ones, which are trained unless a checkpoint already has trained ones."""
    from transformers import CLIPTextModel, T5EncoderModel

    encoders = text_training.make()
    encoders.clip.to(device)
    encoders.t5.to(device)
    if start is not None:
        encoders.clip.load_state_dict(CLIPTextModel.from_pretrained(start / "text_encoder").state_dict())
        encoders.t5.load_state_dict(T5EncoderModel.from_pretrained(start / "text_encoder_2").state_dict())
    elif not (folder / "checkpoint.pt").exists():
        text_training.train(encoders, folder / "text", text_steps, seed)
    return encoders


def _frozen_vae(folder: Path, device: str) -> Any:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder).eval().requires_grad_(False)
    return vae.to(device, memory_format=torch.channels_last)


def _latents(vae: Any, folder: Path, pairs: int, seed: int) -> latents.Latents:
    """The first process makes them, then the others read them."""
    if rank():
        distributed.barrier()
    kept = latents.make(vae, folder, pairs, seed)
    if distributed.is_initialized() and not rank():
        distributed.barrier()
    return kept


def _transformer(start: Path | None) -> Any:
    from diffusers import FluxTransformer2DModel

    model = make()
    if start is not None:
        model.load_state_dict(FluxTransformer2DModel.from_pretrained(start / "transformer").state_dict())
    return model


def _velocity(model: nn.Module, compiled: bool) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    return torch.compile(Velocity(model), dynamic=False) if compiled else Velocity(model)


def _distil(folder: Path, model: Any, modules: dict[str, nn.Module], loss: FlowLoss, compiled: bool) -> Trainer:
    """Teach the guidance embedder what two passes of the current model would do. Freezes everything else."""
    loss.teach = _velocity(copy.deepcopy(model).eval().requires_grad_(False), compiled)
    for module in modules.values():
        module.requires_grad_(False)
    embedder = model.time_text_embed.guidance_embedder.requires_grad_(True)
    steps = int(DISTIL * loss.steps)
    distilled = Trainer(folder, {"guidance": embedder}, lambda _, w: w.dim() == 2, LR, steps, cool=1.0)
    distilled.train(loss)
    distilled.settle()
    return distilled
