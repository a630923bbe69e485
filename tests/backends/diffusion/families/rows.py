"""Rows for a backend as requests, and the images that it saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from PIL import Image

from fastgen.backends.diffusion.backend import DiffusionBackend
from fastgen.input.readers.rows import Row
from fastgen.input.requests import Intake
from fastgen.types import Done, Result


def rows(backend: DiffusionBackend, folder: Path, found: list[dict]) -> list[Any]:
    """Requests of some rows, or why they failed. `folder`: where their images are."""
    reader = Intake(replace(backend.settings, rows=replace(backend.settings.rows, image_root=str(folder))))
    lines = [Row(number, json.dumps(row).encode()) for number, row in enumerate(found, 1)]
    return [reader.read(line, reader.identify(line)) for line in lines]


def images_of(backend: DiffusionBackend, results: list[Result]) -> dict[str, np.ndarray]:
    """The first image of each row, by id."""
    images = {}
    for result in results:
        assert isinstance(result, Done), result
        images[result.id] = np.asarray(Image.open(Path(backend.settings.run.out, result.paths[0]))).astype(int)
    return images
