"""One file of rows, opened: unpacked if it is compressed, its text decoded to UTF-8. Knows no format of rows."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from fastgen.input import storage
from fastgen.input.embedded_pictures import Store

MAX_LINE = 64 << 20
"""Bytes of a row in a file of lines, so that a file without line breaks does not fill the memory."""
PACKED = (".gz", ".zst")
"""Suffixes of compressed files, after that of the format."""
_BOM = b"\xef\xbb\xbf"
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"{\0", "utf-16-le"),
    (b"\0{", "utf-16-be"),
)
"""The first bytes of files that are not UTF-8."""


class Source:
    """Args:
    address: the path of the file or folder, or an address of the hub or of object storage.
    store: keeps pictures that are inside the rows.
    say: is called with notes for the user, such as what was left out.
    size: bytes of a file in object storage.
    """

    def __init__(
        self,
        address: str | Path,
        store: Store | None = None,
        say: Callable[[str], None] = lambda message: None,
        size: int = 0,
    ):
        self.address = str(address)
        self.is_stored = storage.is_address(self.address)
        """Whether it is in object storage."""
        self.size = size
        self.store = store or Store()
        self.say = say
        self.used = 0
        """Bytes of whole lines that were read."""

    @cached_property
    def path(self) -> Path:
        """The file or folder on this machine: of a file in object storage a copy. Raises OSError, StorageError,
        SettingsError."""
        return storage.local_copy(self.address) if self.is_stored else Path(self.address)

    @property
    def suffix(self) -> str:
        """The last suffix of its name, in lower case."""
        return Path(self.address).suffix.lower()

    @property
    def too_long(self) -> str:
        """What is wrong with a row of more than `MAX_LINE` bytes."""
        return f"the line is longer than {MAX_LINE >> 20} MiB; keep images and the like in files"

    def open(self) -> io.BufferedReader:
        """The file, unpacked. Raises OSError."""
        match self.suffix:
            case ".gz":
                return io.BufferedReader(gzip.open(self.path, "rb"), 1 << 20)
            case ".zst":
                import pyarrow

                return io.BufferedReader(pyarrow.input_stream(str(self.path), compression="zstd"), 1 << 20)
        return self.path.open("rb")

    def whole(self) -> bytes:
        """The whole file, as UTF-8 if it is text in UTF-16 or UTF-32. Raises OSError."""
        with self.open() as file:
            data = file.read()
        if encoding := _encoding(data[:4]):
            return data.decode(encoding, "replace").removeprefix("\ufeff").encode()
        return data.removeprefix(_BOM)

    def lines(self) -> Iterator[bytes]:
        """The lines as UTF-8, with their ends. Of a line that is too long, only the first `MAX_LINE` + 1 bytes."""
        with self.open() as file:
            start = file.peek(4)[:4]
            encoding = _encoding(start)
            if not encoding and start.startswith(_BOM):
                file.read(len(_BOM))
            for line in _decoded(file, encoding) if encoding else _lines(file):
                self.used += len(line)
                yield line


def _encoding(start: bytes) -> str:
    """That of a text; "" for UTF-8. UTF-16 without a mark shows by the zeros of its first two characters."""
    zeros = [not byte for byte in start]
    if zeros in ([False, True, False, True], [True, False, True, False]):
        return "utf-16-be" if zeros[0] else "utf-16-le"
    return next((name for mark, name in _ENCODINGS if start.startswith(mark)), "")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def _decoded(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    """The lines of a file in UTF-16 or UTF-32, as UTF-8. Bytes that are not text only fail their own row."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    text, ended, skipping = "", False, False
    while not ended:
        chunk = file.read(1 << 20)
        ended = not chunk
        try:
            text += decoder.decode(chunk, ended)
        except UnicodeDecodeError:  # cut in the middle of a character
            text += "\ud800"
        *lines, text = text.split("\n")
        for line in lines:
            if not skipping:
                yield _utf8(line)
            skipping = False
        if text and not skipping and (ended or len(text) > MAX_LINE):
            yield _utf8(text)
            skipping = True  # the rest of this line
        text = "" if skipping else text


def _utf8(text: str) -> bytes:
    return text.removeprefix("\ufeff").encode("utf-8", "surrogatepass")
