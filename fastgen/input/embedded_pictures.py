"""Pictures that are inside the rows and not in files of their own: bytes, base64 and data URIs. Each becomes a file in
the run folder's `inputs/`, named by its content, so that everything else reads paths.

Does not know fields or formats of rows.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from hashlib import blake2b
from pathlib import Path

FOLDER = "inputs"
"""In the run folder. --fresh leaves it in place."""
NAME = re.compile(FOLDER + r"/[0-9a-f]{32}\.[a-z]+")
"""A path that `Store` gives."""
_MARKS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"II+\0", "tif"),
    (b"MM\0+", "tif"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
)
_BRANDS = {
    b"avif": "avif",
    b"avis": "avif",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "heic"),
}
_DATA_URI = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
_BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "SUkq", "TU0AK", "AAAA")
"""How pictures of the formats above begin in base64."""
_SHORTEST = 64
"""Characters of a picture in base64; anything shorter is a path."""


def kind(data: bytes) -> str:
    """The suffix of a picture, by its first 32 bytes; "" if they are those of no picture that is known here."""
    for mark, suffix in _MARKS:
        if data.startswith(mark):
            return suffix
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":
        return "bmp"
    return _BRANDS.get(data[8:12], "") if data[4:8] == b"ftyp" else ""


def is_url(text: str) -> bool:
    """Whether a picture is on a server."""
    return text[:8].lower().startswith(("http://", "https://"))


def url_name(url: str) -> str:
    """Where a picture from a server is kept, relative to the run folder."""
    return f"{FOLDER}/url-{blake2b(url.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


def in_text(text: str) -> bytes | None:
    """The picture in a data URI or in base64; None if the text is something else. Raises ValueError if it begins like
    one and cannot be decoded."""
    if found := _DATA_URI.match(text):
        if ";base64" not in found.group().lower():
            raise ValueError("it is a data URI that is not in base64")
        return decoded(text[found.end() :])
    if len(text) >= _SHORTEST and text.startswith(_BASE64_STARTS) and os.path.sep * 2 not in text[:_SHORTEST]:
        try:
            data = decoded(text)
        except ValueError:
            return None  # a long path
        return data
    return None


def decoded(coded: str) -> bytes:
    """A picture in base64. Raises ValueError if it holds none."""
    try:
        data = base64.b64decode("".join(coded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"it is not valid base64: {error}") from None
    if not kind(data):
        raise ValueError("it holds no picture")
    return data


class Store:
    """Keeps pictures. Args: out: the run folder; "": nothing is written, and pictures only get their names."""

    def __init__(self, out: str = ""):
        self._folder = Path(out) / FOLDER if out else None

    def keep(self, data: bytes) -> str:
        """The path of the picture, relative to the run folder. Raises OSError."""
        name = f"{blake2b(data, digest_size=16).hexdigest()}.{kind(data) or 'img'}"
        if self._folder is not None:
            path = self._folder / name
            try:
                whole = path.stat().st_size == len(data)
            except FileNotFoundError:
                whole = False
            if not whole:
                self._folder.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(f".{os.getpid()}")
                partial.write_bytes(data)
                os.replace(partial, path)
        return f"{FOLDER}/{name}"
