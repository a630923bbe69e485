"""The run folder: who uses it, which settings it belongs to, and run.json. Does not know rows or workers."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

import fastgen
from fastgen.config.settings import Settings
from fastgen.errors import FastgenError, RunFolderError
from fastgen.input.readers.rows import write_jsonl
from fastgen.output import artifacts
from fastgen.output.artifacts import IMAGES, LOGS, PARTIAL

RUN = "run.json"
RESULTS = "results.jsonl"
FAILURES = "failures.jsonl"
JOURNAL = "journal.jsonl"
SPOOL = "rows.jsonl"
"""Rows from Python are written here, so that they can be read twice."""
_LOCK = ".lock"


class RunFolder:
    """Claim a folder for these settings: locked, cleaned of half-written files, checked against run.json.

    Raises:
        RunFolderError: it is in use, not writable, or was made with settings that change results.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.path = Path(settings.run.out)
        self.started = time.time()
        self._fingerprint = settings.fingerprint()  # once: it reads the ends of the LoRA files
        self.warning = ""
        """Notes for the user about what was in the folder."""
        if settings.run.input and Path(settings.run.input) in (self.path / RESULTS, self.path / FAILURES):
            raise RunFolderError(
                f"-o {self.path}: INPUT is a table of this run and would be overwritten; use another folder with -o"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / _LOCK)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(
                f"-o {self.path}: another fastgen (process {self._holder()}) is using it; wait for it or choose "
                "another folder"
            ) from None
        except OSError as error:
            raise RunFolderError(
                f"-o {self.path}: cannot write there: {error.strerror}; choose another folder"
            ) from None
        try:
            self._check()
            artifacts.clear_partial(self.path)
            # This comes first, so that the folder is recognised as ours whenever the run is killed later.
            self.write_run(state="starting")
            artifacts.prepare(self.path)
        except OSError as error:
            self._lock.release()
            raise RunFolderError(
                f"-o {self.path}: cannot write there: {error.strerror}; choose another folder"
            ) from None
        except FastgenError as error:
            self._lock.release()
            raise error if isinstance(error, RunFolderError) else RunFolderError(f"-o {self.path}: {error}") from None

    def write_run(self, **more) -> None:
        """Write run.json: settings, versions, hardware, and `more` about the progress."""
        settings = self.settings
        devices = [
            {
                "name": d.name,
                "threads": d.threads,
                "gpu": d.gpu.name if d.gpu else None,
                "memory_gib": d.gpu.memory_gib if d.gpu else None,
            }
            for d in settings.placement.devices
        ]
        about = {
            "fastgen": fastgen.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "pid": os.getpid(),
            "started": _clock(self.started),
            "written": _clock(time.time()),
            "input": settings.run.input,
            "settings": self._fingerprint,
            "model_folder": settings.model.path,
            "devices": devices,
            "batch_size": settings.run.batch_size or "auto",
            "profile": {
                "name": settings.placement.profile.name,
                "matched_on": settings.placement.profile.why,
                "measured": settings.placement.profile.measured.status,
            },
            **({"speed": settings.optimizations.as_table()} if settings.backend.optimizes else {}),
            "notes": list(settings.run.notes),
            **more,
        }
        artifacts.write(self.path, RUN, (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())

    def spool(self, rows: Iterable[dict]) -> str:
        """Write rows that come from Python into the folder. Returns the path of the file. Raises RunFolderError,
        SettingsError."""
        try:
            write_jsonl(self.path / SPOOL, rows)
        except OSError as error:
            self.close()
            raise RunFolderError(f"-o {self.path}: cannot write there: {error.strerror}") from None
        except BaseException:
            self.close()
            raise
        return str(self.path / SPOOL)

    def close(self) -> None:
        shutil.rmtree(self.path / PARTIAL, ignore_errors=True)
        self._lock.release()

    def _check(self) -> None:
        """Compare with the earlier run in this folder, or clear the folder for --fresh."""
        before = self._read_run()
        ours = [RUN, RESULTS, FAILURES, JOURNAL, IMAGES, LOGS]
        if before is None:
            foreign = [name for name in ours if (self.path / name).exists()]
            if foreign and not (self.path / JOURNAL).exists():
                raise RunFolderError(
                    f"-o {self.path}: contains {foreign[0]} but was not made by fastgen; choose another folder"
                )
            if foreign and not self.settings.run.fresh:
                raise RunFolderError(
                    f"-o {self.path}: its run.json is missing or damaged, so its settings are unknown; "
                    "use --fresh to start over, or another folder"
                )
        if self.settings.run.fresh:
            for name in (*ours[1:], RUN):  # run.json last: a half-cleared folder is still recognised as ours
                target = self.path / name
                if target.is_dir():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)
            return
        if before and (self.path / JOURNAL).exists() and (self.path / JOURNAL).stat().st_size:
            self._check_settings(before["settings"])
        if before and before.get("input") != self.settings.run.input and (self.path / RESULTS).exists():
            kept = next(n for i in range(1, 10**6) if not (self.path / (n := f"results-{i}.jsonl")).exists())
            os.rename(self.path / RESULTS, self.path / kept)
            self.warning = f"{self.path} had the table of another INPUT ({before.get('input')}); it is kept as {kept}"

    def _check_settings(self, then: dict) -> None:
        """Raise RunFolderError if these settings would give different results."""
        now = json.loads(json.dumps(self._fingerprint))
        changed = [
            f"{key}: {then.get(key)!r} before, {now.get(key)!r} now"
            for key in {**now, **then}  # what only one of them has is a difference too
            if then.get(key) != now.get(key)
        ]
        if changed:
            raise RunFolderError(
                f"-o {self.path}: contains a run with other settings ({'; '.join(changed)}). Use the same settings to "
                "continue it, --fresh to start over, or another folder"
            )

    def _read_run(self) -> dict | None:
        try:
            value = json.loads((self.path / RUN).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) and "settings" in value else None

    def _holder(self) -> object:
        return (self._read_run() or {}).get("pid", "unknown")


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
