"""Batch and loss of a step for the embedded FLUX: noised pairs, and the distance of the velocity from the true one;
while guidance is distilled, from the result of a teacher's two passes. Does not know the loop or files."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from fastgen.embedded.scenes import CANVASES, caption, describe
from fastgen.embedded.scenes.edits import say
from fastgen.embedded.train import latents
from fastgen.embedded.train.forward import Meaning, Positions, pick
from fastgen.embedded.train.latents import TOKENS
from fastgen.embedded.train.loop import rng_of
from fastgen.embedded.train.text import EDIT_LENGTH, LENGTH, Encoders

BATCH = 32
EDITS = 0.45
"""Share of steps that train edits."""
SHIFT = 3.0
"""Prefers high noise, where the text decides what the image becomes."""
ON_SHAPES = 4.0
"""Extra weight of tokens that contain part of a shape, because most of a scene is flat background."""
FAR_PADDING = 480
"""How many padding tokens one token may stand for in training: `max_sequence_length` up to 512."""
FAR_FROM = 0.72
"""Share of the steps before that starts: with so much padding, the words for shapes are learnt slowly or not at all."""
MEANING = 0.05
"""Weight of the loss by which the image's tokens state what they will be (`forward.Meaning`)."""
SPARSE, SPARSE_TOKENS = 1.0, 44
"""In this share of the steps, only this many tokens of an image are computed: those with shapes, and some of the
background, which are chosen again each time and count in attention for those that were left out. Positions are
absolute, so the rest is not missed. This saves more than a third of the time."""
MOST_GUIDANCE = 6.0
"""A guidance of g, up to this value, replaces a second forward pass with the same classifier-free guidance scale."""


@dataclass(frozen=True)
class Batch:
    """B samples of N tokens each."""

    x0: torch.Tensor
    """Clean latents, (B, N, 64)."""
    reference: torch.Tensor | None
    """Latents of the image that is edited, (B, N, 64)."""
    texts: list[str]
    weight: torch.Tensor
    """(B, N): 0 outside of the canvas, 1 on the background, more where a shape is."""
    labels: torch.Tensor
    """(B, parts, N)."""
    outline: torch.Tensor
    """(B, N, 16), 0 to 1."""
    canvases: list[int]
    """Their positions in CANVASES."""

    def to(self, device: str) -> Batch:
        names = ("x0", "weight", "labels", "outline") + (() if self.reference is None else ("reference",))
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True)
class Noised:
    """A noised batch: (B, N, 64) if nothing else is said."""

    x: torch.Tensor
    target: torch.Tensor
    """The velocity from clean to noise."""
    sigma: torch.Tensor
    """(B,)."""
    guidance: torch.Tensor
    """(B,)."""


@dataclass
class FlowLoss:
    """The loss of a step, for `Trainer.train`.

    Args:
        positions: for t2i and for edits.
        learn: `forward.Velocity` of the model that is trained.
        steps: of the training without distillation; some things start at a share of them.
        teach: the same for a trained model, if guidance is to be distilled.
    """

    kept: latents.Latents
    encoders: Encoders
    positions: dict[bool, Positions]
    learn: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    meaning: Meaning
    steps: int
    seed: int
    device: str
    teach: Callable[..., tuple[torch.Tensor, torch.Tensor]] | None = None

    def __call__(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        self.encoders.limit()
        rng, generator = rng_of(self.seed + self.distils, step)
        edits = EDITS / 2 if self.distils else EDITS
        edit = random.Random(f"{self.seed}-{step}").random() < edits  # alike in all processes: none waits for another
        batch = draw_batch(self.kept, self.encoders, rng, edit)
        chosen = counts = None
        if self.distils or step < SPARSE * self.steps:
            batch, chosen, counts = thin(batch, generator)
        length = EDIT_LENGTH if edit else LENGTH
        pooled, tokens = self.encoders(batch.texts, length)
        where = self.positions[edit].of(batch.canvases, self._far(step, generator), chosen, counts)
        noised = noise(batch.x0, generator, self.device)
        batch = batch.to(self.device)
        if self.distils and not edit:
            noised = self._told(noised, batch, tokens, pooled, where, generator)
        velocity, half_way = self.learn(
            noised.x, batch.reference, tokens, pooled, noised.sigma, noised.guidance, *where
        )
        off = (velocity - noised.target).pow(2).mean(2)
        value = (off * batch.weight).sum() / batch.weight.sum()
        name = "edit" if edit else "t2i"
        figures = {name: float(value.detach())}
        high = noised.sigma > 0.85
        if high.any():
            figures[f"{name} high"] = float((off.detach() * batch.weight)[high].sum() / batch.weight[high].sum())
        if chosen is not None and not self.distils:
            said, known = self.meaning(half_way, batch.labels, batch.outline, batch.weight)
            figures |= {f"{name} {part}": share for part, share in known.items()}
            value = value + MEANING * said
        return value, figures

    @property
    def distils(self) -> bool:
        return self.teach is not None

    def _far(self, step: int, generator: torch.Generator) -> torch.Tensor:
        """How many tokens of padding the last one stands for, (B,): half unchanged, half with up to FAR_PADDING more,
        uniform in the logarithm."""
        far = FAR_PADDING ** (2 * torch.rand(BATCH, generator=generator) - 1).clamp(min=0)
        return far if self.distils or step >= FAR_FROM * self.steps else torch.ones(BATCH)

    @torch.no_grad()
    def _told(
        self,
        noised: Noised,
        batch: Batch,
        tokens: torch.Tensor,
        pooled: torch.Tensor,
        where: tuple[torch.Tensor, ...],
        generator: torch.Generator,
    ) -> Noised:
        """With the target of a guided pass: the teacher's result with the text, extrapolated from the one without."""
        assert self.teach is not None
        ones = torch.rand(BATCH, generator=generator).to(self.device) < 0.2
        guidance = torch.where(ones, 1.0, noised.guidance)
        one, (no_pooled, no_tokens) = torch.ones(BATCH, device=self.device), self.encoders([""], tokens.shape[1])
        no_tokens, no_pooled = no_tokens.expand_as(tokens).contiguous(), no_pooled.expand_as(pooled).contiguous()
        told, _ = self.teach(noised.x, batch.reference, tokens, pooled, noised.sigma, one, *where)
        untold, _ = self.teach(noised.x, batch.reference, no_tokens, no_pooled, noised.sigma, one, *where)
        target = noised.target + (guidance - 1)[:, None, None] * (told - untold)
        return replace(noised, guidance=guidance, target=target)


def thin(batch: Batch, generator: torch.Generator) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """The batch with SPARSE_TOKENS of each image, which ones, and how many each stands for, both (B, N)."""
    weight = batch.weight
    keys = torch.rand(weight.shape, generator=generator) * weight.bool() + (weight > 1)
    chosen = keys.topk(SPARSE_TOKENS).indices
    ground = (weight == 1).sum(1, keepdim=True)
    weight = weight.gather(1, chosen)
    kept_ground = (weight == 1).sum(1, keepdim=True).clamp(min=1)
    fewer = replace(
        batch,
        x0=pick(batch.x0, chosen),
        weight=weight,
        labels=batch.labels.gather(2, chosen[:, None].expand(-1, batch.labels.shape[1], -1)),
        outline=pick(batch.outline, chosen),
        reference=None if batch.reference is None else pick(batch.reference, chosen),
    )
    return fewer, chosen, torch.where(weight == 1, ground / kept_ground, 1.0)


def noise(x0: torch.Tensor, generator: torch.Generator, device: str) -> Noised:
    """Noise each sample of clean latents (B, N, 64) at its own noise level and guidance."""
    drawn = torch.randn(x0.shape, generator=generator)
    u = torch.sigmoid(1.2 * torch.randn(BATCH, generator=generator))
    even = torch.rand(BATCH, generator=generator)
    sigma = torch.where(torch.rand(BATCH, generator=generator) < 0.8, SHIFT * u / (1 + (SHIFT - 1) * u), even)
    x = torch.lerp(x0, drawn, sigma[:, None, None])
    guidance = 1 + (MOST_GUIDANCE - 1) * torch.rand(BATCH, generator=generator)
    return Noised(*(t.to(device) for t in (x, drawn - x0, sigma, guidance)))


def draw_batch(kept: latents.Latents, encoders: Encoders, rng: random.Random, edit: bool) -> Batch:
    """BATCH pairs: scenes and their texts, or edits and their results."""
    x0, reference, weight, labels, outline, canvases = [], [], [], [], [], []
    texts: list[str] = []
    while len(texts) < BATCH:
        index = rng.randrange(len(kept.pairs))
        scene, operation, _, after = kept.pairs[index]
        before, later, changes = kept.touched[index]
        if edit:
            if rng.random() < 0.06:  # no instruction, no change, so guidance strengthens only the change
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
    return Batch(torch.stack(x0).float(), references, texts, weights, torch.stack(labels).long(), outlines, canvases)
