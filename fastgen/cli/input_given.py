"""What INPUT on the command line can be besides a path: `-` for standard input, or a prompt. Both become a file in the
run folder's `inputs/`, named by its content, so that the same command continues the run."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from fastgen.config.settings import Settings
from fastgen.errors import SettingsError
from fastgen.input import storage
from fastgen.input.embedded_pictures import FOLDER
from fastgen.input.readers import formats, rows
from fastgen.input.readers.rows import written
from fastgen.output.mirror.place import state_folder

STDIN = ("-", "/dev/stdin")
_COLUMNS = ("prompt", "text", "caption", "instruction", "image", "images", "file_name", "id", "question")
"""A first line with one of these among its cells is a header."""


def is_prompt(task: str, given: str) -> bool:
    """Whether INPUT is a prompt: words, and no path of a file."""
    if task != "t2i" or not re.search(r"\S\s+\S", given) or os.path.exists(given) or rows.files(given):
        return False
    return formats.of(Path(given)) is None and "://" not in given


def as_file(task: str, flags: dict, scratch: str) -> str:
    """Replace INPUT by the path of a file if it is standard input or a prompt, and set the flags that follow from that.

    Args:
        flags: by the names of `resolve`; changed.
        scratch: a folder for the file instead of the run folder's; "" for none.

    Returns:
        the prompt, if there is one and its pictures belong into the current folder.

    Raises:
        SettingsError: there is nothing on standard input, or the file cannot be written.
    """
    given = flags["input"]
    prompt = given if given is not None and is_prompt(task, given) else ""
    if given is None and task == "t2i" and flags.get("prompt"):
        prompt = flags["prompt"]
    if not prompt and given not in STDIN:
        return ""
    here = prompt if prompt and flags["out"] is None else ""
    if here:
        flags["out"] = Path("fastgen-runs") / f"t2i-{_slug(prompt)}-{_digest(flags)}"
    if given in STDIN and flags.get("image_root") is None and task != "t2i":
        flags["image_root"] = Path.cwd()
    out = Path(scratch or _run_folder(flags) or Path("fastgen-runs") / task).expanduser()
    try:
        folder = out / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        if prompt:
            flags["input"] = _keep(folder, "prompt", ".jsonl", written({"prompt": prompt}) + b"\n")
        else:
            flags["input"] = _keep_stdin(folder, sys.stdin.buffer)
    except OSError as error:
        raise SettingsError(f"INPUT {given}: cannot be kept in {out}: {error.strerror}; choose another -o") from None
    return here


def _run_folder(flags: dict) -> Path | None:
    """The run folder on this machine, if -o is given."""
    if flags["out"] is None or not storage.is_address(flags["out"]):
        return flags["out"]
    return flags.get("state") or state_folder(storage.address(flags["out"]))


def copy_here(prompt: str, settings: Settings) -> list[str]:
    """Copy the pictures of a prompt from the run folder into the current folder, without overwriting any. Returns their
    names."""
    made, out = [], settings.run.out
    row = next(rows.read(Path(out) / "results.jsonl"))
    for path in row.fields().get(settings.rows.output_key, ()):
        suffix = Path(path).suffix
        for number in range(10**6):
            name = f"{_slug(prompt)}{f'-{number}' if number else ''}{suffix}"
            if not os.path.exists(name):
                shutil.copyfile(Path(out) / path, name)
                made.append(name)
                break
            if Path(name).read_bytes() == (Path(out) / path).read_bytes():
                made.append(name)
                break
    return made


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48].strip("-") or "picture"


def _digest(flags: dict) -> str:
    said = {name: value for name, value in flags.items() if name not in ("out", "fresh", "retry_failed", "gpus")}
    return blake2b(repr(sorted(said.items())).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


def _keep(folder: Path, name: str, suffix: str, data: bytes) -> str:
    path = folder / f"{name}-{blake2b(data, digest_size=8).hexdigest()}{suffix}"
    if not path.exists():
        path.write_bytes(data)
    return str(path)


def _keep_stdin(folder: Path, stdin: BinaryIO) -> str:
    """Raises OSError, SettingsError."""
    digest, start = blake2b(digest_size=8), b""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".stdin-", delete=False) as file:
        while piece := stdin.read(1 << 20):
            start = start or piece[:4096]
            digest.update(piece)
            file.write(piece)
    if not start.strip():
        os.unlink(file.name)
        raise SettingsError("INPUT -: there is nothing on standard input; it needs one row at least")
    path = folder / f"stdin-{digest.hexdigest()}{kind(start)}"
    os.replace(file.name, path)
    return str(path)


def kind(start: bytes) -> str:
    """The suffix of what is on standard input, by its beginning."""
    if start.startswith(b"PAR1"):
        return ".parquet"
    if start.startswith(b"\x1f\x8b"):
        return ".jsonl.gz"
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return ".jsonl.zst"
    text = start.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"").lstrip(b"\xff\xfe \t\r\n")
    if text.startswith(b"{"):
        return ".jsonl"
    if text.startswith(b"["):
        return ".json"
    first = (text.splitlines() or [b""])[0].decode("utf-8", "replace")
    for cut, suffix in (("\t", ".tsv"), (",", ".csv"), (";", ".csv")):
        if cut in first and any(cell.strip(' "').lower() in _COLUMNS for cell in first.split(cut)):
            return suffix
    return ".txt"
