"""Images under the names that pipelines expect: `{save_path}/{key}/{key}_{number}.png`. Does not know how they are
made.

Only the ASCII letters and digits of a key go into its name. If nothing is left, or another key already has that name, a
hash is added. `{save_path}/.fastgen/names.jsonl` records which key has which name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from fastgen.dataflow import get_logger

if TYPE_CHECKING:
    from PIL.Image import Image

NAMES = ".fastgen/names.jsonl"
NUMBERED = re.compile(r"sample_?\d+(_condition\d+)?")
"""Keys made of numbers, which are already valid names."""


class ImageIO:
    """Args: save_path: the folder of all images; it is created when the first one is written."""

    def __init__(self, save_path: str):
        self.save_path = os.fspath(save_path)
        self._names: dict[str, str] | None = None

    def read(self, image_paths: list[str]) -> list[Image | None]:
        """The images as upright RGB; None and a warning for those that cannot be read."""
        from PIL import Image, ImageOps

        found: list[Image.Image | None] = []
        for path in image_paths:
            try:
                with Image.open(path) as image:
                    found.append(ImageOps.exif_transpose(image).convert("RGB"))
            except (OSError, ValueError, AttributeError) as error:
                get_logger().warning("%s cannot be read: %s", path, error)
                found.append(None)
        return found

    def write(self, image_data: dict[str, list[Image]]) -> dict[str, list[str]]:
        """Write the images of each key; returns their paths."""
        written: dict[str, list[str]] = {}
        for key, images in image_data.items():
            written[key] = []
            for number, image in enumerate(images):
                path = self.path_of(key, number)
                _put(path, partial(image.save, format="PNG"))
                written[key].append(path)
        return written

    __call__ = write

    def place(self, key: str, number: int, made: str) -> str:
        """Put the finished image `made` at its documented path too, and return that path. If the disk supports links,
        nothing is copied."""
        path = self.path_of(key, number)
        if os.path.exists(path) and os.path.samefile(path, made):
            return path
        if made.endswith(".png"):
            _put(path, partial(_link, made))
            return path
        from PIL import Image

        with Image.open(made) as image:
            _put(path, partial(image.save, format="PNG"))
        return path

    def path_of(self, key: str, number: int) -> str:
        name = self._name(str(key))
        return os.path.join(self.save_path, name, f"{name}_{number}.png")

    def _name(self, key: str) -> str:
        if NUMBERED.fullmatch(key):
            return key
        plain = re.sub(r"[^0-9a-zA-Z]+", "_", key).strip("_")[:120]
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
        hashed = f"{plain[:108]}_{digest}".lstrip("_")
        if not plain or NUMBERED.fullmatch(plain):
            return hashed
        owner = self._owners().get(plain.lower())  # not every file system distinguishes a from A
        if owner is None:
            self._take(plain, digest)
        return plain if owner in (None, digest) else hashed

    def _owners(self) -> dict[str, str]:
        """Lower-case name -> digest of the key that has it."""
        if self._names is None:
            self._names = {}
            try:
                lines = Path(self.save_path, NAMES).read_bytes().splitlines()
            except FileNotFoundError:
                lines = []
            for line in lines:
                try:
                    name, digest = json.loads(line)
                except ValueError:  # cut short by a kill
                    continue
                self._names.setdefault(name, digest)
        return self._names

    def _take(self, plain: str, digest: str) -> None:
        self._owners()[plain.lower()] = digest
        path = Path(self.save_path, NAMES)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            # The leading line break keeps a line that a kill cut short separate.
            file.write(b"\n" + json.dumps([plain.lower(), digest]).encode())


def _put(path: str, write: Callable[[str], object]) -> None:
    """Write a file completely or not at all; an existing one is replaced."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.tmp"  # a leftover of a kill is replaced too
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # never write into a file that may be a link
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _link(made: str, path: str) -> None:
    try:
        os.link(made, path)
    except OSError:
        shutil.copy2(made, path)
