"""The training loop that all embedded models share: steps, rate, average of the weights, checkpoints, progress.

Under torchrun the processes share each step: every one computes a batch of its own, the gradients are averaged.

The data of a step come from a generator seeded by (seed, step) alone, so a run that was killed and continues from its
checkpoint sees the same data as an undisturbed one.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import distributed

from fastgen.embedded.train.muon import Muon

SAVE_EVERY_S = 60.0
REPORT_EVERY_S = 20.0


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def rng_of(seed: int, step: int) -> tuple[random.Random, torch.Generator]:
    """The two random generators of one step; every process has its own."""
    turn = rank() * 1_000_000_007
    return random.Random(f"{seed}-{step}-{turn}"), torch.Generator().manual_seed(seed * 1_000_003 + step + turn)


class Trainer:
    """Trains `modules` together and keeps an exponential average of their weights.

    Args:
        folder: where the checkpoint is; training continues from an existing one.
        matrices: names ("module.weight") of the weights that Muon trains; Adam has the others at half its rate.
        lr: the maximum rate of Muon.
        steps: of the whole training: 60 for warm-up; in the last share `cool` the rate goes down to 2 %.
        slow: factors on the rate of Adam's weights, by the prefix of their name.
    """

    def __init__(
        self,
        folder: Path,
        modules: dict[str, torch.nn.Module],
        matrices: Callable[[str, torch.Tensor], bool],
        lr: float,
        steps: int,
        *,
        cool: float = 0.4,
        average: float = 0.998,
        slow: dict[str, float] | None = None,
    ):
        self.checkpoint = folder / "checkpoint.pt"
        self.modules, self.steps, self.lr, self.cool, self.average = modules, steps, lr, cool, average
        self.named = {f"{m}.{n}": p for m, module in modules.items() for n, p in module.named_parameters()}
        muon = [p for n, p in self.named.items() if p.dim() >= 2 and matrices(n, p)]
        known = {id(p) for p in muon}
        groups: dict[float, list[torch.Tensor]] = {}
        for name, weight in self.named.items():
            if id(weight) not in known:
                factor = next((f for start, f in (slow or {}).items() if name.startswith(start)), 1.0)
                groups.setdefault(factor, []).append(weight)
        self.rest = [weight for weights in groups.values() for weight in weights]
        self.optimizers: list[torch.optim.Optimizer] = [Muon(muon, lr=lr)]
        self.optimizers.append(
            torch.optim.Adam([{"params": w, "factor": 0.5 * f} for f, w in groups.items()], lr=lr, betas=(0.9, 0.97))
        )
        self.averaged = {name: weight.detach().clone() for name, weight in self.named.items()}
        self.step = 0
        if self.checkpoint.exists():
            self._load()

    def train(
        self,
        loss: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
        show: Callable[[Trainer], str | None] | None = None,
        show_every_s: float = 300.0,
    ) -> None:
        """Take the remaining steps. `loss` gives the loss of a step and figures to report; `show` runs from time to
        time on the averaged weights and may return a line."""
        started = saved = reported = shown = time.monotonic()
        first = self.step
        figures: dict[str, list[float]] = {}
        while self.step < self.steps:
            self._set_rate()
            value, facts = loss(self.step)
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            value.backward()
            if distributed.is_initialized():
                self._average_gradients()
            torch.nn.utils.clip_grad_norm_(self.rest, 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self.step += 1
            with torch.no_grad():
                keep = min(self.average, self.step / (self.step + 10))
                torch._foreach_lerp_(list(self.averaged.values()), list(self.named.values()), 1 - keep)
            for name, fact in {"loss": float(value.detach()), **facts}.items():
                figures.setdefault(name, []).append(fact)
            now = time.monotonic()
            if rank():
                continue
            if now - reported > REPORT_EVERY_S or self.step == self.steps:
                reported = now
                means = "  ".join(f"{name} {sum(f) / len(f):.4f}" for name, f in sorted(figures.items()))
                pace = (now - started) / (self.step - first)
                left = pace * (self.steps - self.step) / 60
                print(f"step {self.step}/{self.steps}  {means}  {pace:.3f} s/step  {left:.0f} min left", flush=True)
                figures = {}
            if now - saved > SAVE_EVERY_S or self.step == self.steps:
                saved = now
                self.save()
            if show is not None and (now - shown > show_every_s or self.step == self.steps):
                with self.averages():
                    line = show(self)
                if line:
                    print(line, flush=True)
                shown = time.monotonic()

    def _average_gradients(self) -> None:
        gradients = [w.grad for w in self.named.values() if w.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def settle(self) -> None:
        """Leave the averaged weights in the modules."""
        for name, weight in self.named.items():
            weight.copy_(self.averaged[name])

    def averages(self) -> AbstractContextManager[None]:
        """A context in which the modules hold their averaged weights."""
        return _Swapped(self)

    def _set_rate(self) -> None:
        left = (self.steps - self.step) / max(1, self.cool * self.steps)
        rate = self.lr * min(1, (self.step + 1) / 60, 0.02 + 0.98 * left)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)

    def save(self) -> None:
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "step": self.step,
                "averaged": self.averaged,
                "modules": {name: module.state_dict() for name, module in self.modules.items()},
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            },
            partial,
        )
        os.replace(partial, self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.step, averaged = state["step"], state["averaged"]
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for name, weight in averaged.items():
            self.averaged[name].copy_(weight)
        print(f"continues from step {self.step} of {self.checkpoint}", flush=True)


class _Swapped(AbstractContextManager):
    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def __enter__(self) -> None:
        self._swap()
        for module in self.trainer.modules.values():
            module.eval()

    def __exit__(self, *_: object) -> None:
        self._swap()
        for module in self.trainer.modules.values():
            module.train()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.trainer.named.items():
            current = weight.detach().clone()
            weight.copy_(self.trainer.averaged[name])
            self.trainer.averaged[name].copy_(current)
