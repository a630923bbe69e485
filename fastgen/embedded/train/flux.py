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

from fastgen.backends.flux.denoise import position_ids
from fastgen.embedded.scenes import CANVASES, caption, describe
from fastgen.embedded.scenes.edits import say
from fastgen.embedded.train import latents as data
from fastgen.embedded.train import text as text_training
from fastgen.embedded.train.latents import TOKENS
from fastgen.embedded.train.loop import Trainer, rank, rng_of
from fastgen.embedded.train.text import EDIT_LENGTH, LENGTH, Encoders
from fastgen.embedded.train.words import twins
from fastgen.models import Defaults

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
MEANING, OUTLINE = 0.05, 0.5
"""Weights of two more losses, by which the picture's tokens, half-way through the transformer, say of what shape they are
going to be, and which parts of them it covers: they teach which words to look at, and what a kind looks like at a place
(after REPA, Yu et al. 2024, with what is known of the scene for the features)."""
SPARSE, SPARSE_TOKENS = 1.0, 44
"""For this share of the steps only so many tokens of a picture are computed: those with shapes in them and some of the
background, chosen anew each time, each of which attention counts for as many as were left out. Positions are absolute, so
the rest is not missed; more than a third of the time is saved."""
DISTIL = 0.1
"""Steps, as a share of the others and after them, that distil guidance. They train the guidance embedder alone: whatever the
rest has learnt stays as it is."""
MOST_GUIDANCE = 6.0
"""A guidance of g, up to this, stands for a second forward pass of the same classifier-free guidance scale."""
DEFAULTS = Defaults(
    steps=12, guidance=3.5, width=128, height=128, pixels=128 * 128, preferred_sizes=CANVASES, max_sequence_length=64,
    edits=True,
)  # fmt: skip


def make() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=2, num_single_layers=4, attention_head_dim=32, num_attention_heads=4,
        joint_attention_dim=text_training.WIDTH, pooled_projection_dim=text_training.WIDTH, guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )  # fmt: skip
    with torch.no_grad():  # every block starts as the identity (source: DiT, Peebles and Xie 2023, "adaLN-Zero")
        for name, module in model.named_modules():
            if name.endswith(("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear", "proj_out")) and (
                name == "proj_out" or "norm" in name
            ):
                module.weight.zero_()
                module.bias.zero_()
    return model


def matrices(name: str, weight: torch.Tensor) -> bool:
    return "transformer_blocks" in name and weight.dim() == 2 and "norm" not in name


class PerSample:
    """Attention in which positions and mask differ from sample to sample, so that all canvases share one batch.

    Takes (cos, sin, mask) where diffusers passes (cos, sin); otherwise `FluxAttnProcessor`.
    """

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, image_rotary_emb=None):
        cos, sin, mask = image_rotary_emb

        def heads(x):
            return x.unflatten(-1, (attn.heads, -1))

        query, key = attn.norm_q(heads(attn.to_q(hidden_states))), attn.norm_k(heads(attn.to_k(hidden_states)))
        value = heads(attn.to_v(hidden_states))
        if encoder_hidden_states is not None:
            text_query = attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states)))
            text_key = attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states)))
            query, key = torch.cat([text_query, query], 1), torch.cat([text_key, key], 1)
            value = torch.cat([heads(attn.add_v_proj(encoder_hidden_states)), value], 1)

        def turned(x):
            real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
            return x * cos + torch.stack([-imaginary, real], -1).flatten(-2) * sin

        mixed = nn.functional.scaled_dot_product_attention(
            turned(query).transpose(1, 2), turned(key).transpose(1, 2), value.transpose(1, 2), attn_mask=mask
        )
        mixed = mixed.transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return mixed
        length = encoder_hidden_states.shape[1]
        return attn.to_out[1](attn.to_out[0](mixed[:, length:])), attn.to_add_out(mixed[:, :length])


class Positions:
    """Rotary positions of every canvas, with text of `length` tokens and, for edits, a reference."""

    def __init__(self, model: nn.Module, length: int, edit: bool):
        cos, sin, self.padding = [], [], []
        for width, height in CANVASES:
            ids, filled = [torch.zeros(length, 3)], [torch.zeros(length)]
            for kind in range(1 + edit):
                grid = position_ids((width, height), kind)
                room = TOKENS - len(grid)
                ids.append(nn.functional.pad(grid, (0, 0, 0, room)))
                filled.append(nn.functional.pad(torch.zeros(len(grid)), (0, room), value=-1e4))
            found = model.pos_embed(torch.cat(ids).to(model.device))
            cos.append(found[0])
            sin.append(found[1])
            self.padding.append(torch.cat(filled))
        device = model.device
        self.cos, self.sin = torch.stack(cos).to(device), torch.stack(sin).to(device)
        self.padding = torch.stack(self.padding).to(device)
        self.length = length

    def of(
        self, canvases: list[int], far: torch.Tensor, chosen: torch.Tensor | None = None, counts: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(cos, sin, mask) for a batch; the last text token counts as `far` (B,) tokens, and of the picture's tokens only
        the `chosen` (B, N) are there, each of which counts as `counts` (B, N)."""
        cos, sin, mask = self.cos[canvases], self.sin[canvases], self.padding[canvases]
        mask[:, self.length - 1] = far.log().to(mask.device)
        if chosen is not None:
            pictures = (mask.shape[1] - self.length) // TOKENS
            text = torch.arange(self.length).expand(len(canvases), -1)
            index = torch.cat([text, *(self.length + i * TOKENS + chosen for i in range(pictures))], 1).to(mask.device)
            cos, sin, mask = _pick(cos, index), _pick(sin, index), mask.gather(1, index)
            mask[:, self.length :] += counts.log().to(mask.device).repeat(1, pictures)
        return cos[:, :, None], sin[:, :, None], mask[:, None, None, :]


def _pick(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(B, S, C), (B, N) -> (B, N, C)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


class Meaning(nn.Module):
    """What the picture's tokens are to say, half-way; thrown away after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lead = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.heads = nn.ModuleDict({part: nn.Linear(width, len(names) + 1) for part, names in data.PARTS.items()})
        self.outline = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 16))

    def forward(
        self, hidden: torch.Tensor, labels: torch.Tensor, outline: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and figures: the share of shapes' tokens that know their kind, and how far off the outline is.

        labels (B, parts, N), outline (B, N, 16) in 0..1, weight (B, N).
        """
        lead, covered = self.lead(hidden), self.outline(hidden)
        off = nn.functional.binary_cross_entropy_with_logits(covered, outline, reduction="none").mean(2)
        value = OUTLINE / MEANING * (off * weight).sum() / weight.sum()
        missed = (covered.detach().sigmoid() - outline).abs().mean(2)
        figures = {"outline": float((missed * weight).sum() / weight.sum())}
        for index, head in enumerate(self.heads.values()):
            logits = head(lead)
            off = nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, index], reduction="none")
            value = value + (off * weight).sum() / weight.sum()
            if index == 0:
                known = labels[:, 0] < len(data.PARTS["kind"])
                figures["kind"] = float((logits.argmax(-1) == labels[:, 0])[known].float().mean())
        return value, figures


class Velocity(nn.Module):
    """`FluxTransformer2DModel.forward` with `PerSample` attention; returns the picture's tokens only, and what they were
    half-way."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x, reference, text, pooled, sigma, guidance, cos, sin, mask):
        m = self.model
        embedding = m.time_text_embed(sigma * 1000, guidance * 1000, pooled)
        hidden, text = m.x_embedder(x if reference is None else torch.cat([x, reference], 1)), m.context_embedder(text)
        half_way = None
        for index, block in enumerate((*m.transformer_blocks, *m.single_transformer_blocks)):
            text, hidden = block(
                hidden_states=hidden, encoder_hidden_states=text, temb=embedding, image_rotary_emb=(cos, sin, mask)
            )
            if index == 2:
                half_way = hidden[:, : x.shape[1]]
        return m.proj_out(m.norm_out(hidden[:, : x.shape[1]], embedding)), half_way


def train(
    folder: Path, vae_folder: Path, out: Path, steps: int, seed: int, *, pairs: int = 12_000, text_steps: int = 500,
    compiled: bool = True, device: str = "cpu", start: Path | None = None,
) -> None:  # fmt: skip
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
    kept = data.make(vae, folder / "latents", pairs, seed)
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
            x0, weight = _pick(x0, chosen), weight.gather(1, chosen)
            kept_ground = (weight == 1).sum(1, keepdim=True).clamp(min=1)
            counts = torch.where(weight == 1, ground / kept_ground, 1.0)
            labels = labels.gather(2, chosen[:, None].expand(-1, labels.shape[1], -1))
            outline = _pick(outline, chosen)
            reference = None if reference is None else _pick(reference, chosen)
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
                untold, _ = teach(x, reference, no_tokens.expand_as(tokens).contiguous(),
                               no_pooled.expand_as(pooled).contiguous(), sigma, one, *where)  # fmt: skip
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
    distilled = Trainer(folder / "distil", {"guidance": embedder}, lambda _, w: w.dim() == 2, LR, int(DISTIL * steps), cool=1.0)
    distilled.train(loss)
    distilled.settle()
    if not rank():
        print(show(distilled))
        print(f"wrote {out}")


def _batch(kept: data.Latents, encoders: Encoders, rng: random.Random, edit: bool):
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
        canvases.append(index // data.CHUNK % len(CANVASES))
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
        shift=3.0, use_dynamic_shifting=True, base_shift=1.0, max_shift=1.15, base_image_seq_len=64,
        max_image_seq_len=4096,
    )  # fmt: skip
    pipeline = FluxPipeline(
        scheduler=scheduler, vae=copy.deepcopy(vae).to("cpu", memory_format=torch.contiguous_format),
        text_encoder=copy.deepcopy(encoders.clip).cpu(), tokenizer=encoders.tokenizer, text_encoder_2=t5,
        tokenizer_2=encoders.tokenizer_2, transformer=model,
    )  # fmt: skip
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
