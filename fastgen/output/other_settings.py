"""Whether a run folder belongs to other settings, and which folder beside it does not. Reads run.json; writes
nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from fastgen.config import stamps
from fastgen.config.settings import Settings
from fastgen.errors import quoted
from fastgen.output import journal
from fastgen.output.previous import JOURNAL, RUN


def read_run(folder: Path) -> dict | None:
    """run.json, if it belongs to a run."""
    if not (folder / RUN).is_file():
        return None
    try:
        value = json.loads((folder / RUN).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_run = isinstance(value, dict) and isinstance(value.get("settings"), dict) and "fastgen" in value
    return value if is_run else None


def differences(then: dict, settings: Settings, fingerprint: Callable[[], dict]) -> list[str]:
    """What these settings change in results, each as "steps: 28 before, 4 now".

    Args:
        then: `settings` of a run.json.
        fingerprint: gives that of the settings; making one reads weight files.

    Raises:
        OSError: a weight file cannot be read.
    """
    loras = then.get("lora")
    files = [then.get("transformer"), *(loras if isinstance(loras, list) else ())]
    by_ends = any(map(stamps.has_ends, files))  # from a version that did not hash more
    now = settings.fingerprint(stamps.ends) if by_ends else fingerprint()
    folder = Path(settings.model.path)
    if stamps.is_folder_by_ends(then.get("model_files")) and folder.is_dir():
        now = now | {"model_files": stamps.of_folder(folder, stamps.ends)}
    now = json.loads(json.dumps(now))
    return [
        f"{key}: {then.get(key)!r} before, {now.get(key)!r} now"
        for key in {**now, **then}  # what only one of them has is a difference too
        if then.get(key) != now.get(key)
    ]


def in_own_folder(settings: Settings) -> Settings:
    """The settings with the first of the folders t2i, t2i-2, t2i-3 ... that has no results of other settings, and with
    a note if that is not the first of all. The same command finds the same folder again."""
    first = folder = Path(settings.run.out)
    fingerprint = cache(settings.fingerprint)
    changed: list[str] = []
    for number in range(2, 10**6):
        try:
            found = _changed(folder, settings, fingerprint)
        except OSError:
            break  # the run itself will say which file cannot be read
        if not found:
            break
        changed = changed or found
        folder = first.with_name(f"{first.name}-{number}")
    if folder == first:
        return settings
    note = (
        f"{first} has a run with other settings ({quoted('; '.join(changed))}), so this one is in {folder}; -o names "
        "another folder"
    )
    here = [replace(link, run=replace(link.run, out=str(folder))) for link in settings.route]
    main = replace(here[0], run=replace(here[0].run, notes=(*here[0].run.notes, note)))
    return replace(main, fallbacks=tuple(replace(link, fallbacks=()) for link in here[1:]))


def _changed(folder: Path, settings: Settings, fingerprint: Callable[[], dict]) -> list[str]:
    """What differs from the run whose results are in the folder. Raises OSError."""
    before = read_run(folder)
    if before is None or not journal.has_results(folder / JOURNAL):
        return []
    return differences(before["settings"], settings, fingerprint)
