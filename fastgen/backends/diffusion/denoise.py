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
from fastgen.backends.diffusion.load import Modules
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

    @torch.inference_mode()
    def run(self, samples: Iterable[Sample], most: int) -> None:
        """Give every sample its `latents`, `most` of them in a forward pass at a time."""
        with onload(self.modules, "transformer"):
            self._run(deque(samples), most)

    def _run(self, waiting: deque[Sample], most: int) -> None:
        group = _Group(self, [])
        while waiting or group.samples:
            if waiting and len(group.samples) < most:
                joining = [waiting.popleft() for _ in range(min(len(waiting), most - len(group.samples)))]
                group = _Group(self, group.samples + joining, group)
            group.step()
            if group.finished():
                group = _Group(self, [s for s in group.samples if s.latents is None], group)

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
            found = self._rope[key] = self.modules.transformer.pos_embed(torch.cat(ids).to(self.modules.device))
        return found


class _Group:
    """The samples that share the next forward pass, stacked; rebuilt whenever one leaves or joins."""

    def __init__(self, denoiser: Denoiser, samples: list[Sample], before: _Group | None = None):
        self.samples = samples
        if not samples:
            return
        modules = denoiser.modules
        device, dtype = modules.device, modules.dtype
        self.transformer, self.dtype = modules.transformer, dtype
        first = samples[0]
        tokens = first.noise.shape[0]
        known = {id(s): i for i, s in enumerate(before.samples)} if before is not None else {}
        self.at = [before.at[known[id(s)]] if id(s) in known else 0 for s in samples]
        self.x = torch.stack(
            [before.x[known[id(s)]] if id(s) in known else s.noise.to(device, torch.float32) for s in samples]
        )
        """(B, tokens, 64), always float32."""
        self.cache_states: list[CacheState] | None = None
        if (cache := modules.step_cache) is not None:
            self.cache_states = [
                before.cache_states[known[id(s)]] if id(s) in known else CacheState(cache, s.steps) for s in samples
            ]
        longest = max(s.steps for s in samples) + 1
        sigmas = torch.zeros(len(samples), longest)
        for row, sample in zip(sigmas, samples, strict=True):
            row[: sample.steps + 1] = denoiser.sigmas(sample.steps, tokens)
        self.sigmas = sigmas
        self.pooled = torch.stack([s.prompt.pooled for s in samples])
        self.text = self.transformer.context_embedder(torch.stack([s.prompt.embeds for s in samples]))
        self.guidance = None
        if self.transformer.config.guidance_embeds:
            self.guidance = torch.tensor([s.guidance for s in samples], device=device).to(dtype) * 1000
        self.rope = denoiser.rope(self.text.shape[1], (first.width, first.height), first.reference_size)
        self.reference = None
        if first.reference is not None:
            self.reference = self.transformer.x_embedder(torch.stack([s.reference for s in samples]).to(dtype))
        self.masked = [i for i, s in enumerate(samples) if s.repaint is not None]

    def step(self) -> None:
        """One forward pass and one Euler step of the flow for every sample."""
        rows = range(len(self.samples))
        now = torch.stack([self.sigmas[i, self.at[i]] for i in rows])
        after = torch.stack([self.sigmas[i, self.at[i] + 1] for i in rows])
        velocity = self._velocity(now)
        self.x = self.x + (after - now).to(self.x.device)[:, None, None] * velocity.float()
        for i in self.masked:  # outside the mask: the original, noised to the level now reached
            sample, sigma = self.samples[i], after[i].item()
            kept = (1 - sigma) * sample.keep.float() + sigma * sample.noise.to(self.x.device)
            self.x[i] = torch.where(sample.repaint.bool(), self.x[i], kept)
        self.at = [at + 1 for at in self.at]

    def finished(self) -> bool:
        """Give the samples that took their last step their latents. Returns whether there were any."""
        ended = [i for i, s in enumerate(self.samples) if self.at[i] == s.steps]
        for i in ended:
            self.samples[i].latents = self.x[i]
            if self.cache_states is not None:
                self.samples[i].pattern = self.cache_states[i].pattern
        return bool(ended)

    def _velocity(self, sigma: torch.Tensor) -> torch.Tensor:
        """The transformer's prediction (B, tokens, 64) at noise levels `sigma` (B,), which are on the CPU.

        Equals `FluxTransformer2DModel.forward`, but what is constant over the steps is computed once, and the last
        layers run on the image's tokens only. The timestep is rounded as in diffusers' pipelines.
        """
        t = self.transformer
        timestep = (sigma.to(self.x.device) * 1000).to(self.dtype) / 1000 * 1000
        embedding = (
            t.time_text_embed(timestep, self.pooled)
            if self.guidance is None
            else t.time_text_embed(timestep, self.guidance, self.pooled)
        )
        hidden, text = t.x_embedder(self.x.to(self.dtype)), self.text
        tokens = hidden.shape[1]
        if self.reference is not None:
            hidden = torch.cat([hidden, self.reference], dim=1)
        if self.cache_states is None:
            hidden = self._blocks(self._all, hidden, text, embedding)[1][:, :tokens]
        else:
            hidden = self._blocks_with_cache(hidden, text, embedding, tokens, sigma)
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

    def _blocks_with_cache(self, hidden, text, embedding, tokens: int, sigma: torch.Tensor) -> torch.Tensor:
        """The image's tokens after all blocks: computed for samples whose first block requires it, else reused."""
        before = hidden[:, :tokens]
        text, hidden = self._blocks(self._all[:1], hidden, text, embedding)
        after = hidden[:, :tokens]
        levels = sigma.tolist()
        open_ones = [i for i, memory in enumerate(self.cache_states) if not memory.must_compute]
        skip = set()
        if open_ones:
            distances = torch.stack([self.cache_states[i].distance(after[i] - before[i], levels[i]) for i in open_ones])
            # One wait for the device per step, independent of the number of samples.
            for i, distance in zip(open_ones, distances.tolist(), strict=True):
                if distance <= self.cache_states[i].config.threshold:
                    skip.add(i)
        compute = [i for i in range(len(self.samples)) if i not in skip]
        rows = slice(None) if not skip else torch.tensor(compute, device=hidden.device)
        ended: dict[int, torch.Tensor] = {}
        if compute:
            _, full = self._blocks(self._all[1:], hidden[rows], text[rows], embedding[rows])
            for at, i in enumerate(compute):
                ended[i] = full[at, :tokens]
                self.cache_states[i].computed(after[i] - before[i], ended[i] - after[i], levels[i])
        for i in skip:
            ended[i] = after[i] + self.cache_states[i].skipped(levels[i])
        return torch.stack([ended[i] for i in range(len(self.samples))])


def position_ids(size: tuple[int, int], kind: int) -> torch.Tensor:
    """Position ids (tokens, 3) of an image: (kind, row, column) of each 16x16 patch."""
    width, height = size[0] // 16, size[1] // 16
    ids = torch.zeros(height, width, 3)
    ids[..., 0] = kind
    ids[..., 1] = torch.arange(height)[:, None]
    ids[..., 2] = torch.arange(width)[None, :]
    return ids.reshape(-1, 3)
