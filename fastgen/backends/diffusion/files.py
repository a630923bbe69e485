"""Images into the engine and out of it: what an edit starts from, and what is saved. Does not know tensors.

All of it runs in the threads that call the backend, in parallel with the arithmetic of other batches.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from PIL import Image

import fastgen
from fastgen.config.settings import Settings
from fastgen.errors import InputError, quoted
from fastgen.input import images
from fastgen.input.masks import load_mask
from fastgen.output import artifacts
from fastgen.types import FileStamp, Request

Size = tuple[int, int]
SAVERS = 4
"""Threads that compress and write images; Pillow releases the interpreter lock while it compresses."""


class Inputs:
    """The images that an edit starts from: loaded, checked and scaled to their places.

    Args:
        condition_size: of an image -> the size at which the text encoder reads it; None: it reads none.
    """

    def __init__(self, request: Request, condition_size: Callable[[Size], Size] | None = None):
        pictures = [images.load_colors(path, request.image_field) for path in request.images]
        self.first = pictures[0]
        self.warnings = [
            f"{quoted(path)}: {note}"
            for path, picture in zip(request.images, pictures, strict=True)
            for note in picture.notes
        ]
        self.references: list[Image.Image] = []
        """What the model sees: the input images apart, each at its size, or one sheet of all of them."""
        if request.references:
            pairs = zip(pictures, request.references, strict=True)
            self.references = [images.scaled(picture.srgb, size) for picture, size in pairs]
        else:
            sheet = images.stitch([picture.srgb for picture in pictures], request.reference, request.places)
            self.references = [images.scaled(sheet, request.reference)]
        self.conditions: tuple[Image.Image, ...] = ()
        """What the text encoder reads with the prompt."""
        if condition_size is not None:
            own = [picture.srgb for picture in pictures]
            self.conditions = tuple(images.scaled(picture, condition_size(picture.size)) for picture in own)
        self._saved = (request.image_params.width, request.image_params.height)
        self.base = images.scaled(self.first.srgb, self._saved)
        self.mask: Image.Image | None = None
        if request.mask:
            self._read_mask(request)

    def restore(self, picture: Image.Image) -> Image.Image:
        """A finished masked edit in the colours of its input file, with the file's own values outside the mask.

        Save it with `first.profile`.
        """
        own = images.scaled(self.first.own, self._saved)
        assert self.mask is not None
        return Image.composite(self.first.as_own(picture), own, self.mask)

    def _read_mask(self, request: Request) -> None:
        size = self.first.srgb.size
        found = load_mask(
            request.mask, size, request.mask_field, request.mask_convention, picture=lambda: self.first.srgb
        )
        self.warnings += found.warnings
        mask = found.image if size == self._saved else found.image.resize(self._saved, Image.Resampling.NEAREST)
        if not mask.getbbox():
            raise InputError(
                f"{quoted(request.mask)} selects nothing once it is scaled to {self._saved[0]}x{self._saved[1]}; "
                "use a larger size",
                request.mask_field,
            )
        self.mask = mask


class Saver:
    """Compresses and writes the images of a run, several at a time."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.out = Path(settings.run.out)
        self._threads = ThreadPoolExecutor(SAVERS, "save", _step_back)

    def path(self, request: Request, number: int) -> str:
        """The path of image `number` of a request, relative to the run folder."""
        suffix = {"jpeg": "jpg"}.get(self.settings.image.format, self.settings.image.format)
        return artifacts.picture(request, number, suffix)

    def save(self, pictures: list[tuple[Request, int, str, Image.Image, bytes]]) -> list[FileStamp]:
        """Write each (request, number, prompt, picture, colour profile) durably. Raises DiskError."""
        jobs = [self._threads.submit(self._write, *picture) for picture in pictures]
        written = [job.result() for job in jobs]
        artifacts.sync_images(self.out, (self.path(request, number) for request, number, *_ in pictures))
        return written

    def close(self) -> None:
        self._threads.shutdown()

    def _write(self, request: Request, number: int, prompt: str, picture: Image.Image, profile: bytes) -> FileStamp:
        settings, params = self.settings, request.image_params
        how = {
            "task": request.task,
            "id": request.id,
            "width": params.width,
            "height": params.height,
            "steps": params.steps,
            "guidance": params.guidance,
            "dtype": settings.engine.dtype,
            "max_sequence_length": settings.engine.max_sequence_length,
            "fastgen": fastgen.__version__,
            "lora": settings.engine.loras + request.loras,
            "transformer": settings.engine.transformer,
            "images": request.images,
            "mask": request.mask,
        }
        how |= {"negative_prompt": params.negative_prompt} if params.negative_prompt is not None else {}
        how |= {"true_cfg_scale": params.true_cfg_scale} if params.true_cfg_scale is not None else {}
        about = {
            "prompt": prompt,
            "model": settings.model.name,
            "seed": str(params.seed + number),
            "settings": json.dumps(how, ensure_ascii=False),
        }
        data = images.encode(picture, settings.image.format, about, profile, settings.image.compression)
        return artifacts.write(self.out, self.path(request, number), data)


def _step_back() -> None:
    """Lower the priority of this thread: taking a core from the arithmetic for a moment stalls all its threads."""
    with suppress(AttributeError, OSError):  # only Linux has priorities for single threads
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
