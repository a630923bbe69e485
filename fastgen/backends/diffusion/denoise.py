"""The step loop: noise -> latents, for text-to-image and Kontext alike, with state per sample.

diffusers' pipelines step a whole batch in lockstep. Here every sample has its own schedule, guidance and step, so
samples of different step counts share a forward pass, one that is finished leaves and a waiting one takes its place.
What does not change from step to step (text projection, positions, reference tokens) is computed once per grouping.
With a step cache every sample decides for itself at which steps it needs the whole transformer; those that do not leave
the batch for the rest of the step.

On the same inputs it computes what `FluxPipeline` and `FluxKontextPipeline` of diffusers compute.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from fastgen.backends.diffusion.encode import Prompt, pack
from fastgen.backends.diffusion.graphs import StepGraphs
from fastgen.backends.diffusion.load import Modules
from fastgen.backends.diffusion.transfer import upload
from fastgen.opt.offload import onload
from fastgen.opt.stepcache import CacheState

LATENT_CHANNELS = 16


@dataclass(eq=False)
class Sample:
    """One image in progress. All samples of a `denoise` call have the same sizes."""

    prompt: Prompt
    width: int
    height: int
    steps: int
    guidance: float
    noise: torch.Tensor
    """(tokens, 64), float32."""
    reference: torch.Tensor | None = None
    """(reference tokens, 64): the image to edit."""
    reference_size: tuple[int, int] = (0, 0)
    keep: torch.Tensor | None = None
    """(tokens, 64): latents to keep where `repaint` is 0."""
    repaint: torch.Tensor | None = None
    """(tokens, 64) of 0 and 1."""
    latents: torch.Tensor | None = field(default=None)
    """(tokens, 64), float32: the result."""
    pattern: str = ""
    """With a step cache one character per step: 1 computed in full, 0 taken from earlier steps."""


def make_noise(seed: int, width: int, height: int) -> torch.Tensor:
    """Packed noise (H/16 * W/16, 64), float32, on the CPU: the same on every device. It equals what diffusers draws
    with `generator=torch.Generator("cpu").manual_seed(seed)` in float32."""
    generator = torch.Generator("cpu").manual_seed(seed)
    shape = (1, LATENT_CHANNELS, 2 * (height // 16), 2 * (width // 16))
    return pack(torch.randn(shape, generator=generator, dtype=torch.float32))[0]


class Denoiser:
    def __init__(self, modules: Modules):
        self.modules = modules
        self._sigmas: dict[tuple[int, int], torch.Tensor] = {}
        self._rope: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}
        self.graphs = StepGraphs() if modules.cuda_graphs else None

    @torch.inference_mode()
    def run(self, samples: Iterable[Sample], most: int) -> None:
        """Give every sample its `latents`, `most` of them in a forward pass at a time. On a GPU the work is enqueued;
        only a step cache waits for it."""
        with onload(self.modules, "transformer"):
            self._run(deque(samples), most)

    def _run(self, waiting: deque[Sample], most: int) -> None:
        members: list[Member] = []
        while waiting or members:
            members += [Member(self, waiting.popleft()) for _ in range(min(len(waiting), most - len(members)))]
            group = Group(self, members)
            while not group.is_over:
                group.step()
            members = group.dissolve()

    def sigmas(self, steps: int, tokens: int) -> torch.Tensor:
        """The steps + 1 noise levels of a schedule, on the CPU, from the model's own scheduler."""
        if (steps, tokens) not in self._sigmas:
            scheduler = copy.deepcopy(self.modules.scheduler)
            config = scheduler.config
            # Resolution-dependent shift, as in diffusers' `calculate_shift`.
            low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
            base, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
            mu = base + (top - base) * (tokens - low) / (high - low)
            if config.get("use_flow_sigmas"):
                scheduler.set_timesteps(steps, mu=mu)
            else:
                scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
            self._sigmas[steps, tokens] = scheduler.sigmas
        return self._sigmas[steps, tokens]

    def rope(self, text: int, size: tuple[int, int], reference: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotary positions (cos, sin) for text, image and reference tokens, in that order."""
        key = (text, size, reference)
        found = self._rope.get(key)
        if found is None:
            ids = [torch.zeros(text, 3), position_ids(size, 0)]
            if reference != (0, 0):
                ids.append(position_ids(reference, 1))  # Kontext tells the reference from the image by the first axis
            if len(self._rope) > 64:
                self._rope.clear()
            found = self._rope[key] = self.modules.transformer.pos_embed(upload(torch.cat(ids), self.modules.device))
        return found


class Member:
    """What a sample takes from group to group, on the device."""

    def __init__(self, denoiser: Denoiser, sample: Sample):
        modules = denoiser.modules
        self.sample = sample
        self.at = 0
        """Steps it has taken."""
        self.noise = upload(sample.noise, modules.device, torch.float32)
        self.x = self.noise
        """(tokens, 64), float32: where it is now."""
        self.sigmas = denoiser.sigmas(sample.steps, sample.noise.shape[0])
        """The noise levels of its schedule, in main memory."""
        cache = modules.step_cache
        self.cache = CacheState(cache, sample.steps) if cache is not None else None


class Group:
    """Samples that share forward passes, from when they come together until the first of them has taken its last step.

    Everything is on the device, the schedules of all its steps too, so that a step reads nothing from main memory and
    tells it nothing.
    """

    def __init__(self, denoiser: Denoiser, members: list[Member]):
        modules = denoiser.modules
        self.members = members
        self.transformer, self.dtype, self.device = modules.transformer, modules.dtype, modules.device
        samples = [member.sample for member in members]
        first = samples[0]
        self.steps = min(member.sample.steps - member.at for member in members)
        """Steps that all of them still take together."""
        self.taken = 0
        self._lay_out_schedules()
        self.x = torch.stack([member.x for member in members])
        """(B, tokens, 64), always float32."""
        self.pooled = torch.stack([upload(s.prompt.pooled, self.device) for s in samples])
        embeds = torch.stack([upload(s.prompt.embeds, self.device) for s in samples])
        self.text = self.transformer.context_embedder(embeds)
        self.rope = denoiser.rope(self.text.shape[1], (first.width, first.height), first.reference_size)
        self.reference: torch.Tensor | None = None
        if first.reference is not None:
            self.reference = self.transformer.x_embedder(torch.stack([s.reference for s in samples]).to(self.dtype))
        self._lay_out_masks()
        self.graph = denoiser.graphs.of(self) if denoiser.graphs is not None else None

    def _lay_out_schedules(self) -> None:
        """One row per step, one column per sample, in a single copy to the device."""
        host = torch.empty(self.steps + 2, len(self.members))
        for column, member in zip(host.unbind(1), self.members, strict=True):
            column[:-1] = member.sigmas[member.at : member.at + self.steps + 1]
            column[-1] = member.sample.guidance
        table = upload(host, self.device)
        sigmas = table[:-1]
        self.after = sigmas[1:]
        """(steps, B): the noise level after each step."""
        self.deltas = self.after - sigmas[:-1]
        self.timesteps = (sigmas[:-1] * 1000).to(self.dtype) / 1000 * 1000  # rounded as in diffusers' pipelines
        self.guidance = table[-1].to(self.dtype) * 1000 if self.transformer.config.guidance_embeds else None
        self.cached = self.members[0].cache is not None
        self.levels: list[list[float]] = host[:-1].tolist() if self.cached else []
        """With a step cache: the noise levels before each step, in main memory."""

    def _lay_out_masks(self) -> None:
        """What stays as it is outside the masks; a sample without a mask is repainted everywhere."""
        self.repaint: torch.Tensor | None = None
        if not any(member.sample.repaint is not None for member in self.members):
            return
        none = torch.ones_like(self.x[0], dtype=torch.bool)
        own = [(m.sample.repaint, m.sample.keep) for m in self.members]
        self.repaint = torch.stack([none if mask is None else mask.bool() for mask, _ in own])
        self.keep = torch.stack(
            [m.x if keep is None else keep.float() for m, (_, keep) in zip(self.members, own, strict=True)]
        )
        self.noise = torch.stack([member.noise for member in self.members])

    @property
    def is_over(self) -> bool:
        """Whether one of the samples has taken its last step."""
        return self.taken == self.steps

    def step(self) -> None:
        """One forward pass and one Euler step of the flow for every sample. Enqueued, without waiting for the device;
        with a step cache it waits once."""
        at = self.taken
        if self.graph is not None:
            self.x = self.graph.step(self)
        else:
            self.x = self.advanced(self.timesteps[at], self.deltas[at], self.after[at])
        self.taken += 1

    def advanced(self, timestep: torch.Tensor, delta: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Where the samples are after a step (B, tokens, 64): `timestep`, `delta` and `after` are its rows (B,) of the
        schedules."""
        x = self.x + delta[:, None, None] * self._velocity(timestep).float()
        if self.repaint is None:
            return x
        # Outside the masks: the original, noised to the level now reached.
        sigma = after[:, None, None]
        return torch.where(self.repaint, x, (1 - sigma) * self.keep + sigma * self.noise)

    def dissolve(self) -> list[Member]:
        """Give the samples that took their last step their latents. Returns the others, for the next group."""
        places = self.x if self.graph is None else self.x.clone()  # the next group's graph writes there
        for member, x in zip(self.members, places.unbind(), strict=True):
            member.x = x
            member.at += self.taken
            if member.at == member.sample.steps:
                member.sample.latents = x
                member.sample.pattern = member.cache.pattern if member.cache is not None else ""
        return [member for member in self.members if member.sample.latents is None]

    def _velocity(self, timestep: torch.Tensor) -> torch.Tensor:
        """The transformer's prediction (B, tokens, 64) at these timesteps (B,).

        Equals `FluxTransformer2DModel.forward`, but what is constant over the steps is computed once, and the last
        layers run on the image's tokens only.
        """
        t = self.transformer
        embedding = (
            t.time_text_embed(timestep, self.pooled)
            if self.guidance is None
            else t.time_text_embed(timestep, self.guidance, self.pooled)
        )
        hidden, text = t.x_embedder(self.x.to(self.dtype)), self.text
        tokens = hidden.shape[1]
        if self.reference is not None:
            hidden = torch.cat([hidden, self.reference], dim=1)
        if self.cached:
            hidden = self._blocks_with_cache(hidden, text, embedding, tokens)
        else:
            hidden = self._blocks(self._all, hidden, text, embedding)[1][:, :tokens]
        return t.proj_out(t.norm_out(hidden, embedding))

    @property
    def _all(self) -> tuple[torch.nn.Module, ...]:
        return (*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks)

    def _blocks(self, blocks, hidden, text, embedding) -> tuple[torch.Tensor, torch.Tensor]:
        """(text tokens, image and reference tokens) after these blocks."""
        for block in blocks:
            text, hidden = block(
                hidden_states=hidden, encoder_hidden_states=text, temb=embedding, image_rotary_emb=self.rope
            )
        return text, hidden

    def _blocks_with_cache(self, hidden, text, embedding, tokens: int) -> torch.Tensor:
        """The image's tokens after all blocks: computed for samples whose first block requires it, else reused."""
        before = hidden[:, :tokens]
        text, hidden = self._blocks(self._all[:1], hidden, text, embedding)
        after = hidden[:, :tokens]
        levels, states = self.levels[self.taken], [member.cache for member in self.members]
        open_ones = [i for i, state in enumerate(states) if not state.must_compute]
        skip = set()
        if open_ones:
            distances = torch.stack([states[i].distance(after[i] - before[i], levels[i]) for i in open_ones])
            # One wait for the device per step, independent of the number of samples.
            for i, distance in zip(open_ones, distances.tolist(), strict=True):
                if distance <= states[i].config.threshold:
                    skip.add(i)
        compute = [i for i in range(len(states)) if i not in skip]
        rows = slice(None) if not skip else upload(torch.tensor(compute), self.device)
        ended: dict[int, torch.Tensor] = {}
        if compute:
            _, full = self._blocks(self._all[1:], hidden[rows], text[rows], embedding[rows])
            for at, i in enumerate(compute):
                ended[i] = full[at, :tokens]
                states[i].computed(after[i] - before[i], ended[i] - after[i], levels[i])
        for i in skip:
            ended[i] = after[i] + states[i].skipped(levels[i])
        return torch.stack([ended[i] for i in range(len(states))])


def position_ids(size: tuple[int, int], kind: int) -> torch.Tensor:
    """Position ids (tokens, 3) of an image: (kind, row, column) of each 16x16 patch."""
    width, height = size[0] // 16, size[1] // 16
    ids = torch.zeros(height, width, 3)
    ids[..., 0] = kind
    ids[..., 1] = torch.arange(height)[:, None]
    ids[..., 2] = torch.arange(width)[None, :]
    return ids.reshape(-1, 3)
