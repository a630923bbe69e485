"""The layers after a transformer's blocks: on which device of a replica they are. Does not know how blocks are
divided."""

from __future__ import annotations

from fastgen.opt.base import Modules


def end_at_home(modules: Modules) -> None:
    """Put them onto the first device. With a step cache many steps end after the first block, and would otherwise wait
    for the last device."""
    for name in modules.parts.after:
        getattr(modules.transformer, name).to(modules.device)
    modules.end_device = modules.device
