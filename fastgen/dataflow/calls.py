"""A call of a serving as one run of fastgen: rows in, one answer per row out, in the same order. Does not know keys or
file names.

The run folder of a call depends on the settings that change results. So the same call continues a killed one, and other
settings get a folder of their own. A row is known by what it says and by the size and time of its images, never by its
position; equal rows of one call are told apart by a counter.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

import fastgen
from fastgen.dataflow import get_logger
from fastgen.dataflow.services import KEYS

OUTPUTS = {"t2i": "images", "edit": "edited_images", "caption": "caption"}
RUNS = ".fastgen"
"""The folder with the run folders, inside the folder of a call's results."""
_said: set[str] = set()


class Answer(msgspec.Struct, frozen=True):
    """The answer for one row."""

    value: list[str] | str
    """Paths of its images, or its text; [] or "" if it failed."""
    kind: str = ""
    """Why it failed, as in fastgen's docs/rows.md; "" if it did not."""
    message: str = ""

    @property
    def text(self) -> str:
        """Its `value` if a text was asked for."""
        assert isinstance(self.value, str)
        return self.value

    @property
    def paths(self) -> list[str]:
        """Its `value` if images were asked for."""
        assert isinstance(self.value, list)
        return self.value


Tell = Callable[[int, Answer], None]
"""Called with the number of a row and its answer, once per row, as the answers come."""


def check(task: str, *, key: str = "", **flags: Any) -> fastgen.Settings:
    """The settings with which a call would run. Starts nothing. Raises SettingsError."""
    with _environment(KEYS.get(flags.get("backend", ""), ""), key):
        return fastgen.resolve(task, image_root="/", retry_failed=True, **flags)


def ask(
    session: fastgen.Session,
    task: str,
    rows: list[dict],
    folder: Path,
    tell: Tell,
    *,
    key: str = "",
    server: tuple[str, ...] = (),
    stream: bool = False,
    progress: bool = False,
    worded: Callable[[str], str] = str,
    **flags: Any,
) -> None:
    """Run the rows in a run folder under `folder`, and report the answer of each.

    Args:
        session: keeps the engines between calls.
        task: t2i, edit or caption.
        key: of the service; it is put only into the environment, and only during the call.
        server: more arguments for a vLLM server that is started.
        stream: ask for chat answers as streams.
        progress: show how far the run is, as `fastgen.generate` does.
        worded: rewrites log messages in the caller's terms.
        flags: of `fastgen.resolve`.

    Raises:
        FastgenError: the run cannot start or continue; what was reported is safe, and the same call continues from
            there.
    """
    if not rows:
        return
    settings = check(task, key=key, **flags)
    for note in dict.fromkeys(note for note in settings.run.notes if note not in _said):
        _said.add(note)
        get_logger().warning("%s", worded(note))
    command = settings.endpoint.command
    endpoint = replace(settings.endpoint, command=(*command, *server) if command else (), stream=stream)
    out = _run_folder(settings, server, folder)
    settings = replace(settings, endpoint=endpoint, run=replace(settings.run, out=str(out.absolute())))
    empty: list[str] | str = "" if task == "caption" else []
    named, unfit = _identify(rows, empty)
    places = {row["id"]: place for place, row in enumerate(named)}
    done: set[int] = set()

    def settle(place: int, answer: Answer) -> None:
        if place not in done:
            done.add(place)
            tell(place, unfit.get(place, answer))

    with _environment(KEYS.get(settings.backend.name, ""), key):
        for result in session.generate(settings, named, partial(_emit, worded), progress):
            if isinstance(result, fastgen.Failed):
                settle(places[result.id], Answer(empty, result.kind, result.message))
            else:
                paths = [str(out / path) for path in result.paths]
                settle(places[result.id], Answer(result.text if task == "caption" else paths))
    for place, answer in enumerate(_table(task, out, empty)):  # also those of earlier calls
        settle(place, answer)


def _run_folder(settings: fastgen.Settings, server: tuple[str, ...], folder: Path) -> Path:
    """The run folder for calls with these settings; it is made if it is not there."""
    told = json.dumps([settings.fingerprint(), server], sort_keys=True).encode()
    out = folder / RUNS / f"{settings.task}-{blake2b(told, digest_size=6).hexdigest()}"
    out.mkdir(parents=True, exist_ok=True)
    return out


def _table(task: str, out: Path, empty: list[str] | str) -> Iterator[Answer]:
    with (out / "results.jsonl").open("rb") as file:
        for line in file:
            row = msgspec.json.decode(line)
            if error := row["fastgen"].get("error"):
                yield Answer(empty, error["kind"], error["message"])
            else:
                value = row[OUTPUTS[task]]
                yield Answer(value if task == "caption" else [str(out / path) for path in value])


def _identify(rows: list[dict], empty: list[str] | str) -> tuple[list[dict], dict[int, Answer]]:
    """The rows with ids, and answers for those that cannot be written as JSON."""
    named: list[dict] = []
    unfit: dict[int, Answer] = {}
    seen: Counter[str] = Counter()
    for place, row in enumerate(rows):
        try:
            told = msgspec.json.encode(row, order="sorted")
        except (TypeError, ValueError, RecursionError, UnicodeError) as error:
            unfit[place] = Answer(empty, "input", f"row {place + 1}: {error}")
            row, told = {}, str(place).encode()
        for path in (*row.get("images", ()), *filter(None, [row.get("mask")])):
            told += _stamp(path)
        id = blake2b(told, digest_size=10).hexdigest()
        seen[id] += 1
        named.append({"id": id if seen[id] == 1 else f"{id}_{seen[id]}", **row})
    return named, unfit


def _stamp(path: Any) -> bytes:
    """Tells an image from another one that had the same path before."""
    try:
        found = os.stat(path)
    except (OSError, ValueError, TypeError):
        return b"-"
    return b"%d:%d;" % (found.st_size, found.st_mtime_ns)


def _emit(worded: Callable[[str], str], event: str, **facts: Any) -> None:
    if event == "warning":
        get_logger().warning("%s", worded(facts["message"]))
    elif event in ("lane_died", "lane_restarted"):
        then = "; restarting it" if facts.get("restarting", True) else ""
        get_logger().warning("%s: %s%s", facts["lane"], facts["reason"].splitlines()[0], then)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set the variable to the value inside the block."""
    if not name or not value:
        yield
        return
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
