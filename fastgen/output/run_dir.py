"""The run folder: who uses it, which settings it belongs to, and run.json. Does not know rows or workers."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

import fastgen
from fastgen.config.settings import Settings
from fastgen.errors import DiskError, RunFolderError
from fastgen.input.readers.python_rows import write_jsonl
from fastgen.input.readers.rows import estimate
from fastgen.output import artifacts, journal, names, previous
from fastgen.output.artifacts import IMAGES, LOGS, PARTIAL
from fastgen.output.mirror.mirror import Mirror
from fastgen.output.names import Layout
from fastgen.output.other_settings import differences, read_run
from fastgen.output.previous import FAILURES, JOURNAL, RESULTS, RUN

SPOOL = "rows.jsonl"
"""Rows from Python are written here, so that they can be read twice."""
INPUTS = "inputs"
"""Images that came from Python as objects, named by their content. --fresh leaves them in place."""
OURS = (RUN, RESULTS, FAILURES, JOURNAL, IMAGES, LOGS)
LOCK = ".lock"
LOCK_S = 0.3
"""Time to claim a folder: `fastgen status` looks at the lock for a moment."""


class RunFolder:
    """Claim a folder for these settings: locked, cleaned of half-written files, checked against run.json.

    If the settings have no input file, call `spool` next, because only then is it known what the run reads.

    Args:
        check: is called once the folder is claimed, before anything in it is changed; may raise RunFolderError.

    Raises:
        RunFolderError: it is in use, not writable, was made with settings that change results, or --fresh would move
            something that the run reads.
    """

    def __init__(self, settings: Settings, check: Callable[[], None] = lambda: None):
        self.settings = settings
        self.path = Path(settings.run.out)
        self.started = time.time()
        self.warning = ""
        """Notes for the user about what was in the folder."""
        self.notes: list[str] = []
        """Notes for run.json besides those of the settings."""
        self._state = ""
        self._served: dict[str, str] = {}
        """Backend -> the model that its server chose, where none was named."""
        self._fingerprint = settings.fingerprint()  # only once, because it reads the files of LoRAs
        self._refuse_own_files()
        self._lock = self._claim()
        self.layout = Layout()
        """How it names its images."""
        self.mirror: Mirror | None = None
        """Of a run whose results go to object storage."""
        with self._or_let_go():
            check()
            if settings.run.store:
                self.mirror = Mirror(settings.run.store, self.path, settings.run.fresh, bool(settings.rows.name))
            self._before = self._check()
            self._served.update(self._served_before())
            self.layout = self._layout()
            artifacts.clear_partial(self.path)
            if settings.run.input or not settings.run.fresh:
                self._begin(settings.run.input)

    def spool(self, rows: Iterable[dict]) -> str:
        """Write rows that come from Python into the folder. Returns the path of the file. Raises RunFolderError,
        SettingsError."""
        with self._or_let_go():
            spooled = self.path / PARTIAL / SPOOL
            write_jsonl(spooled, rows, self.path / INPUTS)
            if not self._state:
                self._begin(str(spooled))
            place = self.path / SPOOL
            if (self._before or {}).get("input") != "":  # else it has the rows of the earlier run
                place = next(path for i in range(10**6) if not (path := _numbered(self.path / SPOOL, i)).exists())
            os.rename(spooled, place)
            return str(place)

    def write_run(self, **more: Any) -> None:
        """Write run.json: settings, versions, hardware, and `more` about the progress. Raises DiskError."""
        self._state = more.get("state", self._state)
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
            "names": msgspec.structs.asdict(self.layout),
            "input": settings.run.input,
            "limit": settings.run.limit,
            **({"rows": settings.run.only_rows} if settings.run.only_rows else {}),
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
            **({"memory": settings.fit.as_table()} if settings.fit else {}),
            "notes": [*settings.run.notes, *self.notes],
            **({"served": self._served} if self._served else {}),
            **more,
        }
        artifacts.write(self.path, RUN, (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode())

    def check_served(self, backend: str, model: str) -> None:
        """A server of which any model was wanted answers with this one. Raises RunFolderError if the folder has results
        of another one; DiskError."""
        before = self._served.get(backend, model)
        if before != model:
            raise RunFolderError(
                f"--model auto: {backend} at --base-url now serves {model}, but {self.path} has results of {before}. "
                f"Name the model with --model in a folder of its own{self._or_fresh()}, or serve {before} again"
            )
        if backend not in self._served:
            self._served[backend] = model
            self.write_run(state=self._state)

    @property
    def tables_before(self) -> object:
        """What the run before this one said about its tables; None if it did not finish."""
        return None if self.settings.run.fresh else (self._before or {}).get("tables")

    @property
    def cost_before(self) -> float:
        """USD that the folder had cost when the earlier run ended, by its run.json; 0 if it does not say, or with
        --fresh."""
        usd = 0 if self.settings.run.fresh else (self._before or {}).get("cost_usd")
        return float(usd) if isinstance(usd, int | float) and math.isfinite(usd) else 0.0

    def close(self) -> None:
        """Release the folder. A run that ended without saying how, for example by an unexpected error, is recorded as
        stopped."""
        if self._state in ("starting", "running"):
            with suppress(DiskError):
                self.write_run(state="stopped")
        if self.mirror is not None:
            self.mirror.close()
        artifacts.remove_partial(self.path)
        self._lock.release()

    def _begin(self, input: str) -> None:
        """Prepare the folder for the run, whose rows are in that file. Raises RunFolderError, OSError, DiskError."""
        if self.settings.run.fresh:
            self._start_over(input)
        # This comes first, so that the folder is recognised as ours whenever the run is killed later.
        self.write_run(state="starting")
        artifacts.prepare(self.path)

    @contextmanager
    def _or_let_go(self) -> Iterator[None]:
        """Release the folder if the block fails."""
        try:
            yield
        except BaseException as error:
            self._state = ""
            if self.mirror is not None:
                self.mirror.close()
            with suppress(OSError):
                artifacts.remove_partial(self.path)
            self._lock.release()
            if isinstance(error, OSError):
                raise self._not_writable(error) from None
            if isinstance(error, DiskError):
                raise RunFolderError(f"-o {self.path}: {error}") from None
            raise

    def _refuse_own_files(self) -> None:
        """Raise RunFolderError if INPUT is a file that the run writes."""
        real = os.path.realpath(self.path)
        run = self.settings.run
        written = [os.path.join(real, name) for name in (RESULTS, FAILURES, JOURNAL, RUN)]
        written += [f"{run.store}/{name}" for name in (RESULTS, FAILURES) if run.store]
        if run.input in written or (run.input and os.path.realpath(run.input) in written):
            raise RunFolderError(
                f"-o {run.store or self.path}: INPUT is a table of this run and would be overwritten; use another "
                "folder with -o"
            )

    def _claim(self) -> FileLock:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK)
            lock.acquire(timeout=LOCK_S, poll_interval=0.02)
        except Timeout:
            raise RunFolderError(
                f"-o {self.path}: another fastgen (process {self._holder()}) is using it; wait for it or choose "
                "another folder"
            ) from None
        except OSError as error:
            raise self._not_writable(error) from None
        return lock

    def _start_over(self, input: str) -> None:
        """Move aside what is here, unless the run reads it. Raises RunFolderError, OSError, DiskError."""
        if read := previous.read_by(self.settings, input, self.path):
            raise RunFolderError(
                f"-o {self.path}: --fresh would move {read}, which this run reads; use another folder with -o"
            )
        if aside := previous.move_aside(self.path):
            self.warning = (
                f"what was in {self.path} is now in {self.path / aside}; delete that folder if you do not need it"
            )

    def _check(self) -> dict | None:
        """Compare with the earlier run in this folder. Returns its run.json. Raises RunFolderError, OSError."""
        before, fresh = read_run(self.path), self.settings.run.fresh
        if before is None:
            self._check_owner()
        self._check_kinds()
        if fresh or before is None:
            return before
        if (self.path / JOURNAL).exists() and (self.path / JOURNAL).stat().st_size:
            self._check_settings(before["settings"])
        if not journal.has_results(self.path / JOURNAL):
            self._check_loss(before)
        if before.get("input") != self.settings.run.input and (self.path / RESULTS).exists():
            kept = next(path for i in range(1, 10**6) if not (path := _numbered(self.path / RESULTS, i)).exists())
            os.rename(self.path / RESULTS, kept)
            self.warning = (
                f"{self.path} had the table of another INPUT ({before.get('input')}); it is kept as {kept.name}"
            )
        return before

    def _layout(self) -> Layout:
        """As it was when the folder was made; of a new one by the number of its rows."""
        settings = self.settings
        if self._before is not None and not settings.run.fresh:
            said = self._before.get("names")
            return msgspec.convert(said, Layout) if isinstance(said, dict) else Layout()
        rows = estimate(settings.run.input, settings.run.limit) if settings.run.input else 0
        return Layout(numbered=True, folders=settings.task != "caption" and rows * settings.image.n > names.IN_FOLDER)

    def _served_before(self) -> dict[str, str]:
        """The models that served the results in the folder."""
        before = {} if self.settings.run.fresh else self._before or {}
        served = before.get("served")
        if not journal.has_results(self.path / JOURNAL) or not isinstance(served, dict):
            return {}
        return {str(backend): str(model) for backend, model in served.items()}

    def _check_kinds(self) -> None:
        """Raise RunFolderError if a file of the run is something else: reading a pipe may wait forever."""
        for name in OURS:
            path, folder = self.path / name, name in (IMAGES, LOGS)
            if path.exists() and not (path.is_dir() if folder else path.is_file()):
                raise RunFolderError(
                    f"-o {self.path}: {name} is not a {'folder' if folder else 'file'}; move it away, or use another "
                    "folder"
                )

    def _check_owner(self) -> None:
        """Raise RunFolderError if there is no run.json that says to whom the folder belongs."""
        theirs = next((path.name for path in self._possessions()), "")
        if theirs and not (self.path / JOURNAL).exists():
            raise RunFolderError(
                f"-o {self.path}: contains {theirs} but was not made by fastgen; choose another folder"
            )
        if theirs and not self.settings.run.fresh:
            raise RunFolderError(
                f"-o {self.path}: its run.json is missing or damaged, so its settings are unknown; restore it"
                f"{self._or_fresh()}, or use another folder"
            )

    def _possessions(self) -> list[Path]:
        """The things here of the kinds that runs make. An empty folder for images that is a link or a mount was made
        for a run."""
        found = [path for name in OURS if os.path.lexists(path := self.path / name)]
        pictures = self.path / IMAGES
        if pictures in found and artifacts.is_elsewhere(pictures) and not any(previous.images(self.path)):
            found.remove(pictures)
        return found

    def _check_loss(self, before: dict) -> None:
        """Raise RunFolderError if results exist without a journal: all of them would be made again."""
        counts = before.get("counts")
        if (self.path / JOURNAL).exists():  # and holds no result, as always before the first one
            made = isinstance(counts, dict) and (counts.get("done") or counts.get("failed"))
            state = "is damaged" if (self.path / JOURNAL).stat().st_size else "is empty"
            problem = f"{JOURNAL} {state}, but run.json says that rows were done" if made else ""
        else:
            left = next((path.name for path in previous.tables(self.path)), "")
            left = left or next((f"{IMAGES}/{path.name}" for path in previous.images(self.path)), "")
            problem = f"{JOURNAL} is missing, but {left} is there" if left else ""
        if problem:
            raise RunFolderError(
                f"-o {self.path}: {problem}. Without the journal every row would be made again; restore it"
                f"{self._or_fresh()}, or use another folder"
            )

    def _check_settings(self, then: dict) -> None:
        """Raise RunFolderError if these settings would give different results."""
        if changed := differences(then, self.settings, lambda: self._fingerprint):
            raise RunFolderError(
                f"-o {self.settings.run.store or self.path}: contains a run with other settings "
                f"({'; '.join(changed)}). Use the same settings to continue it{self._or_fresh()}, or use another folder"
            )

    def _or_fresh(self) -> str:
        """The advice to start over, unless the run reads what --fresh would move, or nothing can be moved."""
        if self.settings.run.store or previous.read_by(self.settings, self.settings.run.input, self.path):
            return ""
        return ", use --fresh to start over (the earlier files are moved aside)"

    def _holder(self) -> object:
        return (read_run(self.path) or {}).get("pid", "unknown")

    def _not_writable(self, error: OSError) -> RunFolderError:
        return RunFolderError(f"-o {self.path}: cannot write there: {error.strerror}; choose another folder")


def _numbered(path: Path, number: int) -> Path:
    """rows.jsonl, rows-1.jsonl, ..."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
