"""A FLUX.1 folder in diffusers format -> Modules. Fails if a weight is missing instead of inventing one.

The modules are in main memory; `opt` moves them onto the device, quantized or not.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastgen.backends.diffusion import single_file, synthetic
from fastgen.backends.diffusion.lora import merge
from fastgen.config.optimizations import StepCache
from fastgen.config.settings import Settings
from fastgen.config.stamps import stamp
from fastgen.errors import ModelError
from fastgen.input import weights
from fastgen.opt.parked import BlockStream, Parked
from fastgen.opt.quantized_cache import CachedWeights, find

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the main process has downloaded everything that is needed
PARTS = {"transformer": "transformer", "text": "text_encoder_2"}
"""Name in `Quantize` -> the module that can be quantized."""


@dataclass
class Modules:
    """The modules of diffusers and transformers, in eval mode, to run on `device`. Only `opt` changes them."""

    transformer: Any
    vae: Any
    text_encoder: Any
    text_encoder_2: Any
    tokenizer: Any
    tokenizer_2: Any
    scheduler: Any
    device: torch.device
    dtype: torch.dtype
    step_cache: StepCache | None = None
    """None: every step is computed in full."""
    quantized_cache: dict[str, CachedWeights] = field(default_factory=dict)
    """Where the quantized weights of a part are stored. If they exist, that part is created without weights."""
    away: tuple[str, ...] = ()
    """Which modules stay in main memory and are on the device only while they are needed."""
    parked: dict[str, Parked] = field(default_factory=dict)
    """Each of them: how it comes and leaves."""
    block_stream: BlockStream | None = None
    """With --offload group: how the transformer's blocks come."""
    cuda_graphs: bool = False
    """Whether a step of the loop is recorded and repeated."""


def load(settings: Settings, device: torch.device) -> Modules:
    """Load the model of the settings, with its LoRAs merged, to run on `device`. Parts whose quantized weights come
    from an earlier start are created without weights.

    Raises:
        ModelError: a file is missing, damaged or does not fit; the message names the file.
    """
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

    _let_libraries_speak()
    engine = settings.engine
    plans = weights.plan(settings.model.path, engine.transformer, engine.loras)
    cache = find(settings.optimizations, _sources(settings, plans), settings.model.name, device)
    folder = _Folder(settings, device, [PARTS[part] for part, cached in cache.items() if cached.is_there])
    if plans.transformer is not None and PARTS["transformer"] not in folder.hollow:
        transformer = folder.empty("transformer", FluxTransformer2DModel)
        single_file.fill(transformer, engine.transformer, plans.transformer, folder.dtype)
    else:
        transformer = folder.part("transformer", FluxTransformer2DModel)
    modules: dict[str, Any] = {
        "transformer": transformer,
        "vae": folder.part("vae", AutoencoderKL),
        "text_encoder": folder.part("text_encoder", CLIPTextModel),
        "text_encoder_2": folder.part("text_encoder_2", T5EncoderModel),
    }
    for module in modules.values():
        module.eval().requires_grad_(False)
    whole = {name: module for name, module in modules.items() if name not in folder.hollow}
    for (path, scale), plan in zip(engine.loras, plans.loras, strict=True):
        merge(path, plan, scale, whole)
    return Modules(
        **modules,
        tokenizer=folder.tokenizer("tokenizer"),
        tokenizer_2=folder.tokenizer("tokenizer_2"),
        scheduler=folder.scheduler(),
        device=device,
        dtype=folder.dtype,
        quantized_cache=cache,
    )


def _sources(settings: Settings, plans: weights.Plans) -> dict[str, dict]:
    """For each part whose quantized weights may be cached, all that decides the weights that are quantized."""
    if settings.model.synthetic:
        return {}
    here, engine = Path(__file__), settings.engine
    code = [here.with_name(f"{name}.py") for name in ("load", "lora", "single_file")]
    code += sorted(Path(weights.__file__).parent.glob("*.py"))
    decides = {
        "model": settings.model.fingerprint,
        "dtype": engine.dtype,
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in code],
    }
    files = {"transformer": stamp(Path(engine.transformer)) if engine.transformer else "", "text": ""}
    loras = list(zip(engine.loras, plans.loras, strict=True))
    return {
        part: decides
        | {
            "file": files[part],
            "loras": [(stamp(Path(path)), scale) for (path, scale), plan in loras if name in plan.parts],
        }
        for part, name in PARTS.items()
    }


class _Folder:
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

    def scheduler(self) -> Any:
        from diffusers import FlowMatchEulerDiscreteScheduler

        made = self._read("scheduler", FlowMatchEulerDiscreteScheduler.from_pretrained, local_files_only=True)
        if made.config.get("stochastic_sampling") or made.config.get("invert_sigmas"):
            raise ModelError(
                f"--model {self.card.name}: its scheduler samples stochastically or in reverse; FLUX.1 does neither"
            )
        return made

    def _read(self, name: str, read: Callable[..., Any], **how: Any) -> Any:
        try:
            return read(self.card.path, subfolder=name, **how)
        except Exception as error:
            text = " ".join(str(error).split())
            brief = f"{type(error).__name__}: {text[:400]}{'...' if len(text) > 400 else ''}"
            raise ModelError(f"--model {self.card.name}: cannot load {name} from {self.card.path}: {brief}") from error


def _let_libraries_speak() -> None:
    """To the engine's log, except progress bars and the line that bitsandbytes writes at every product."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(lambda record: "will be cast" not in record.msg)
