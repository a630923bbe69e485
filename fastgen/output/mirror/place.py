"""One prefix of a bucket, where a run has its results. Does not know what they are."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from fastgen.config.cache import cache_folder
from fastgen.config.stamps import digest
from fastgen.errors import SettingsError, StorageError
from fastgen.input import storage
from fastgen.input.storage import Patience
from fastgen.output.artifacts import stem

READ_ONLY = ("hf",)
"""Schemes where each file that is written is a commit."""


def state_folder(url: str) -> Path:
    """Where the state of a run is that has its results at an address: in the cache folder, for each address another
    one."""
    return cache_folder() / "runs" / f"{stem(url.rpartition('/')[2].lower())}-{digest(url.encode())[:12]}"


def refuse(url: str) -> None:
    """Raise SettingsError if no results can be written to an address."""
    scheme, _, rest = url.partition("://")
    if scheme in READ_ONLY:
        raise SettingsError(
            f"-o {url}: each image would be a commit; give a folder, and make a data set of it with fastgen export "
            "RUN --to hf"
        )
    if "/" not in rest:
        raise SettingsError(f"-o {url}: name a folder in the bucket, such as {url}/run")


class Place:
    """Every method waits for a server that is away, as long as `patience` says.

    Raises:
        SettingsError: the package for the scheme is missing.
    """

    def __init__(self, url: str, patience: Patience):
        self.url = url
        self.patience = patience
        self._system, self._root = storage.file_system(url)

    def put_file(self, name: str, file: Path) -> None:
        """Raises StorageError."""
        self._call(name, self._system.put_file, str(file), self._path(name))

    def put(self, name: str, data: bytes) -> None:
        """Raises StorageError."""
        self._call(name, self._system.pipe_file, self._path(name), data)

    def put_new(self, name: str, data: bytes) -> None:
        """Write an object that nobody has written yet. Raises FileExistsError, StorageError."""
        try:
            self._call(name, self._create, self._path(name), data)
        except FileExistsError:  # the answer to our own request may have been lost
            if self.read(name) != data:
                raise

    def _create(self, path: str, data: bytes) -> None:
        try:
            self._system.pipe_file(path, data, mode="create")
        except Exception as error:
            if str(getattr(error, "code", "")) == "412":  # as gcsfs has it: a precondition failed
                raise FileExistsError(path) from None
            raise

    def read(self, name: str) -> bytes | None:
        """None: there is no such object. Raises StorageError."""
        try:
            return bytes(self._call(name, self._system.cat_file, self._path(name)))
        except FileNotFoundError:
            return None

    def get(self, name: str, file: Path) -> None:
        """Raises FileNotFoundError, StorageError."""
        self._call(name, self._system.get_file, self._path(name), str(file))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The objects and folders directly in a folder: name -> bytes. Raises StorageError."""
        path = self._path(folder) if folder else self._root
        try:
            found = self._call(folder, self._system.ls, path, detail=True)
        except FileNotFoundError:
            return {}
        start = path.rstrip("/") + "/"
        names = {about["name"].rstrip("/"): int(about.get("size") or 0) for about in found}
        return {name[len(start) :]: size for name, size in names.items() if name.startswith(start)}

    def changed(self, name: str) -> datetime:
        """When an object was written, by the clock of the server. Raises FileNotFoundError, StorageError."""
        found: datetime = self._call(name, self._system.modified, self._path(name))
        return found

    def delete(self, name: str) -> None:
        """Raises FileNotFoundError, StorageError."""
        self._call(name, self._system.rm_file, self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _call(self, name: str, function: Any, *args: Any, **more: Any) -> Any:
        try:
            return self.patience.call(f"{self.url}/{name}".rstrip("/"), function, *args, **more)
        except FileNotFoundError as error:
            if "bucket" in str(error).lower():  # else it would count as an object that is not there
                fix = "make the bucket first, or check the address"
                raise StorageError(f"{self.url}: {storage.reason(error)}; {fix}") from error
            raise
