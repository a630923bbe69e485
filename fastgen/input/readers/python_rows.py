"""Writes rows that come from Python as lines of JSON, so that they can be read twice.

Values that JSON does not have are converted: numbers of numpy and torch, paths, dates, and PIL images (written to files
that are named by their content). A value that cannot be converted fails its row when that row is read. Does not know
what the fields mean, except `id`, `fastgen`, and which ones cannot have bytes.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fastgen.config.settings import IMAGE_FIELDS, PARAM_FIELDS, PROMPT_FIELDS
from fastgen.errors import InputError, SettingsError, quoted
from fastgen.input import color_profiles

if TYPE_CHECKING:
    from PIL.Image import Image

UNREADABLE = "unreadable"
"""A key in a row's `fastgen`: why the row could not be converted."""
MOST_NUMBERS = 10_000
"""A larger array is hardly a field of a row, but rather an image."""
MOST_DIGITS = 4300
"""Of a whole number: Python writes no longer ones."""
_MOST_WHOLE = 10**MOST_DIGITS
_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
_BYTES = (bytes, bytearray, memoryview)
_READ = frozenset((*PROMPT_FIELDS, *IMAGE_FIELDS, *PARAM_FIELDS, "mask"))
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def write_jsonl(path: Path, rows: Iterable[dict], pictures: Path) -> int:
    """Write rows that come from Python to a file, so that they can be read twice. Returns their number.

    Args:
        pictures: the folder for images that come as objects; made if there are any.

    Raises:
        SettingsError: a row is not a dict.
        OSError: the disk refuses writes.
    """
    if isinstance(rows, str | bytes | os.PathLike | Mapping) or not isinstance(rows, Iterable):
        raise SettingsError(
            f"rows: must be a list or another iterable of dicts, not {type(rows).__name__}; a file of rows is given to "
            "resolve() as `input`"
        )
    count = 0
    with path.open("wb") as file:
        for count, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise SettingsError(
                    f"row {count}: each row must be a dict, not {row if row is None else type(row).__name__}"
                )
            try:
                line = _Row(pictures).line(row) if _has_bytes(row) else _encode(row)
            except (TypeError, ValueError, OverflowError, RecursionError):  # UnicodeEncodeError is a ValueError
                line = _Row(pictures).line(row)
            file.write(line + b"\n")
    return count


def _has_bytes(row: dict) -> bool:
    """Whether a field that fastgen reads has bytes, which would become text in base64. A column of the user's own may
    have them."""
    return any(isinstance(value, _BYTES) and name in _READ for name, value in row.items())


def problem(fields: dict) -> InputError | None:
    """Why a row from Python could not be converted; None if it could."""
    about = fields.get("fastgen")
    said = about.get(UNREADABLE) if isinstance(about, dict) else None
    return InputError(str(said.get("message")), str(said.get("field"))) if isinstance(said, dict) else None


class _Row:
    """Converts one row, and remembers its images."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pictures: dict[str, str] = {}
        """Path of each image that was written -> hash of its content."""

    def line(self, row: dict) -> bytes:
        fields: dict[str, Any] = {}
        wrong: dict[str, str] = {}
        for key, value in row.items():
            name = key if isinstance(key, str) else str(key)
            try:
                if name in _READ and isinstance(value, _BYTES):
                    raise InputError("bytes; give text, or an image as a path or as a PIL image")
                fields[name] = self._plain(value)
            except (InputError, RecursionError) as error:
                said = "it is nested too deep; flatten it" if isinstance(error, RecursionError) else str(error)
                wrong = wrong or {"field": name, "message": said}
                fields[name] = f"<{type(value).__name__}>"
        about = fields.get("fastgen")
        about = about if isinstance(about, dict) else {}
        if wrong:
            fields["fastgen"] = {**about, UNREADABLE: wrong}
        elif self.pictures and "id" not in fields and "id" not in about:
            fields["fastgen"] = {**about, "id": self._id(fields)}
        try:
            return _encode(fields)
        except UnicodeEncodeError:  # lone surrogates, which JSON can have as escapes
            return json.dumps(fields).encode()

    def _id(self, fields: dict) -> str:
        """An id from the row's content and its images' content, not from the folder that they were written to."""
        content = [fields, sorted(self.pictures.values())]
        try:
            text = _encode_sorted(content).decode()
        except UnicodeEncodeError:  # lone surrogates
            text = json.dumps(content, sort_keys=True)
        for path, digest in self.pictures.items():
            text = text.replace(json.dumps(path, ensure_ascii=False), f'"{digest}"')
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def _plain(self, value: Any) -> Any:
        """The value in JSON's types. Raises InputError, RecursionError, OSError."""
        match value:
            case None | bool() | str():
                return str(value) if isinstance(value, str) else value
            case int():
                if abs(value) >= _MOST_WHOLE:
                    raise InputError(
                        f"a whole number with more than {MOST_DIGITS:,} digits; shorten it, or write it as text"
                    )
                return int(value)
            case float():
                return float(value) if math.isfinite(value) else None
            case Mapping():
                return {key if isinstance(key, str) else str(key): self._plain(item) for key, item in value.items()}
            case list() | tuple():
                return [self._plain(item) for item in value]
            case set() | frozenset():
                return [self._plain(item) for item in sorted(value, key=repr)]
            case os.PathLike():
                return os.fsdecode(value)
        if any(kind.__module__.startswith("PIL.") for kind in type(value).__mro__) and hasattr(value, "getexif"):
            return self._save(value)
        if hasattr(value, "tolist") and hasattr(value, "shape"):  # numpy, torch and the like
            if math.prod(value.shape) > MOST_NUMBERS:
                shape = "x".join(map(str, value.shape))
                raise InputError(f"an array of {shape} numbers; give an image as a path or as a PIL image")
            return self._plain(value.tolist())
        if repr(value) in ("<NA>", "NaT"):  # pandas' names for a missing value
            return None
        try:
            return msgspec.to_builtins(value)
        except (TypeError, ValueError, msgspec.MsgspecError):
            raise InputError(
                f"a value of type {type(value).__name__}, which JSON does not have; give text, numbers, lists or dicts"
            ) from None

    def _save(self, picture: Image) -> str:
        """Writes the image to a file. Returns its path."""
        try:
            picture.load()  # first, because some readers rotate the image here
            if not (picture.width and picture.height):
                raise ValueError("it has no pixels")
            profile, exif = picture.info.get("icc_profile") or b"", picture.getexif()
            pixels = picture
            if picture.mode not in _PNG_MODES:
                colors = color_profiles.read(picture, profile)
                pixels, profile = colors.own, colors.profile
            about = f"{pixels.mode} {pixels.size} {exif.get(0x0112, 1)}".encode()
            digest = blake2b(digest_size=16)
            for part in (about, profile, repr(pixels.info.get("transparency")).encode(), pixels.tobytes()):
                digest.update(part)
            name = digest.hexdigest()
        except Exception as error:  # a damaged file behind it may raise anything
            raise InputError(f"a PIL image that cannot be read: {quoted(error)}; load it again") from None
        path = self.folder.absolute() / f"{name}.png"
        if not path.exists():
            self.folder.mkdir(exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            try:
                pixels.save(partial, "PNG", compress_level=1, exif=exif, icc_profile=profile or None)
            except (ValueError, TypeError, SyntaxError, struct.error) as error:  # its metadata, for instance
                partial.unlink(missing_ok=True)
                raise InputError(f"a PIL image that cannot be saved as PNG: {quoted(error)}; give a path") from None
            os.replace(partial, path)
        self.pictures[str(path)] = name
        return str(path)
