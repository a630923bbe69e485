"""Quantized weights of earlier starts, so that the next one neither reads the full ones nor quantizes them again.

A file each for a transformer and a T5, in the cache folder under `quantized`, named after all that decides what is in
it; the least recently used are removed where they get too many. FASTGEN_KEEP_QUANTIZED is how many GiB they may take; 0
keeps none.

A file is the tensors one after the other, an index of them with a checksum each, and at the very end where the index
is.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import secrets
import shutil
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from fastgen import opt
from fastgen.config.model_cards import stamp
from fastgen.config.settings import Settings
from fastgen.errors import ModelError, SettingsError
from fastgen.opt import quantized_state
from fastgen.opt.compile import cache_folder
from fastgen.opt.out_of_memory import is_out_of_memory

log = logging.getLogger(__name__)

KEEP = "FASTGEN_KEEP_QUANTIZED"
MOST_GIB = 50.0
SUFFIX = ".weights"
LIBRARIES = ("torch", "diffusers", "transformers", "bitsandbytes", "torchao", "peft", "safetensors")
CODE = (
    Path(__file__).parents[1] / "backends" / "diffusion" / "load.py",
    Path(opt.__file__).with_name("quantize.py"),
    Path(opt.__file__).with_name("layout.py"),
    Path(quantized_state.__file__),
)
"""What decides which layers are packed how: another version of it makes files of its own."""
END = struct.Struct("<8sQQI")
"""Of a whole file: a word, where its index begins, how long that is, its checksum."""
WORD = b"fastgen1"
ALIGNED = 64
STALE_S = 3600.0
"""A temporary file as old as that belongs to nobody any more."""


class Damaged(Exception):
    """Not what was written."""


class Kept:
    """The quantized weights of one part of a model: those of an earlier start, or a place for those of this one."""

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


def find(settings: Settings, device: torch.device) -> dict[str, Kept]:
    """A `Kept` for each part that is to be quantized, by the names that `opt.quantize` has for them.

    Raises:
        SettingsError: a limit that is no number.
    """
    kinds = {"transformer": settings.optimizations.quantize, "text": settings.optimizations.quantize_text}
    try:
        most = float(os.environ.get(KEEP) or MOST_GIB)
    except ValueError:
        raise SettingsError(
            f"{KEEP}={os.environ[KEEP]}: GiB that quantized weights may take, such as 50; 0 keeps none"
        ) from None
    if not most > 0 or settings.model.synthetic:
        return {}
    if any(map(_touches_text_encoder, settings.engine.loras)):
        kinds["transformer"] = "none"  # the file could stand for one half of what such a LoRA changes only
    return {
        part: Kept(folder() / _name(settings, part, kind, device), int(most * 2**30), device)
        for part, kind in kinds.items()
        if kind != "none"
    }


def folder() -> Path:
    return cache_folder() / "quantized"


def _name(settings: Settings, part: str, kind: str, device: torch.device) -> str:
    decides = {
        "model": settings.model.fingerprint,
        "part": part,
        "kind": kind,
        "dtype": settings.engine.dtype,
        "device": device.type,
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in CODE],
        "libraries": {name: _version(name) for name in LIBRARIES},
    }
    if part == "transformer":
        decides |= {
            "file": stamp(Path(settings.engine.transformer)) if settings.engine.transformer else "",
            "loras": [(stamp(Path(path)), scale) for path, scale in settings.engine.loras],
            "fuse_qkv": settings.optimizations.fuse_qkv,
        }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    model = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(settings.model.name).name)[:60]
    return f"{model}-{part}-{kind}-{digest}{SUFFIX}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _touches_text_encoder(lora: tuple[str, float]) -> bool:
    from safetensors import safe_open

    try:
        with safe_open(lora[0], "pt") as file:
            return any("text_encoder" in key or "lora_te" in key for key in file.keys())  # noqa: SIM118
    except Exception:  # whoever loads it will say what is wrong with it
        return True


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


def write(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, tuple]) -> None:
    """Whole or not at all, whoever else writes it. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    index = {}
    try:
        with temporary.open("wb") as file:
            for name, tensor in tensors.items():
                file.write(bytes(-file.tell() % ALIGNED))
                data = _bytes(tensor.cpu())
                index[name] = (file.tell(), zlib.crc32(data), tensor.dtype, tensor.shape)
                file.write(data)
            said = io.BytesIO()
            torch.save((index, about), said)
            at = file.tell()
            file.write(said.getvalue())
            file.write(END.pack(WORD, at, len(said.getvalue()), zlib.crc32(said.getvalue())))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def read(path: Path, device: torch.device) -> tuple[dict[str, torch.Tensor], dict[str, tuple]]:
    """Tensors on a device, and what goes with them. The CPU's memory never holds more than a few of those for a GPU.

    Raises:
        FileNotFoundError. Damaged: it is not what was written.
    """
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        try:
            file.seek(length - END.size)
            word, at, size, checksum = END.unpack(file.read(END.size))
        except (OSError, struct.error):
            raise Damaged("it is cut off") from None
        if word != WORD or at + size + END.size != length:
            raise Damaged("it is cut off")
        file.seek(at)
        if zlib.crc32(said := file.read(size)) != checksum:
            raise Damaged("its index has another checksum")
        with suppress(ImportError):  # it says which of its classes may be read
            import torchao.quantization  # noqa: F401
        index, about = torch.load(io.BytesIO(said), weights_only=True)

        def one(name: str) -> torch.Tensor:
            start, checksum, dtype, shape = index[name]
            tensor = torch.empty(shape, dtype=dtype)
            data, done = _bytes(tensor), 0
            while done < len(data):
                if not (count := os.preadv(file.fileno(), [data[done:]], start + done)):
                    raise Damaged("it is cut off")
                done += count
            if zlib.crc32(data) != checksum:
                raise Damaged(f"{name} has another checksum")
            return tensor.to(device)

        with ThreadPoolExecutor(4) as pool:
            return dict(zip(index, pool.map(one, index), strict=True)), about


def _bytes(tensor: torch.Tensor) -> memoryview:
    """A contiguous tensor's own memory."""
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
