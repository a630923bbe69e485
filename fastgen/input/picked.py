"""Which rows --rows names: by their ids, in a file of rows such as the picks of `fastgen view`, or in a text with one
id per line. Does not know INPUT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastgen.config.settings import Settings
from fastgen.errors import SettingsError
from fastgen.input.identities import Identities, Identity
from fastgen.input.readers.rows import read


def picked_ids(file: str, output_key: str, id_key: str = "") -> frozenset[str] | None:
    """The ids of the rows that a file names; None if there is no file, so that all rows are meant.

    Args:
        file: the path; "" for none.
        output_key, id_key: as of the run.

    Raises:
        SettingsError: it cannot be read, or names no row.
    """
    if not file:
        return None
    path = Path(file)
    if not path.is_file():
        raise SettingsError(f"--rows {file}: no such file; give a file of rows, or a .txt file with one id per line")
    if path.suffix.lower() == ".txt":
        try:
            ids = {line.strip() for line in path.read_text("utf-8").splitlines()}
        except UnicodeDecodeError as error:
            raise SettingsError(f"--rows {file}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    else:
        identities = Identities(output_key, id_key)
        ids = {identity.id for row in read(path) if (identity := identities.identify(row)).error is None}
    if not (found := frozenset(ids - {""})):
        raise SettingsError(f"--rows {file}: names no row; give a file of rows, or a .txt file with one id per line")
    return found


class Picked:
    """The rows of a run, if not all of INPUT is meant. Args: file: as in messages; ids: those of the rows."""

    def __init__(self, file: str, ids: frozenset[str]):
        self.file = file
        self.ids = ids
        self._left = set(ids)

    @classmethod
    def of(cls, settings: Settings) -> Picked | None:
        """None: all rows are meant. Raises SettingsError."""
        file, rows = settings.run.only_rows, settings.rows
        ids = picked_ids(file, rows.output_key, rows.id_key)
        return None if ids is None else cls(file, ids)

    def __len__(self) -> int:
        return len(self.ids)

    def has(self, number: int, identity: Identity) -> bool:
        """Whether a row belongs to the run. `number`: that of the row, which does not matter."""
        self._left.discard(identity.id)
        return identity.id in self.ids

    def warnings(self) -> Iterator[str]:
        """What to say at the end about ids that no row had."""
        if self._left:
            some = ", ".join(sorted(self._left)[:3])
            yield f"--rows {self.file}: {len(self._left)} of its {len(self)} ids are of no row of INPUT, such as {some}"
