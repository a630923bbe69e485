"""Steps that resemble earlier ones reuse their work. Each sample decides for itself.

What: the first block of the transformer runs at every step. What it adds to a sample's image tokens is compared with
what is expected from the steps that were computed in full. If the two are close enough, the contribution of the other
blocks is taken from those steps too (`first-block`: unchanged; `taylorseer`: extrapolated on a straight line through
the last two). Otherwise these blocks run. How much: docs/optimizations.md.
Quality: lossy, depending on the threshold.
When not: with few steps (FLUX.1-schnell takes 4), which hardly resemble each other.

The decision uses only the sample's own image tokens, in float32. So it is the same alone and in any batch, except for
rounding: a distance that equals the threshold up to rounding can fall to either side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Optimizations, StepCache
from fastgen.opt.base import Modules
from fastgen.opt.stages import end_at_home

if TYPE_CHECKING:
    import torch


def refuse(gpu: Gpu | None, choice: StepCache, others: Optimizations) -> str | None:
    return None


def apply(modules: Modules, choice: StepCache) -> dict:
    """The step loop reads it."""
    modules.step_cache = choice
    if modules.stages:
        end_at_home(modules)
    return {"cache": f"{choice.kind}:{choice.threshold:g}"}


class CacheState:
    """What one sample remembers about its own steps."""

    def __init__(self, config: StepCache, steps: int):
        self.config = config
        self.steps = steps
        self.pattern = ""
        """One character per step: 1 computed, 0 not."""
        self._computed: list[tuple[float, torch.Tensor, torch.Tensor]] = []
        """(noise level, what the first block added, what the others added), the last order + 1 of them."""

    @property
    def must_compute(self) -> bool:
        """Whether this step is computed in any case: the first, the last, and the one after too many that were not."""
        at, most = len(self.pattern), self.config.most_skips
        few = len(self._computed) <= self.config.order
        return few or at + 1 >= self.steps or self.pattern.endswith("0" * most)

    def distance(self, first: torch.Tensor, sigma: float) -> torch.Tensor:
        """Relative distance from what the first block adds now (tokens, width) to what was expected: a float32
        scalar."""
        return distances(self.sums(first, sigma))

    def sums(self, first: torch.Tensor, sigma: float) -> torch.Tensor:
        """What the distance is made of (2,), float32: the difference to what was expected, and that, each summed up
        over the tokens."""
        expected = self._carry(1, sigma).float()
        import torch

        return torch.stack([(first.float() - expected).abs().sum(), expected.abs().sum()])

    def computed(self, first: torch.Tensor, rest: torch.Tensor, sigma: float) -> None:
        """Record a step that was computed in full."""
        self.pattern += "1"
        self._computed = [*self._computed, (sigma, first, rest)][-self.config.order - 1 :]

    def skipped(self, sigma: float) -> torch.Tensor:
        """What the other blocks would add at this step."""
        self.pattern += "0"
        return self._carry(2, sigma)

    def _carry(self, which: Literal[1, 2], sigma: float) -> torch.Tensor:
        last = self._computed[-1]
        if self.config.order == 0:
            return last[which]
        before = self._computed[-2]
        return last[which] + (last[which] - before[which]) * ((sigma - last[0]) / (last[0] - before[0]))


def distances(sums: torch.Tensor) -> torch.Tensor:
    """(..., 2) as `CacheState.sums` returns them -> (...)."""
    return sums[..., 0] / sums[..., 1].clamp_min(1e-12)
