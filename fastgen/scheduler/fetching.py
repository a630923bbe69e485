"""Fetches the pictures that rows name by URL or in object storage, some rows ahead, into `inputs/` in the run folder. A
row whose picture cannot be fetched fails alone. Does not know what a row asks for."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.http_client import Client, up_to
from fastgen.config.settings import IMAGE_FIELDS
from fastgen.errors import InputError, SettingsError, StorageError
from fastgen.input import masks, storage
from fastgen.input.embedded_pictures import is_url, kind, url_name
from fastgen.input.identities import Identity, filled
from fastgen.input.images import Places
from fastgen.input.readers.rows import Row
from fastgen.input.row_schema import images_in

AHEAD = 256
"""Rows whose pictures are fetched at the same time, or are waiting for those."""
AT_ONCE = 16
TIMEOUT_S = 30.0
"""Of one picture."""
MOST_BYTES = 64 << 20
TRIES = 3
PAUSE_S = 1.0
"""So long the next row is waited for before the caller may do something else."""
Item = tuple[Row, Identity]
Waiting = tuple[Item, list[Future[None]]]
NOWHERE = "https://pictures.invalid"
"""The client needs an address of its own, which may be in a private network; no picture may be."""


def fetched(
    items: Iterable[Item], places: Places, output_key: str, say: Callable[[str], None] = lambda message: None
) -> Iterator[Item | None]:
    """The rows, each once all its pictures are there, or it is known why not: `places.unfetched` then says so. None
    stands for a row that is not ready yet: ask again.

    Args:
        items: only rows whose pictures are of use.
        output_key: rows in which it is filled need no pictures.
        say: is told when object storage does not answer.

    Raises:
        StorageError: it did not answer for too long.
    """
    patience = storage.Patience(storage.DEADLINE_S)
    said = ""
    waiting: deque[Waiting] = deque()
    fetcher: Fetcher | None = None
    try:
        for item in items:
            urls = _urls(*item, places) if not filled(item[1].fields.get(output_key)) else []
            missing = [url for url in urls if not os.path.exists(os.path.join(places.out, url_name(url)))]
            if missing and fetcher is None:
                fetcher = Fetcher(places, patience)
            waiting.append((item, [fetcher.fetch(url) for url in missing] if fetcher else []))
            while waiting and (len(waiting) >= AHEAD or not waiting[0][1]):
                yield _whole(waiting)
                said = _say_waiting(patience, said, say)
        while waiting:
            yield _whole(waiting)
            said = _say_waiting(patience, said, say)
    finally:
        patience.given_up.set()
        if fetcher is not None:
            fetcher.close()


class Fetcher:
    """Fetches pictures in threads, each once at a time: many rows may name the same one."""

    def __init__(self, places: Places, patience: storage.Patience):
        self._places, self._patience = places, patience
        self._client = Client(NOWHERE, TIMEOUT_S, AT_ONCE)
        self._pool = ThreadPoolExecutor(AT_ONCE, "fetch")
        self._under_way: dict[str, Future[None]] = {}

    def fetch(self, url: str) -> Future[None]:
        """Done once the picture is there, or it is known why not."""
        job = self._under_way.get(url)
        if job is None or job.done():
            if len(self._under_way) > 2 * AHEAD:
                self._under_way = {url: job for url, job in self._under_way.items() if not job.done()}
            job = self._under_way[url] = self._pool.submit(_fetch, self._client, url, self._places, self._patience)
        return job

    def close(self) -> None:
        """Begin no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _say_waiting(patience: storage.Patience, said: str, say: Callable[[str], None]) -> str:
    """Tell the user once that object storage is away, and once that it is back. Returns what is true now."""
    if bool(patience.waiting) != bool(said):
        say(f"images wait: {patience.waiting}; trying again" if patience.waiting else "object storage answers again")
    return patience.waiting


def _whole(waiting: deque[Waiting]) -> Item | None:
    """The first of the rows that wait, if its pictures are there or are so within `PAUSE_S`. Raises StorageError."""
    item, jobs = waiting[0]
    if jobs and wait(jobs, PAUSE_S).not_done:
        return None
    for job in jobs:
        job.result()
    waiting.popleft()
    return item


def _urls(row: Row, identity: Identity, places: Places) -> list[str]:
    """The addresses of the pictures that a row names."""
    is_near = not (storage.is_address(places.root) or storage.is_address(places.other))
    if is_near and b":/" not in row.raw and b":\\/" not in row.raw:
        return []
    fields = identity.fields
    values: list[object] = []
    for name in (*IMAGE_FIELDS, *masks.FIELDS):
        value = fields.get(name)
        values += value if isinstance(value, list) else [value]
    values += images_in(fields)
    values = [value.get("path") or value.get("url") if isinstance(value, dict) else value for value in values]
    found = []
    for value in values:
        with suppress(InputError):  # the row will say so
            found += [url] if isinstance(value, str) and (url := places.address(value)) else []
    return found


def _plain(reason: str) -> str:
    """What a library says about a connection, in plain words."""
    if found := re.search(r"Failed to resolve '([^']+)'", reason):
        return f"the name {found[1]} is not known here"
    return re.sub(r"\[Errno[^]]*\] ?", "", reason)


def _fetch(client: Client, url: str, places: Places, patience: storage.Patience) -> None:
    """Raises StorageError if object storage does not answer."""
    reason = ""
    for attempt in range(1, TRIES + 1):
        try:
            if is_url(url):
                with up_to(MOST_BYTES):
                    data = client.fetch(url)
            else:
                data = storage.read(url, MOST_BYTES, patience)
            if not kind(data[:32]):
                reason = "what is there is no picture"
                break
            path = os.path.join(places.out, url_name(url))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            partial = f"{path}.{os.getpid()}-{threading.get_ident()}"
            with open(partial, "wb") as file:
                file.write(data)
            os.replace(partial, path)
            return
        except Fault as fault:
            reason = _plain(str(fault))
            if not getattr(fault, "again", False) or attempt == TRIES:
                break
        except FileNotFoundError:
            reason = f"there is no {url}"
            break
        except (ValueError, SettingsError) as error:
            reason = str(error).removeprefix(f"{url}: ")
            break
        except StorageError as error:
            if error.__cause__ is None or storage.is_passing(error.__cause__):
                raise
            reason = storage.reason(error.__cause__)
            break
        except OSError as error:
            reason = f"it cannot be kept: {error.strerror}"
            break
    places.unfetched[url] = reason
