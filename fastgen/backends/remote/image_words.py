"""What a row says about how its images are made -> the parameters of image servers such as vLLM-Omni and SGLang-
Diffusion.
Sends nothing; does not know which server takes what.
"""

from __future__ import annotations

from typing import Any

from fastgen.types import Request

WORDS = {
    "seed": "seed",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "negative_prompt": "negative_prompt",
}
"""Name in a row -> name of the parameter."""
MAY_GO = (*WORDS.values(), "response_format", "output_format")
"""Parameters that a server may refuse."""
MOST_SEED = 2**31
"""Servers take seeds below it."""


def asked(request: Request) -> dict[str, Any]:
    """What the row or a flag sets, by the names of rows."""
    params = request.image_params
    found: dict[str, Any] = {
        name: getattr(params, name) for name in ("seed", "steps", "guidance") if name in request.asked
    }
    return found | ({"negative_prompt": request.negative_prompt} if request.negative_prompt else {})


def seed_of(request: Request, number: int = 0) -> int:
    """The seed of image `number`: the row's own, or the one that follows from the run's seed and the row's id."""
    return (request.image_params.seed + number) % MOST_SEED


def words(request: Request, number: int) -> dict[str, Any]:
    """The parameters for the images from `number` on. Every row has a seed."""
    found = asked(request) | {"seed": seed_of(request, number)}
    return {WORDS[name]: value for name, value in found.items()}


def left_out(request: Request, model: str) -> tuple[list[str], list[str]]:
    """(names, warnings) of what the row sets, for a service that takes none of it."""
    gone = list(asked(request))
    return gone, [f"{model} takes no {name}; it was left out" for name in gone]
