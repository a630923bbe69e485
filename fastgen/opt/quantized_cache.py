"""Quantized weights of earlier starts, so that the next one neither reads the full ones nor quantizes them again.

A file each for a transformer and a T5, in the cache folder under `quantized`, named after all that decides what is in
it; the least recently used are removed where they get too many. FASTGEN_KEEP_QUANTIZED is how many GiB they may take; 0
keeps none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from fastgen.config.cache import cache_folder
from fastgen.config.hardware import is_out_of_memory
from fastgen.config.optimizations import Optimizations
from fastgen.errors import ModelError, SettingsError
from fastgen.opt import quantized_state
from fastgen.opt.quantized_file import read, write

log = logging.getLogger(__name__)

KEEP = "FASTGEN_KEEP_QUANTIZED"
MOST_GIB = 50.0
SUFFIX = ".weights"
LIBRARIES = ("torch", "diffusers", "transformers", "bitsandbytes", "torchao", "safetensors")
CODE = tuple(Path(__file__).with_name(f"{name}.py") for name in ("layout", "quantize", "quantized_state"))
"""What decides which layers are quantized and how: another version of it makes files of its own."""
STALE_S = 3600.0
"""A temporary file as old as that belongs to nobody any more."""


class CachedWeights:
    """The quantized weights of one part of a model: those of an earlier start, or where to keep those of this one."""

    def __init__(self, path: Path, most_bytes: int, device: torch.device):
        self.path = path
        self.most_bytes = most_bytes
        self.notes: list[str] = []
        """What the user should be told."""
        self.seconds = 0.0
        """That reading took."""
        self._found: tuple[dict, dict] | None = None
        started = time.monotonic()
        try:
            self._found = read(path, device)
            os.utime(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except Exception as error:
            if is_out_of_memory(error):  # no fault of the file's
                raise
            if self._found is None:  # else it is good and lies where nothing can be written
                self.notes.append(f"{path} is damaged or cannot be read ({error}): quantizing again")
                log.warning(self.notes[-1])
                if not isinstance(error, OSError):  # a disk that does not answer now may do so later
                    with suppress(OSError):
                        path.unlink()
        self.seconds = time.monotonic() - started

    @property
    def is_there(self) -> bool:
        return self._found is not None

    def fill(self, module: torch.nn.Module, device: torch.device) -> None:
        """Give them to a module without weights, once."""
        started = time.monotonic()
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
        """Write down those of a module that was just quantized. That it cannot be done is no failure."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.parent.with_suffix(".lock"), timeout=0):
                if not self.path.exists():
                    self._keep(*quantized_state.take_apart(module))
        except Timeout:  # another process is at it
            return
        except Exception as error:  # whatever it is, the model is there and works
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
    optimizations: Optimizations, sources: dict[str, dict], model: str, device: torch.device
) -> dict[str, CachedWeights]:
    """The place of each part that is to be quantized, with its weights if they are there.

    Args:
        sources: for each part that may be cached ("transformer", "text") all that decides what its weights are before
            they are quantized, as JSON.
        model: what to call it in file names.
        device: where the weights are to be.

    Raises:
        SettingsError: a limit that is not a number.
    """
    try:
        most = float(os.environ.get(KEEP) or MOST_GIB)
    except ValueError:
        raise SettingsError(
            f"{KEEP}={os.environ[KEEP]}: GiB that quantized weights may take, such as 50; 0 keeps none"
        ) from None
    if not most > 0:
        return {}
    return {
        part: CachedWeights(folder() / _name(optimizations, part, source, model, device), int(most * 2**30), device)
        for part, source in sources.items()
        if getattr(optimizations.quantize, part) != "none"
    }


def folder() -> Path:
    return cache_folder() / "quantized"


def _name(optimizations: Optimizations, part: str, source: dict, model: str, device: torch.device) -> str:
    """All that decides what is in a file is in its name."""
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
    """Remove what was used least recently until there is room; why there is none all the same, or ""."""
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
        return f"they would take more than half of the {free / 2**30:.1f} GiB that are free in {place}"
    for _, _, path in gone:
        with suppress(OSError):
            path.unlink()
    return ""
