"""Stores quantized weights, so that the next start neither reads the full ones nor quantizes them again.

There is one file per transformer and one per T5, in the cache folder under `quantized`. Its name depends on everything
that decides its content. The least recently used files are removed if they get too many. FASTGEN_KEEP_QUANTIZED is how
many GiB they may use; 0 stores none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from fastgen.config.cache import cache_folder
from fastgen.config.device_errors import is_out_of_memory
from fastgen.config.optimizations import Optimizations
from fastgen.errors import ModelError, SettingsError
from fastgen.opt import quantized_state
from fastgen.opt.quantized_file import read, write

log = logging.getLogger(__name__)

KEEP = "FASTGEN_KEEP_QUANTIZED"
MOST_GIB = 50.0
SUFFIX = ".weights"
LIBRARIES = ("torch", "diffusers", "transformers", "bitsandbytes", "torchao", "safetensors")
CODE = tuple(
    Path(__file__).with_name(f"{name}.py")
    for name in ("layout", "quantize", "block_scaled", "blackwell", "quantized_state")
)
"""Version of the code that decides which layers are quantized and how; another version makes files of its own."""
STALE_S = 3600.0
"""A temporary file of this age no longer belongs to a running process."""


class CachedWeights:
    """The quantized weights of one part of a model: those of an earlier start, or the place to store those of this
    one."""

    def __init__(self, path: Path, most_bytes: int, device: torch.device):
        self.path = path
        self.most_bytes = most_bytes
        self.notes: list[str] = []
        """Notes for the user."""
        self.seconds = 0.0
        """Seconds that reading took."""
        self._found: tuple[dict, dict] | None = None
        started = time.monotonic()
        try:
            self._found = read(path, device)
            os.utime(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except Exception as error:
            if is_out_of_memory(error):  # this is not the file's fault
                raise
            if self._found is None:  # else it is good, in a folder that cannot be written
                self.notes.append(f"{path} is damaged or cannot be read ({error}), so the weights are quantized again")
                log.warning(self.notes[-1])
                if not isinstance(error, OSError):  # a disk that does not answer now may answer later
                    with suppress(OSError):
                        path.unlink()
        self.seconds = time.monotonic() - started

    @property
    def is_there(self) -> bool:
        return self._found is not None

    def fill(self, module: torch.nn.Module, device: torch.device) -> None:
        """Put them into a module without weights. Call it once."""
        started = time.monotonic()
        assert self._found is not None
        tensors, about = self._found
        self._found = None
        try:
            quantized_state.put_together(module, tensors, about, device)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            with suppress(OSError):
                self.path.unlink()
            raise ModelError(f"{self.path} does not fit ({error}); it is removed, start again") from error
        self.seconds += time.monotonic() - started

    def keep(self, module: torch.nn.Module) -> None:
        """Store the weights of a module that was just quantized. If this is impossible, that is not a failure."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.parent.with_suffix(".lock"), timeout=0):
                if not self.path.exists():
                    self._keep(*quantized_state.take_apart(module))
        except Timeout:  # another process is writing it
            return
        except Exception as error:  # whatever the reason, the model is loaded and works
            reason = getattr(error, "strerror", None) or error
            self.notes.append(f"quantized weights are not kept: {self.path.parent}: {reason}")
            log.info(self.notes[-1])

    def _keep(self, tensors: dict[str, torch.Tensor], about: dict[str, tuple]) -> None:
        size = sum(tensor.nbytes for tensor in tensors.values())
        weight = f"{size / 2**30:.1f} GiB" if size > 2**28 else f"{size / 2**20:.1f} MiB"
        if reason := _make_room(self.path.parent, size, self.most_bytes):
            self.notes.append(f"quantized weights ({weight}) are not kept: {reason}")
        else:
            write(self.path, tensors, about)
            self.notes.append(f"quantized weights kept for the next start: {self.path}, {weight} ({KEEP}=0 keeps none)")
        log.info(self.notes[-1])


def find(
    optimizations: Optimizations,
    sources: dict[str, dict],
    model: str,
    device: torch.device,
    away: Collection[str] = (),
) -> dict[str, CachedWeights]:
    """Where the weights of each part that is to be quantized are stored, with the weights if they exist.

    Args:
        sources: for each part that may be cached ("transformer", "text"), everything that decides its weights before
            they are quantized, as JSON.
        model: its name in file names.
        device: where the weights will be.
        away: the parts that are there only while they are needed; until then they are in main memory.

    Raises:
        SettingsError: a limit that is not a number.
    """
    try:
        most = float(os.environ.get(KEEP) or MOST_GIB)
    except ValueError:
        raise SettingsError(
            f"{KEEP}={os.environ[KEEP]}: must be the GiB that quantized weights may use, such as 50; 0 stores none"
        ) from None
    if not most > 0:
        return {}
    return {
        part: CachedWeights(
            folder() / _name(optimizations, part, source, model, device),
            int(most * 2**30),
            torch.device("cpu") if part in away else device,
        )
        for part, source in sources.items()
        if getattr(optimizations.quantize, part) != "none"
    }


def folder() -> Path:
    return cache_folder() / "quantized"


def _name(optimizations: Optimizations, part: str, source: dict, model: str, device: torch.device) -> str:
    """Everything that decides the content of a file is in its name."""
    kind = getattr(optimizations.quantize, part)
    decides = {
        "source": source,
        "part": part,
        "kind": kind,
        "device": device.type,
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in CODE],
        "libraries": {name: _version(name) for name in LIBRARIES},
        "fuse_qkv": part == "transformer" and optimizations.layout.fuse_qkv,
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model).name)[:60]
    return f"{name}-{part}-{kind}-{digest}{SUFFIX}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _make_room(place: Path, size: int, most: int) -> str:
    """Remove the least recently used files until there is room. Returns why there is still none, or ""."""
    if size > most:
        return f"{KEEP} allows {most / 2**30:.3g} GiB"
    files = []
    for path in place.iterdir():
        with suppress(OSError):  # another process may remove it
            about = path.stat()
            if path.suffix == SUFFIX:
                files.append((about.st_mtime, about.st_size, path))
            elif time.time() - about.st_mtime > STALE_S:
                path.unlink()
    files.sort(reverse=True)
    gone = []
    while files and sum(bytes for _, bytes, _ in files) + size > most:
        gone.append(files.pop())
    free = shutil.disk_usage(place).free + sum(bytes for _, bytes, _ in gone)
    if 2 * size > free:
        return f"they would use more than half of the {free / 2**30:.1f} GiB that are free in {place}"
    for _, _, path in gone:
        with suppress(OSError):
            path.unlink()
    return ""
