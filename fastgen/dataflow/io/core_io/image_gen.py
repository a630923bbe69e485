"""Pictures under the names that pipelines expect: `{save_path}/{key}/{key}_{number}.png`. Knows nothing of how they are
made.

A key becomes a name by its ASCII letters and digits alone. Where nothing is left of it, or another key has that name
already, a hash is added; which key has which name is kept in `{save_path}/.fastgen/names.jsonl`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from fastgen.dataflow import get_logger

if TYPE_CHECKING:
    from PIL.Image import Image

NAMES = ".fastgen/names.jsonl"
NUMBERED = re.compile(r"sample_?\d+(_condition\d+)?")
"""Keys by number, which are names already."""


class ImageIO:
    """Args: save_path: the folder of all pictures; it is made when the first one is written."""

    def __init__(self, save_path: str):
        self.save_path = os.fspath(save_path)
        self._names: dict[str, str] | None = None

    def read(self, image_paths: list[str]) -> list[Image | None]:
        """The pictures as upright RGB; None, and a warning, where there is none."""
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
        """Write the pictures of each key; returns their paths."""
        written: dict[str, list[str]] = {}
        for key, images in image_data.items():
            written[key] = []
            for number, image in enumerate(images):
                path = self.path_of(key, number)
                _put(path, lambda temporary, image=image: image.save(temporary, "PNG"))
                written[key].append(path)
        return written

    __call__ = write

    def place(self, key: str, number: int, made: str) -> str:
        """Have the finished picture `made` also at its place; returns that. No byte is copied where the disk can
        link."""
        path = self.path_of(key, number)
        if os.path.exists(path) and os.path.samefile(path, made):
            return path
        if made.endswith(".png"):
            _put(path, lambda temporary: _link(made, temporary))
            return path
        from PIL import Image

        with Image.open(made) as image:
            _put(path, lambda temporary: image.save(temporary, "PNG"))
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
        owner = self._owners().get(plain.lower())  # not every file system tells a from A
        if owner is None:
            self._take(plain, digest)
        return plain if owner in (None, digest) else hashed

    def _owners(self) -> dict[str, str]:
        """Name in lower case -> the digest of the key that has it."""
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
            file.write(b"\n" + json.dumps([plain.lower(), digest]).encode())  # a line that a kill cut short stays alone


def _put(path: str, write) -> None:
    """Write a file whole or not at all; one that is there is replaced."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.tmp"  # one that a kill left is replaced with it
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # never write into what may be a link
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
