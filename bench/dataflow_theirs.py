"""DataFlow-MM's own LocalImageGenServing as the baseline, from a checkout of it; without one, a loop that does the
same.

The rest of their package is not needed and not imported: the few names that the two files use from it are replaced.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import types
from pathlib import Path
from typing import Any


def load(checkout: str, model: str, out: Path, batch: int, side: int, steps: int, guidance: float, tokens: int) -> Any:
    """A serving with `generate_from_input(prompts)`, its model loaded.

    Args:
        checkout: "" for the loop of this file.
        tokens: text tokens; 0 leaves it to the pipeline, as their calls do.
    """
    how = {"height": side, "width": side, "num_inference_steps": steps, "guidance_scale": guidance}
    if checkout:
        serving_class, images = _theirs(Path(checkout))
        serving = serving_class(
            images(str(out)), model, batch_size=batch, **{f"diffuser_{_DIFFUSER.get(k, k)}": v for k, v in how.items()}
        )
    else:
        serving = Loop(model, out, batch, how)
    for pipe in serving.pipes:
        pipe.set_progress_bar_config(disable=True)
    if tokens:
        serving.pipes = [_with(pipe, max_sequence_length=tokens) for pipe in serving.pipes]
    return serving


_DIFFUSER = {"height": "image_height", "width": "image_width"}


class Loop:
    """What their serving does on one device: one call per batch, attention slicing on, no generator, the images of a
    batch saved one after the other before the next call. In float32, because half precision only costs time on a
    CPU."""

    def __init__(self, model: str, out: Path, batch: int, how: dict):
        import torch
        from diffusers import FluxPipeline

        pipeline = FluxPipeline.from_pretrained(model, torch_dtype=torch.float32)
        pipeline.enable_attention_slicing()
        self.pipes: list[Any] = [pipeline]
        self.out, self.batch, self.how = out, batch, how

    def generate_from_input(self, prompts: list[str]) -> dict[str, list[str]]:
        found = {}
        for begin in range(0, len(prompts), self.batch):
            batch = prompts[begin : begin + self.batch]
            images = self.pipes[0](prompt=batch, num_images_per_prompt=1, **self.how).images
            for prompt, image in zip(batch, images, strict=True):
                path = self.out / prompt.replace(" ", "_") / f"{prompt.replace(' ', '_')}_0.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
                found[prompt] = [str(path)]
        return found


def _with(pipe: Any, **more: Any) -> Any:
    return lambda **how: pipe(**how, **more)


def _theirs(checkout: Path) -> tuple[Any, Any]:
    """Their serving and their ImageIO. On a CPU the model is float32 instead of their float16, which would be several
    times slower."""
    import torch
    from diffusers import FluxPipeline

    logger: Any = logging.getLogger("theirs")
    logger.success = logger.info
    registry = types.SimpleNamespace(register=lambda: lambda registered: registered)
    package = checkout / "dataflow"
    _module("dataflow", package, get_logger=lambda: logger)
    _module("dataflow.core", package / "core", VLMServingABC=object)
    _module("dataflow.logger", package, get_logger=lambda: logger)
    _module("dataflow.utils", package / "utils")
    _module("dataflow.utils.registry", package, IO_REGISTRY=registry)
    for name in ("io", "io/core_io", "serving", "serving/utils", "serving/utils/diffusers"):
        _module(f"dataflow.{name.replace('/', '.')}", package / name)
    _module("dataflow.serving.utils.diffusers.flux_kontext_pipeline", package, FluxKontextPipeline=None)
    serving = importlib.import_module("dataflow.serving.local_image_gen_serving")
    if not torch.cuda.is_available():
        whole = types.SimpleNamespace(
            from_pretrained=lambda path, torch_dtype: FluxPipeline.from_pretrained(path, torch_dtype=torch.float32)
        )
        serving.FluxPipeline = whole
    return serving.LocalImageGenServing, importlib.import_module("dataflow.io.core_io.image_gen").ImageIO


def _module(name: str, folder: Path, **names: Any) -> None:
    module = types.ModuleType(name)
    module.__path__ = [os.fspath(folder)]
    vars(module).update(names)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    with contextlib.suppress(KeyError):
        setattr(sys.modules[parent], last, module)
