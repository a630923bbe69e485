"""Images from a FLUX model on this machine. Does not know GPUs: each has one engine with its own batches, from the
first call until `cleanup`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import fastgen
from fastgen.dataflow.io import ImageIO
from fastgen.dataflow.serving.pictures import PictureServing

MODELS = ("FLUX", "FLUX-Kontext")
SIDE = 1024


class LocalImageGenServing(PictureServing):
    """Text to image, or edits.

    Args:
        hf_model_name_or_path: local folder, hub id or "tiny" (the embedded model); None: fastgen's default.
        hf_cache_dir: where the hub's files are stored; None: the default of the hub's library.
        hf_local_dir: searched for the model (by its full or its last name); nothing is written there.
        batch_size: images that go through the model together on each GPU.
        diffuser_image_height, diffuser_image_width: at their defaults an edit keeps the shape of its input instead.
        strict: raise an error if inputs failed, after all others are done.
        progress: show how far a call is, on stderr or in a notebook.
        flags: of `fastgen.resolve`, such as gpus="0,1" or seed=7.
    """

    parameters: ClassVar = {
        "model": "hf_model_name_or_path",
        "size": "diffuser_image_width and diffuser_image_height",
        "steps": "diffuser_num_inference_steps",
        "guidance": "diffuser_guidance_scale",
        "n": "diffuser_num_images_per_prompt",
    }

    def __init__(
        self,
        image_io: ImageIO,
        hf_model_name_or_path: str | list[str] | None = None,
        hf_cache_dir: str | None = None,
        hf_local_dir: str = "./ckpt/models/",
        Image_gen_task: str = "text2image",
        batch_size: int = 4,
        diffuser_model_name: str = "FLUX",
        diffuser_image_height: int = SIDE,
        diffuser_image_width: int = SIDE,
        diffuser_num_inference_steps: int = 50,
        diffuser_guidance_scale: float = 2.5,
        diffuser_num_images_per_prompt: int = 1,
        *,
        strict: bool = False,
        progress: bool = True,
        **flags: Any,
    ):
        if diffuser_model_name not in MODELS:
            raise ValueError(f"diffuser_model_name {diffuser_model_name!r}: one of {', '.join(MODELS)}")
        size = (diffuser_image_width, diffuser_image_height)
        by_input = Image_gen_task == "imageedit" and size == (SIDE, SIDE)
        super().__init__(
            image_io,
            Image_gen_task,
            n=diffuser_num_images_per_prompt,
            strict=strict,
            progress=progress,
            model=find_model(hf_model_name_or_path, hf_cache_dir, hf_local_dir),
            batch_size=batch_size,
            size=None if by_input else f"{size[0]}x{size[1]}",
            steps=diffuser_num_inference_steps,
            guidance=diffuser_guidance_scale,
            **flags,
        )


def find_model(name: str | list[str] | None, cache_dir: str | None, local_dir: str | None) -> str:
    """The folder of a model, or its name if fastgen should find it. Raises SettingsError."""
    names = list(dict.fromkeys(name)) if isinstance(name, list | tuple) else [name]
    if len(names) > 1:
        raise fastgen.SettingsError(
            f"models {', '.join(map(str, names))}: a serving has only one, which runs on all GPUs"
        )
    name = os.fspath(names[0]) if names and names[0] else "auto"
    if name.count("/") != 1 or Path(name).expanduser().exists() or name.startswith((".", "/", "~")):
        return name
    for place in (Path(local_dir, name), Path(local_dir, name.partition("/")[2])) if local_dir else ():
        if place.is_dir():
            return str(place)
    if not cache_dir:
        return name
    from huggingface_hub import snapshot_download

    try:
        # FLUX.1 repositories also have the same weights as one file of 24 GB.
        return snapshot_download(
            name, cache_dir=Path(cache_dir).expanduser(), ignore_patterns=["flux1-*.safetensors", "ae.*"]
        )
    except (OSError, ValueError) as error:
        raise fastgen.ModelError(f"{name}: {error}; give a local folder, or leave hf_cache_dir out") from None
