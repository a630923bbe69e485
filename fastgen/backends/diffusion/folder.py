"""A model folder in diffusers' format -> its parts, each a module of diffusers or transformers. Fails if a weight is
missing instead of inventing one. Does not know which parts a family has.

The modules are in main memory; `opt` moves them onto the device, quantized or not.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fastgen.backends.diffusion import synthetic
from fastgen.config.settings import Settings
from fastgen.errors import ModelError

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the main process has downloaded everything that is needed


class Folder:
    """The parts of a model in diffusers' format.

    Args:
        hollow: the parts whose weights come from elsewhere.
    """

    def __init__(self, settings: Settings, device: torch.device, hollow: list[str]):
        self.card = settings.model
        self.device = device
        self.hollow = hollow
        self.dtype: torch.dtype = getattr(torch, settings.engine.dtype)

    def part(self, name: str, cls: Any) -> torch.nn.Module:
        """A module with its weights in main memory, or without weights if they come from elsewhere."""
        if name in self.hollow:
            return self.empty(name, cls)
        if self.card.synthetic:
            return synthetic.part(Path(self.card.path, name), cls, self.dtype, self.device)
        model, report = self._read(
            name, cls.from_pretrained, torch_dtype=self.dtype, output_loading_info=True, local_files_only=True
        )
        missing, mismatched = sorted(report["missing_keys"]), sorted(map(str, report.get("mismatched_keys") or ()))
        if missing or mismatched:
            raise ModelError(
                f"--model {self.card.name}: {name} lacks {len(missing)} weights, and {len(mismatched)} have another "
                f"shape (first: {(missing + mismatched)[0]}); the folder is damaged or from another version"
            )
        return model

    def empty(self, name: str, cls: Any) -> torch.nn.Module:
        """A module without weights, on the meta device."""
        if hasattr(cls, "load_config"):  # diffusers
            config, make = self._read(name, cls.load_config), cls.from_config
        else:
            config, make = self._read(name, cls.config_class.from_pretrained, local_files_only=True), cls
        with torch.device("meta"):
            return make(config)

    def tokenizer(self, name: str) -> Any:
        from transformers import AutoTokenizer

        return self._read(name, AutoTokenizer.from_pretrained, local_files_only=True)

    def processor(self, name: str, cls: Any) -> Any:
        return self._read(name, cls.from_pretrained, local_files_only=True)

    def scheduler(self) -> Any:
        """The noise schedule of a flow that is stepped deterministically."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        made = self._read("scheduler", FlowMatchEulerDiscreteScheduler.from_pretrained, local_files_only=True)
        if made.config.get("stochastic_sampling") or made.config.get("invert_sigmas"):
            raise ModelError(
                f"--model {self.card.name}: its scheduler samples stochastically or in reverse; fastgen does neither"
            )
        return made

    def _read(self, name: str, read: Callable[..., Any], **how: Any) -> Any:
        try:
            return read(self.card.path, subfolder=name, **how)
        except Exception as error:
            text = " ".join(str(error).split())
            brief = f"{type(error).__name__}: {text[:400]}{'...' if len(text) > 400 else ''}"
            raise ModelError(f"--model {self.card.name}: cannot load {name} from {self.card.path}: {brief}") from error


def let_libraries_speak() -> None:
    """To the engine's log, except progress bars and the line that bitsandbytes writes at every product."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(lambda record: "will be cast" not in record.msg)
