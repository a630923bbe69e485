"""Whether images of a task and model can take their first steps at a smaller size."""

from __future__ import annotations

from fastgen.config.families import PARTS
from fastgen.config.model_cards import ModelCard
from fastgen.config.optimizations import Optimizations, source
from fastgen.errors import SettingsError
from fastgen.types import Task


def check(task: Task, card: ModelCard, chosen: Optimizations) -> None:
    """Raise SettingsError if they are to do so and cannot."""
    choice = chosen.progressive
    if choice.is_plain:
        return
    asked = f"{choice.as_flag()}{source(chosen.why.get(choice.flag, ''))}"
    if task != "t2i":
        raise SettingsError(
            f"{asked}: only t2i supports it, since the input images of an edit keep their size; leave it out"
        )
    if not PARTS[card.family].grows:
        raise SettingsError(f"{asked}: only FLUX.1 models support it, and {card.name} is not one; leave it out")
