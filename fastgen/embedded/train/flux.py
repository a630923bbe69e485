"""Train the embedded FLUX on text-to-image and Kontext edits together, and write the diffusers folder.

Stages, in one run: the text encoders learn the grammar (`text.py`), the VAE's latents of the training pairs are made
once (`latents.py`), then the transformer learns to denoise; at last guidance is distilled in, so that `guidance` works
without a second forward pass.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from pathlib import Path

import msgspec
import torch
from torch import distributed, nn

from fastgen.config.model_cards import Defaults
from fastgen.embedded.scenes import CANVASES, caption, describe
from fastgen.embedded.scenes.edits import say
from fastgen.embedded.train import latents
from fastgen.embedded.train import text as text_training
from fastgen.embedded.train.forward import Meaning, PerSample, Positions, Velocity, pick
from fastgen.embedded.train.latents import TOKENS
from fastgen.embedded.train.loop import Trainer, rank, rng_of
from fastgen.embedded.train.text import EDIT_LENGTH, LENGTH, Encoders
from fastgen.embedded.train.words import twins

LR = 4e-3
BATCH = 32
EDITS = 0.45
"""Share of steps that train edits."""
SHIFT = 3.0
"""Towards high noise, where text decides what becomes of a picture."""
ON_SHAPES = 4.0
"""Extra weight of tokens with a shape in them: most of a scene is flat background."""
FAR_PADDING = 480
"""Padding tokens that one may stand for in training: `max_sequence_length` up to 512."""
FAR_FROM = 0.72
"""Share of the steps before that begins: amid so much padding the shapes' words are learnt slowly or not at all."""
MEANING = 0.05
"""Weight of the loss by which the picture's tokens say what they are going to be (`forward.Meaning`)."""
SPARSE, SPARSE_TOKENS = 1.0, 44
"""For this share of the steps only so many tokens of a picture are computed: those with shapes in them and some of the
background, chosen anew each time, each of which attention counts for as many as were left out. Positions are absolute,
so the rest is not missed; more than a third of the time is saved."""
DISTIL = 0.1
"""Steps, as a share of the others and after them, that distil guidance. They train the guidance embedder alone:
whatever the rest has learnt stays as it is."""
MOST_GUIDANCE = 6.0
"""A guidance of g, up to this, stands for a second forward pass of the same classifier-free guidance scale."""
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


def make() -> nn.Module:
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
        start: a folder that an earlier training wrote; its weights, VAE and all, are where this one begins.
    """
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

    torch.manual_seed(seed)
    encoders = text_training.make()
    encoders.clip.to(device)
    encoders.t5.to(device)
    if start is not None:
        vae_folder = start / "vae"
        encoders.clip.load_state_dict(CLIPTextModel.from_pretrained(start / "text_encoder").state_dict())
        encoders.t5.load_state_dict(T5EncoderModel.from_pretrained(start / "text_encoder_2").state_dict())
    elif not (folder / "checkpoint.pt").exists():
        text_training.train(encoders, folder / "text", text_steps, seed)
    vae = AutoencoderKL.from_pretrained(vae_folder).eval().requires_grad_(False)
    vae.to(device, memory_format=torch.channels_last)
    if rank():  # the first process makes what the others then read
        distributed.barrier()
    kept = latents.make(vae, folder / "latents", pairs, seed)
    if distributed.is_initialized() and not rank():
        distributed.barrier()
    model = make()
    if start is not None:
        model.load_state_dict(FluxTransformer2DModel.from_pretrained(start / "transformer").state_dict())
    model.to(device)
    usual = copy.deepcopy(model.attn_processors)
    model.set_attn_processor(PerSample())
    meaning = Meaning(model.inner_dim).to(device)
    modules = {"transformer": model, "clip": encoders.clip, "t5": encoders.t5, "meaning": meaning}
    slow = {"clip": 0.1, "t5": 0.1}

    def by_muon(name: str, weight: torch.Tensor) -> bool:
        return name.startswith("transformer.") and matrices(name, weight)

    trainer = Trainer(folder, modules, by_muon, LR, steps, cool=0.4, slow=slow)
    learn = torch.compile(Velocity(model), dynamic=False) if compiled else Velocity(model)
    teach = None
    positions = {edit: Positions(model, EDIT_LENGTH if edit else LENGTH, edit) for edit in (False, True)}

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        encoders.limit()
        distils = teach is not None
        rng, generator = rng_of(seed + distils, step)
        edits = EDITS / 2 if distils else EDITS
        edit = random.Random(f"{seed}-{step}").random() < edits  # alike in all processes: none waits for another
        x0, reference, texts, weight, labels, outline, canvases = _batch(kept, encoders, rng, edit)
        chosen = counts = None
        if distils or step < SPARSE * steps:
            keys = torch.rand(weight.shape, generator=generator) * weight.bool() + (weight > 1)
            chosen = keys.topk(SPARSE_TOKENS).indices
            ground = (weight == 1).sum(1, keepdim=True)
            x0, weight = pick(x0, chosen), weight.gather(1, chosen)
            kept_ground = (weight == 1).sum(1, keepdim=True).clamp(min=1)
            counts = torch.where(weight == 1, ground / kept_ground, 1.0)
            labels = labels.gather(2, chosen[:, None].expand(-1, labels.shape[1], -1))
            outline = pick(outline, chosen)
            reference = None if reference is None else pick(reference, chosen)
        length = EDIT_LENGTH if edit else LENGTH
        pooled, tokens = encoders(texts, length)
        # Half as it is, half with up to FAR_PADDING tokens of padding more, evenly in the logarithm.
        far = FAR_PADDING ** (2 * torch.rand(BATCH, generator=generator) - 1).clamp(min=0)
        if not distils and step < FAR_FROM * steps:
            far = torch.ones(BATCH)
        where = positions[edit].of(canvases, far, chosen, counts)
        noise = torch.randn(x0.shape, generator=generator)
        u = torch.sigmoid(1.2 * torch.randn(BATCH, generator=generator))
        even = torch.rand(BATCH, generator=generator)
        sigma = torch.where(torch.rand(BATCH, generator=generator) < 0.8, SHIFT * u / (1 + (SHIFT - 1) * u), even)
        x = torch.lerp(x0, noise, sigma[:, None, None])
        guidance = 1 + (MOST_GUIDANCE - 1) * torch.rand(BATCH, generator=generator)
        x0, x, noise, sigma, guidance, weight, labels, outline = (
            t.to(device) for t in (x0, x, noise, sigma, guidance, weight, labels, outline)
        )
        reference = None if reference is None else reference.to(device)
        target = noise - x0
        if distils and not edit:
            guidance = torch.where(torch.rand(BATCH, generator=generator).to(device) < 0.2, 1.0, guidance)
            with torch.no_grad():
                one, (no_pooled, no_tokens) = torch.ones(BATCH, device=device), encoders([""], length)
                told, _ = teach(x, reference, tokens, pooled, sigma, one, *where)
                untold, _ = teach(
                    x,
                    reference,
                    no_tokens.expand_as(tokens).contiguous(),
                    no_pooled.expand_as(pooled).contiguous(),
                    sigma,
                    one,
                    *where,
                )
                target = target + (guidance - 1)[:, None, None] * (told - untold)
        velocity, half_way = learn(x, reference, tokens, pooled, sigma, guidance, *where)
        off = (velocity - target).pow(2).mean(2)
        value = (off * weight).sum() / weight.sum()
        name = "edit" if edit else "t2i"
        high = sigma > 0.85
        figures = {name: float(value.detach())}
        if high.any():
            figures[f"{name} high"] = float((off.detach() * weight)[high].sum() / weight[high].sum())
        if chosen is not None and not distils:
            said, known = meaning(half_way, labels, outline, weight)
            figures |= {f"{name} {part}": share for part, share in known.items()}
            value = value + MEANING * said
        return value, figures

    def show(trainer: Trainer) -> str:
        export(out, model, usual, encoders, vae)
        model.set_attn_processor(PerSample())
        return samples(out, folder / "samples.png")

    trainer.train(loss, show, show_every_s=600)
    trainer.settle()
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    teach = torch.compile(Velocity(teacher), dynamic=False) if compiled else Velocity(teacher)
    for module in modules.values():
        module.requires_grad_(False)
    embedder = model.time_text_embed.guidance_embedder.requires_grad_(True)
    distilled = Trainer(
        folder / "distil", {"guidance": embedder}, lambda _, w: w.dim() == 2, LR, int(DISTIL * steps), cool=1.0
    )
    distilled.train(loss)
    distilled.settle()
    if not rank():
        print(show(distilled))
        print(f"wrote {out}")


def _batch(kept: latents.Latents, encoders: Encoders, rng: random.Random, edit: bool):
    """Clean latents, references or None, texts, weights, labels and outlines of tokens, and canvases of one batch."""
    x0, reference, texts, weight, labels, outline, canvases = [], [], [], [], [], [], []
    while len(texts) < BATCH:
        index = rng.randrange(len(kept.pairs))
        scene, operation, _, after = kept.pairs[index]
        before, later, changes = kept.touched[index]
        if edit:
            if rng.random() < 0.06:  # told nothing, it changes nothing: what guidance then strengthens is the change
                texts.append("")
                shown = 0
                x0.append(kept.before[index])
                weight.append(before)
            else:
                texts.append(say(operation, scene, rng).text)
                shown = 1
                x0.append(kept.after[index])
                weight.append(before | later | changes)
            reference.append(kept.before[index])
        else:
            first = rng.random() < 0.5
            drawn = scene if first else after
            text = caption(drawn) if rng.random() < 0.1 else describe(drawn, rng).text
            if not encoders.fits(text, LENGTH):
                continue
            texts.append("" if rng.random() < 0.1 else text)
            x0.append((kept.before if first else kept.after)[index])
            weight.append(before if first else later)
            shown = 0 if first else 1
        labels.append(kept.labels[index, shown])
        outline.append(kept.outline[index, shown])
        canvases.append(index // latents.CHUNK % len(CANVASES))
    inside = torch.tensor([w // 16 * (h // 16) for w, h in CANVASES])[canvases]
    real = torch.arange(TOKENS)[None] < inside[:, None]
    weights = real * (1 + ON_SHAPES * torch.stack(weight))
    references = torch.stack(reference).float() if edit else None
    outlines = torch.stack(outline).float() / 255
    return torch.stack(x0).float(), references, texts, weights, torch.stack(labels).long(), outlines, canvases


def export(out: Path, model: nn.Module, processors: dict, encoders: Encoders, vae) -> None:
    """Write the whole FLUX.1 folder in diffusers' format, in float16."""
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
    for name, part in pipeline.components.items():  # where this VAE lay is nobody's business
        if hasattr(part, "register_to_config"):
            part.register_to_config(_name_or_path=f"fastgen-tiny-flux/{name}")
    pipeline.to(torch.float16).save_pretrained(out)
    (out / "fastgen.json").write_text(json.dumps(msgspec.to_builtins(DEFAULTS), indent=2) + "\n")
    for file in out.rglob("*"):  # save_pretrained writes weights that only their owner can read
        os.chmod(file, 0o755 if file.is_dir() else 0o644)


def samples(model: Path, sheet: Path, count: int = 40) -> str:
    """Draw and edit unseen scenes with diffusers' pipelines, keep them as a sheet, and say how many are right."""
    from fastgen.embedded.train.check import check_edits, check_prompts, contact_sheet

    drawn, pictures = check_prompts(model, count, shapes=1)
    two, more = check_prompts(model, count, shapes=2)
    edits, edited = check_edits(model, count)
    contact_sheet(pictures[:20] + more[:20] + edited[:40], sheet)
    return f"right: one shape {drawn}; two shapes {two}; edits {edits}"
