"""Noise levels from a model's own scheduler, shifted by the size of the image on a straight line. Pure."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch


def sigmas(scheduler: Any, steps: int, tokens: int) -> torch.Tensor:
    """The steps + 1 noise levels of a schedule for an image of so many tokens, on the CPU."""
    if steps == 1:  # shifted or not; `shift_terminal` would divide by zero
        return torch.tensor([1.0, 0.0])
    scheduler = copy.deepcopy(scheduler)
    config = scheduler.config
    # Resolution-dependent shift, as in diffusers' `calculate_shift`.
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = base + (top - base) * (tokens - low) / (high - low)
    if config.get("use_flow_sigmas"):
        scheduler.set_timesteps(steps, mu=mu)
    else:
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    return scheduler.sigmas
