"""Which files are in object storage, asked of it by the folder, or taken on trust."""

from __future__ import annotations

from collections import OrderedDict

from fastgen.output.mirror.place import Place

MOST_FOLDERS = 4
"""Folders whose files are kept in memory. Rows of a large run come folder by folder (`names.IN_FOLDER`)."""


class Trusted:
    """For a plan, which asks nothing of the storage: what a journal says was made is there."""

    def has(self, path: str, size: int | None = None) -> bool:
        """As of `Listing`."""
        return True


class Listing:
    """Args: remembers: whether files that this run adds count, too."""

    def __init__(self, place: Place, remembers: bool = False):
        self._place = place
        self._folders: OrderedDict[str, dict[str, int]] = OrderedDict()
        self._added: set[str] | None = set() if remembers else None

    def has(self, path: str, size: int | None = None) -> bool:
        """Whether a file is there, with that many bytes. Raises StorageError.

        Args:
            path: from the run's place.
            size: None: any.
        """
        if self._added is not None and path in self._added:
            return True
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            if len(self._folders) >= MOST_FOLDERS:
                self._folders.popitem(last=False)
            self._folders[folder] = self._place.sizes(folder)
        found = self._folders[folder].get(name)
        return found is not None and (size is None or found == size)

    def add(self, path: str) -> None:
        """A file is there now."""
        if self._added is not None:
            self._added.add(path)
