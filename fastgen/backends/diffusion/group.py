"""Samples that share forward passes, with state per sample: noise levels, guidance, mask and step cache. Does not know
the architecture, or who comes and goes.

On the same inputs it computes what the pipelines of diffusers compute.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from fastgen.backends.diffusion import progressive
from fastgen.backends.diffusion.cached_blocks import through_cache
from fastgen.backends.diffusion.family import Family, Sample
from fastgen.backends.diffusion.transfer import upload
from fastgen.opt.stepcache import CacheState

if TYPE_CHECKING:
    from fastgen.backends.diffusion.graphs import StepGraphs


class Member:
    """What a sample takes from group to group, on the device."""

    def __init__(self, family: Family, sample: Sample):
        modules = family.modules
        self.sample = sample
        begun = sample.begun
        self.at = begun.small.steps if begun is not None else 0
        """Steps it has taken."""
        self.noise = upload(sample.noise, modules.device, torch.float32)
        self.x = begun.x if begun is not None else self.noise
        """(tokens, C), float32: where it is now."""
        self.sigmas = progressive.levels(family, sample)
        """The noise levels of its schedule, in main memory."""
        self.last = progressive.last_step(family, sample)
        """After so many steps it leaves."""
        cache = modules.step_cache
        self.cache = CacheState(cache, sample.steps - self.at) if cache is not None else None
        self.negative_cache = CacheState(cache, sample.steps - self.at) if cache is not None else None
        """That of its second pass."""

    @property
    def left(self) -> int:
        """Steps still to take, at this size."""
        return self.last - self.at


class Group:
    """Samples that share forward passes, from when they come together until one leaves or joins; at the latest when the
    first of them has taken its last step.

    Everything is on the device, the schedules of all its steps too, so that a step reads nothing from main memory and
    tells it nothing.
    """

    def __init__(self, family: Family, members: list[Member], graphs: StepGraphs | None = None):
        self.family = family
        self.members = members
        self.device = family.modules.device
        self.steps = min(member.left for member in members)
        """Steps that all of them still take together."""
        self.taken = 0
        guidance = self._lay_out_schedules()
        self.tokens = max(len(member.x) for member in members)
        self.x = torch.stack([self._filled(member.x) for member in members])
        """(B, tokens, C), always float32; filled with zeros where an image has fewer tokens than the largest."""
        samples = [member.sample for member in members]
        self.seconds = [at for at, sample in enumerate(samples) if sample.negative is not None]
        """Which samples go through the model twice, the second time with their negative prompt."""
        self.pairs: dict[str, torch.Tensor] = {}
        """If any does: `rows`, the sample of each row of the model; `second`, (B,), the row of a sample's second pass;
        `scale`, (B, 1, 1)."""
        if self.seconds:
            self.pairs = self._lay_out_pairs(samples)
            guidance = guidance[self.pairs["rows"]]
        twice = [replace(samples[at], prompt=samples[at].negative) for at in self.seconds]
        self.forward = family.forward(samples + twice, guidance)
        self.masks: dict[str, torch.Tensor] = {}
        """`repaint`, `keep` and `noise`, (B, tokens, C) each, if any of the samples has a mask."""
        self._lay_out_masks()
        self.graph = graphs.of(self) if graphs is not None else None

    def _lay_out_schedules(self) -> torch.Tensor:
        """One row per step, one column per sample, in a single copy to the device. Returns the guidance (B,)."""
        host = torch.empty(self.steps + 2, len(self.members))
        for column, member in zip(host.unbind(1), self.members, strict=True):
            column[:-1] = member.sigmas[member.at : member.at + self.steps + 1]
            column[-1] = member.sample.guidance
        table = upload(host, self.device)
        sigmas = table[:-1]
        self.after = sigmas[1:]
        """(steps, B): the noise level after each step."""
        self.deltas = self.after - sigmas[:-1]
        self.timesteps = self.family.timesteps(sigmas[:-1])
        self.cached = self.members[0].cache is not None
        self.levels: list[list[float]] = host[:-1].tolist() if self.cached else []
        """With a step cache: the noise levels before each step, in main memory."""
        return table[-1]

    def _lay_out_pairs(self, samples: list[Sample]) -> dict[str, torch.Tensor]:
        """Rows of the model: first all samples, then the second passes."""
        second = list(range(len(samples)))
        for row, at in enumerate(self.seconds, len(samples)):
            second[at] = row
        scale = [sample.cfg if sample.negative is not None else 1.0 for sample in samples]
        return {
            "rows": upload(torch.tensor([*range(len(samples)), *self.seconds]), self.device),
            "second": upload(torch.tensor(second), self.device),
            "scale": upload(torch.tensor(scale, dtype=torch.float32), self.device)[:, None, None],
        }

    def _lay_out_masks(self) -> None:
        """What stays as it is outside the masks; a sample without a mask is repainted everywhere."""
        if not any(member.sample.repaint is not None for member in self.members):
            return
        none = torch.ones_like(self.x[0], dtype=torch.bool)
        own = [(m.sample.repaint, m.sample.keep) for m in self.members]
        self.masks = {
            "repaint": torch.stack([none if mask is None else self._filled(mask.bool()) for mask, _ in own]),
            "keep": torch.stack(
                [
                    self._filled(m.x if keep is None else keep.float())
                    for m, (_, keep) in zip(self.members, own, strict=True)
                ]
            ),
            "noise": torch.stack([self._filled(member.noise) for member in self.members]),
        }

    def _filled(self, tokens: torch.Tensor) -> torch.Tensor:
        """With as many tokens as the largest image of the group."""
        missing = self.tokens - len(tokens)
        return torch.nn.functional.pad(tokens, (0, 0, 0, missing)) if missing else tokens

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
        """Where the samples are after a step (B, tokens, C): `timestep`, `delta` and `after` are its rows (B,) of the
        schedules."""
        x = self.x + delta[:, None, None] * self._velocity(timestep).float()
        if not self.masks:
            return x
        # Outside the masks: the original, noised to the level now reached.
        sigma = after[:, None, None]
        return torch.where(self.masks["repaint"], x, (1 - sigma) * self.masks["keep"] + sigma * self.masks["noise"])

    def dissolve(self) -> list[Member]:
        """Give the samples that took their last step their latents. Returns the others, for the next group."""
        places = self.x if self.graph is None else self.x.clone()  # the next group's graph writes there
        for member, x in zip(self.members, places.unbind(), strict=True):
            member.x = x[: len(member.noise)]
            member.at += self.taken
            if not member.left:
                sample = member.sample
                sample.latents, sample.memory = member.x, None
                before = sample.begun.pattern if sample.begun is not None else ""
                sample.pattern = before + member.cache.pattern if member.cache is not None else ""
        return [member for member in self.members if member.left]

    def _velocity(self, timestep: torch.Tensor) -> torch.Tensor:
        """The transformer's prediction (B, tokens, C) at these timesteps (B,)."""
        x, pairs = self.x, self.pairs
        if pairs:
            x, timestep = x[pairs["rows"]], timestep[pairs["rows"]]
        activations = self.forward.begin(x, timestep)
        if self.cached:
            caches = [m.cache for m in self.members] + [self.members[at].negative_cache for at in self.seconds]
            levels = self.levels[self.taken]
            levels = levels + [levels[at] for at in self.seconds]
            states = [cache for cache in caches if cache is not None]
            image = through_cache(self.forward, activations, states, levels)
        else:
            image = self.forward.blocks(activations, 0).image
        velocity = self.forward.end(image, activations)
        if not pairs:
            return velocity
        first, second = velocity[: len(self.members)], velocity[pairs["second"]]
        once = (pairs["second"] < len(self.members))[:, None, None]
        return torch.where(once, first, self.family.guided(first, second, pairs["scale"]))
