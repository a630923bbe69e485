"""FLUX.2's noise levels, from the model's own scheduler. Pure."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch


def sigmas(scheduler: Any, steps: int, tokens: int) -> torch.Tensor:
    """The steps + 1 noise levels of a schedule for an image of so many tokens, on the CPU."""
    scheduler = copy.deepcopy(scheduler)
    mu = shift(tokens, steps)
    if scheduler.config.get("use_flow_sigmas"):
        scheduler.set_timesteps(steps, mu=mu)
    else:
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    return scheduler.sigmas


def shift(tokens: int, steps: int) -> float:
    """How far the noise levels are shifted: fitted to measurements, as in diffusers' `compute_empirical_mu`."""
    high = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return high
    low = 8.73809524e-05 * tokens + 1.89833333
    slope = (high - low) / 190.0
    return slope * steps + high - 200.0 * slope
