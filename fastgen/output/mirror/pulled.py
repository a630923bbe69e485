"""A run in object storage as a run folder on this machine for as long as a command needs it: run.json and the journal,
but no images. Changes nothing there, unless it is told to send a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fastgen.errors import RunFolderError
from fastgen.input import storage
from fastgen.input.storage import Patience
from fastgen.output import previous
from fastgen.output.journal import Journal
from fastgen.output.mirror.join import read_segments, segments
from fastgen.output.mirror.lease import Lease
from fastgen.output.mirror.place import Place
from fastgen.output.writers.from_journal import about
from fastgen.types import Done


@contextmanager
def opened(run: Path) -> Iterator[tuple[Path, Place | None]]:
    """The folder of a run, and the place in object storage where its images are; None if they are in the folder.

    Args:
        run: a run folder, or an address.

    Raises:
        RunFolderError: there is no run at the address. StorageError, SettingsError.
    """
    if not storage.is_address(run):
        yield run, None
        return
    place = Place(storage.address(run), Patience())
    with TemporaryDirectory(prefix="fastgen-run-") as scratch:
        folder = Path(scratch)
        try:
            place.get(previous.RUN, folder / previous.RUN)
        except FileNotFoundError:
            raise RunFolderError(f"RUN {place.url}: there is no {previous.RUN}; give what -o of the run was") from None
        with (folder / previous.JOURNAL).open("wb") as journal:
            for data in read_segments(place, segments(place)):
                journal.write(data)
        yield folder, place


def status(run: Path) -> str:
    """How far a run in object storage is, in words. Raises RunFolderError, StorageError, SettingsError."""
    with opened(run) as (folder, place):
        assert place is not None
        said, holder = about(folder), Lease(place, "").holder()
        with closing(Journal(folder / previous.JOURNAL, read_only=True)) as journal:
            newest = (result for result, is_newest in journal.results() if is_newest)
            counts = Counter("done" if isinstance(result, Done) else "failed" for result in newest)
    at_work = f"; {holder.host} (process {holder.pid}) is at work, or was when it was killed" if holder else ""
    numbers = ", ".join(f"{counts[name]} {name}" for name in ("done", "failed") if counts[name]) or "no rows yet"
    return f"{place.url}: {said.get('state', 'unknown')}, {numbers} (said at {said.get('written', '?')}){at_work}"


def send(place: Place, folder: Path, names: list[str]) -> None:
    """Send tables. Raises StorageError."""
    for name in names:
        place.put_file(name, folder / name)
