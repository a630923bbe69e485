"""A diffusers-format FLUX.1 folder -> Modules. Fails where a weight is missing instead of making one up.

They are in the CPU's memory; `opt` brings them onto the device, quantized or not.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fastgen.backends.diffusion import synthetic
from fastgen.config.model_cards import MODULES
from fastgen.config.optimizations import StepCache
from fastgen.config.settings import Settings
from fastgen.config.stamps import stamp
from fastgen.errors import ModelError
from fastgen.opt.quantized_cache import CachedWeights, find

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the main process has fetched all that is needed


@dataclass
class Modules:
    """diffusers' and transformers' own modules, in eval mode, to run on `device`. Changed by `opt` only."""

    transformer: torch.nn.Module
    vae: torch.nn.Module
    text_encoder: torch.nn.Module
    text_encoder_2: torch.nn.Module
    tokenizer: object
    tokenizer_2: object
    scheduler: object
    device: torch.device
    dtype: torch.dtype
    step_cache: StepCache | None = None
    """None: every step is computed in full."""
    quantized_cache: dict[str, CachedWeights] = field(default_factory=dict)
    """Where the quantized weights of a part are kept: if they are there, that part has none of its own yet."""
    away: tuple[str, ...] = ()
    """Which of them live in the CPU's memory and are on the device only while they are needed."""


def load(settings: Settings, device: torch.device) -> Modules:
    """Load the model that the settings name, with its LoRAs merged, to run on `device`. What `opt.quantize` is to take
    from an earlier start comes without weights.

    Raises:
        ModelError: a file is missing, damaged or does not fit; the message names it.
    """
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from diffusers.utils import logging as diffusers_logging
    from transformers import AutoTokenizer, CLIPTextModel, T5Config, T5EncoderModel
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    # It says at every product that it casts its input; all else that libraries say is in the engine's log.
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(lambda record: "will be cast" not in record.msg)
    dtype = getattr(torch, settings.engine.dtype)
    card = settings.model

    def part(name: str, cls):
        if card.synthetic:
            return synthetic.part(Path(card.path, name), cls, dtype, device)
        try:
            model, report = cls.from_pretrained(
                card.path, subfolder=name, torch_dtype=dtype, output_loading_info=True, local_files_only=True
            )
        except Exception as error:
            raise ModelError(f"--model {card.name}: cannot load {name} from {card.path}: {_brief(error)}") from error
        missing, mismatched = sorted(report["missing_keys"]), sorted(map(str, report.get("mismatched_keys") or ()))
        if missing or mismatched:
            raise ModelError(
                f"--model {card.name}: {name} lacks {len(missing)} weights and {len(mismatched)} have another shape "
                f"(first: {(missing + mismatched)[0]}); the folder is damaged or of another version"
            )
        return model

    def tokenizer(name: str):
        try:
            return AutoTokenizer.from_pretrained(card.path, subfolder=name, local_files_only=True)
        except Exception as error:
            raise ModelError(f"--model {card.name}: cannot load {name} from {card.path}: {_brief(error)}") from error

    def hollow(name: str, cls, config) -> torch.nn.Module:
        try:
            with torch.device("meta"):
                return cls(config)
        except Exception as error:
            raise ModelError(f"--model {card.name}: cannot load {name} from {card.path}: {_brief(error)}") from error

    sources = _sources(settings)
    if any(map(_touches_text_encoder, settings.engine.loras)):  # a file would be one half of what such a LoRA changes
        sources.pop("transformer", None)
    cache = find(settings.optimizations, sources, card.name, device)
    there = {name for name, one in cache.items() if one.is_there}
    if "transformer" in there:
        transformer = hollow(
            "transformer",
            FluxTransformer2DModel.from_config,
            FluxTransformer2DModel.load_config(card.path, subfolder="transformer"),
        )
    elif settings.engine.transformer:
        transformer = _single_file(settings.engine.transformer, card.path, dtype, FluxTransformer2DModel)
    else:
        transformer = part("transformer", FluxTransformer2DModel)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(card.path, subfolder="scheduler", local_files_only=True)
    if scheduler.config.get("stochastic_sampling") or scheduler.config.get("invert_sigmas"):
        raise ModelError(f"--model {card.name}: its scheduler samples stochastically or inverted; FLUX.1 does neither")
    if "text" in there:
        config = T5Config.from_pretrained(card.path, subfolder="text_encoder_2", local_files_only=True)
        text_encoder_2 = hollow("text_encoder_2", T5EncoderModel, config)
    else:
        text_encoder_2 = part("text_encoder_2", T5EncoderModel)
    pipeline = FluxPipeline(
        transformer=transformer,
        vae=part("vae", AutoencoderKL),
        scheduler=scheduler,
        text_encoder=part("text_encoder", CLIPTextModel),
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer("tokenizer"),
        tokenizer_2=tokenizer("tokenizer_2"),
    )
    if "transformer" not in there:
        _merge_loras(pipeline, settings.engine.loras)
    modules = {name: pipeline.components[name] for name in Modules.__annotations__ if name in MODULES}
    for module in modules.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    return Modules(**modules, device=device, dtype=dtype, quantized_cache=cache)


def _sources(settings: Settings) -> dict[str, dict]:
    """For each part whose quantized weights may be cached, all that decides the weights that are quantized."""
    if settings.model.synthetic:
        return {}
    both = {
        "model": settings.model.fingerprint,
        "dtype": settings.engine.dtype,
        "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }
    own = {
        "file": stamp(Path(settings.engine.transformer)) if settings.engine.transformer else "",
        "loras": [(stamp(Path(path)), scale) for path, scale in settings.engine.loras],
    }
    return {"transformer": both | own, "text": both}


def _touches_text_encoder(lora: tuple[str, float]) -> bool:
    from safetensors import safe_open

    try:
        with safe_open(lora[0], "pt") as file:
            return any("text_encoder" in key or "lora_te" in key for key in file.keys())  # noqa: SIM118
    except Exception:  # whoever loads it will say what is wrong with it
        return True


def _single_file(path: str, folder: str, dtype: torch.dtype, cls) -> torch.nn.Module:
    """Transformer weights in one file, in diffusers' naming or in Black Forest Labs' own."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, "pt") as file:
            own_naming = any(key.removeprefix("transformer.").startswith("transformer_blocks.") for key in file.keys())  # noqa: SIM118
        if not own_naming:
            return cls.from_single_file(path, config=folder, subfolder="transformer", torch_dtype=dtype)
        model = cls.from_config(cls.load_config(folder, subfolder="transformer")).to(dtype)
        model.load_state_dict({key.removeprefix("transformer."): w for key, w in load_file(path).items()}, strict=True)
        return model
    except Exception as error:  # a foreign file fails in diffusers' conversion in many ways
        raise ModelError(
            f"--transformer {path}: is no FLUX.1 transformer or does not fit the model in {folder}: {_brief(error)}"
        ) from error


def _merge_loras(pipeline, loras: tuple[tuple[str, float], ...]) -> None:
    """Add each LoRA's scaled product to the weights, so that it costs nothing per step."""
    if not loras:
        return
    names = []
    for index, (path, _) in enumerate(loras):
        name = f"lora{index}"
        before = len(pipeline.get_list_adapters().get("transformer", []))
        try:
            pipeline.load_lora_weights(path, adapter_name=name)
        except Exception as error:
            raise ModelError(f"--lora {path}: does not fit this model: {_brief(error)}") from error
        if len(pipeline.get_list_adapters().get("transformer", [])) == before:
            raise ModelError(f"--lora {path}: holds no weights for this model's transformer")
        names.append(name)
    pipeline.set_adapters(names, [scale for _, scale in loras])
    # By itself it takes the transformer only.
    pipeline.fuse_lora(components=["transformer", "text_encoder"], adapter_names=names)
    pipeline.unload_lora_weights()


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}{'...' if len(text) > 400 else ''}"
