"""Muon: momentum with an orthogonalised update, for the matrices of a model. Everything else uses Adam.

Source: Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the update scaled
to Adam's size as in Moonshot's "Muon is scalable for LLM training" (2025). `torch.optim.Muon` does not take
convolutions, handles one matrix at a time and computes in bfloat16, which most CPUs must emulate; this one flattens
kernels and stacks matrices of one shape.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


def orthogonal(updates: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest orthogonal matrices to `updates` (N, rows, columns), roughly, by a quintic Newton-Schulz
    iteration."""
    tall = updates.size(-2) > updates.size(-1)
    x = updates.mT if tall else updates
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params: Iterable[torch.Tensor], lr: float, momentum: float = 0.95):
        super().__init__(list(params), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                alike.setdefault(tuple(update.shape), []).append((weight, update))
            for (rows, columns), pairs in alike.items():
                size = 0.2 * max(rows, columns) ** 0.5
                for (weight, _), update in zip(pairs, orthogonal(torch.stack([u for _, u in pairs])), strict=True):
                    weight.add_(update.view_as(weight), alpha=-group["lr"] * size)
