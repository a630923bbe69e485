"""The files and folders that flags name. Finds them, checks as much as a run needs, and says how to fix what is
wrong.

It asks `os.path` whether something is there, because `Path` raises OSError for names that are too long.
"""

from __future__ import annotations

import glob
import json
import math
import os
import re
from itertools import islice
from pathlib import Path
from typing import Any

from fastgen.config.settings import IMAGE_FIELDS, beside_lora
from fastgen.errors import InputError, SettingsError, quoted
from fastgen.input import storage
from fastgen.input.readers import folder, formats, rows, stored_folder

MAX_SCHEMA = 16 << 20
"""Bytes of a schema: a device has no end."""


_OTHER_STORE = re.compile(r"(adl|hdfs|webhdfs|sftp|ssh|ftps?|smb|oci|oss|https?|r2|minio|wasbs?):/", re.IGNORECASE)
"""Schemes that are neither read nor written."""


def rows_input(input: str | os.PathLike | None, task: str, has_prompt: bool = False) -> str:
    """INPUT as the run reads it: an absolute path, a pattern of absolute paths, or the address of a data set; "" for
    none. `has_prompt`: whether --prompt is given. Raises SettingsError."""
    if input is not None and rows.is_on_hub(os.fspath(input)):
        return os.fspath(input)
    if input is not None and rows.is_stored(input):
        return _stored(stored_address("INPUT", input), task, has_prompt)
    path = rows_file(input, task, has_prompt)
    return str(path.resolve()) if path else ""


def refuse_other_store(flag: str, given: str | os.PathLike) -> None:
    """Raise SettingsError if a path is an address of a kind that cannot be used: it would name a folder of this
    disk. `flag`: that has it, for the message."""
    if _OTHER_STORE.match(os.fspath(given)):
        address = re.sub(":/+", "://", os.fspath(given), count=1)  # a Path has dropped one slash
        raise SettingsError(f"{flag} {address}: must be on a disk, or on s3://, gs:// or az://")


def stored_address(flag: str, given: str | os.PathLike) -> str:
    """An address in object storage, whose file system is installed. Raises SettingsError, which names the flag."""
    try:
        address = storage.address(given)
        storage.file_system(address)
    except SettingsError as error:
        raise SettingsError(f"{flag} {error}") from None
    return address


def _stored(address: str, task: str, has_prompt: bool) -> str:
    """INPUT in object storage, which is there and has rows. Raises SettingsError, StorageError."""
    try:
        files = storage.expand(address)
        for name, size in files:
            if formats.of(Path(name)) is None:
                raise SettingsError(f"INPUT {name}: the name must end in {formats.suffixes()}, also with .gz or .zst")
            if not size:
                raise SettingsError(f"INPUT {name}: the file is empty; it needs one row at least")
        if files:
            return address
        listed = stored_folder.listed(address)
        holds = stored_folder.contents(address, listed)
    except PermissionError as error:
        raise SettingsError(f"INPUT {address}: {storage.reason(error)}") from None
    if not listed:
        raise SettingsError(f"INPUT {address}: no such file or folder there; check the address")
    _check_contents(address, holds, task, has_prompt)
    return address


def rows_file(input: str | os.PathLike | None, task: str, has_prompt: bool = False) -> Path | None:
    """INPUT, which is readable and not empty: a file, a pattern of files, or a folder. Raises SettingsError."""
    if input is None:
        return None
    refuse_other_store("INPUT", input)
    path = Path(input).expanduser()
    if os.path.isdir(path):
        _check_contents(path, folder.contents(path), task, has_prompt)
        return path
    if not os.path.exists(path):
        if not (found := rows.files(str(path))):
            word = "; a prompt of one word is given with --prompt" if task == "t2i" and path.name.isalpha() else ""
            raise SettingsError(f"INPUT {path}: no such file; check the path{word}")
        for one in found:
            _check_file(Path(one), task, has_prompt)
        return path
    _check_file(path, task, has_prompt)
    return path


def _check_contents(path: Path | str, holds: str, task: str, has_prompt: bool) -> None:
    """Raise SettingsError if a folder has no rows for the task. `holds`: what `folder.contents` says."""
    if task == "caption" or holds not in ("pictures", ""):
        return
    if task == "t2i" and all(os.path.isfile(f"{path}/{name}") for name in ("run.json", "results.jsonl")):
        raise SettingsError(f"INPUT {path}: is the folder of a run; give its rows, {path}/results.jsonl")
    if task == "edit" and holds:
        if has_prompt:
            return
        raise SettingsError(
            f"INPUT {path}: is a folder; give a .jsonl or .json file of rows, or say with --prompt how to edit the "
            "pictures in it"
        )
    raise SettingsError(
        f"INPUT {path}: is a folder; give a .jsonl or .json file of rows, or a folder with {folder.METADATA[0]} or "
        "with files of rows alone"
    )


def _check_file(path: Path, task: str, has_prompt: bool) -> None:
    """Raise SettingsError if a file cannot hold rows for the task."""
    if formats.is_picture(path) and task == "t2i":
        raise SettingsError(f"INPUT {path}: is a picture; use fastgen edit or fastgen caption for it")
    if formats.is_picture(path) and task == "edit" and not has_prompt:
        raise SettingsError(f"INPUT {path}: is a picture; say with --prompt how to edit it")
    if formats.of(path) is None and not formats.is_picture(path):
        raise SettingsError(f"INPUT {path}: the name must end in {formats.suffixes()}, also with .gz or .zst")
    if not os.path.isfile(path):  # a pipe cannot be read twice, and waits forever if nobody writes into it
        raise SettingsError(f"INPUT {path}: not a regular file; write the rows into one")
    if not os.access(path, os.R_OK):
        raise SettingsError(f"INPUT {path}: not readable; check its permissions")
    if path.stat().st_size == 0:
        raise SettingsError(f"INPUT {path}: the file is empty; it needs one row at least")


def of_earlier_run(path: Path | None) -> str:
    """If a file is a table of a run folder: where the rows of that run had their images; else ""."""
    if path is None or not (path.parent / "run.json").is_file() or path.name == "failures.jsonl":
        return ""
    try:
        root = json.loads((path.parent / "run.json").read_text("utf-8"))["settings"]["image_root"]
        return root if isinstance(root, str) else ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def stored_image_root(given: str | os.PathLike | None, input: str) -> str:
    """Where relative image paths start, if that is in object storage; "" if it is not. Raises SettingsError.

    Args:
        given: --image-root.
        input: INPUT, as `rows_input` gives it.
    """
    if given is not None:
        return stored_address("--image-root", given) if storage.is_address(given) else ""
    if not rows.is_stored(input):
        return ""
    is_folder = formats.of(Path(input)) is None and not glob.has_magic(input)
    start = input if is_folder else input.rpartition("/")[0]
    while glob.has_magic(start):
        start = start.rpartition("/")[0]
    return start


def image_root(given: str | os.PathLike | None, path: Path | None, task: str) -> tuple[Path, list[str]]:
    """Where relative image paths start, and a note about it: --image-root, else the folder of INPUT, else the
    current folder, if the first image that a row names is there and not in the folder of INPUT. For the
    failures.jsonl of a run, it is where the rows of that run had their images."""
    if given is not None:
        root = Path(given).expanduser()
        if not os.path.isdir(root):
            raise SettingsError(f"--image-root {given}: no such folder; give the one where relative image paths start")
        return root.resolve(), []
    if path is None or rows.is_on_hub(path):
        return Path.cwd(), []
    if path.is_dir():
        return path.resolve(), []
    if path.name == "failures.jsonl":
        try:
            root = json.loads((path.parent / "run.json").read_text("utf-8"))["settings"]["image_root"]
            return Path(root or path.parent).resolve(), []
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
    here = path.parent.resolve()
    if not path.exists() and (found := rows.files(str(path))):
        here = Path(os.path.commonpath([os.path.dirname(one) for one in found])).resolve()
    if task != "t2i" and here != Path.cwd():
        first = _first_picture(path)
        if first and not os.path.exists(here / first) and os.path.exists(first):
            return Path.cwd(), [
                f"{quoted(first)} is not in the folder of INPUT but in the current folder, so relative paths start in "
                f"{Path.cwd()}"
            ]
    return here, []


def _first_picture(path: Path) -> str:
    """The first relative image path in the first rows; "" if there is none."""
    try:
        for row in islice(rows.read(path), 20):
            for name in IMAGE_FIELDS:
                value = row.fields().get(name)
                for one in value if isinstance(value, list) else [value]:
                    if isinstance(one, str) and one.strip() and not os.path.isabs(one) and "\0" not in one:
                        return one
    except (OSError, InputError, SettingsError):
        pass
    return ""


def schema(given: str | os.PathLike | dict | None) -> str:
    """The JSON schema as a JSON text. Raises SettingsError."""
    if given is None:
        return ""
    if isinstance(given, dict):
        value = given
    else:
        try:
            with open(Path(given).expanduser(), "rb") as file:
                data = file.read(MAX_SCHEMA + 1)
            if len(data) > MAX_SCHEMA:
                raise ValueError(f"it has more than {MAX_SCHEMA >> 20} MiB")
            value = json.loads(data.decode("utf-8-sig"))
        except OSError as error:
            raise SettingsError(
                f"--schema {given}: cannot be read: {error.strerror}; give the path of a JSON file"
            ) from None
        except RecursionError:
            raise SettingsError(
                f"--schema {given}: cannot be read as JSON: it is nested too deep; flatten it"
            ) from None
        except UnicodeDecodeError as error:
            raise SettingsError(
                f"--schema {given}: cannot be read as JSON: not UTF-8 at byte {error.start}; save it as UTF-8"
            ) from None
        except ValueError as error:
            raise SettingsError(f"--schema {given}: cannot be read as JSON: {error}; fix the file") from None
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        if not isinstance(value, dict):
            raise ValueError("it must hold a JSON object")
        value = _unwrapped(value)
        validator_for(value).check_schema(value)
        _check_references(value)
    except (ValueError, RecursionError, SchemaError) as error:
        said = getattr(error, "message", error)
        raise SettingsError(f"--schema {quoted(given)}: not a JSON schema: {said}; fix it") from None
    return json.dumps(value)


def _unwrapped(value: dict) -> dict:
    """The schema in the wrappers of OpenAI's format: {"type": "json_schema", "json_schema": {"name": ..., "schema":
    ...}}."""
    if value.get("type") == "json_schema" and isinstance(value.get("json_schema"), dict):
        value = value["json_schema"]
    inside = value.get("schema")
    if isinstance(inside, dict) and set(value) <= {"name", "strict", "schema", "description", "type", "format"}:
        return inside
    return value


def _check_references(schema: dict) -> None:
    """Raise ValueError for a `$ref` that leads out of the schema: it would be fetched, or fail every caption."""
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = Registry().with_resource("", resource).crawl().resolver_with_root(resource)
    found: list[object] = [schema]
    while found:
        part = found.pop()
        if isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str):
                try:
                    resolver.lookup(reference)
                except Unresolvable:
                    raise ValueError(f"$ref {quoted(reference)} is not in it, and nothing is fetched") from None
                if _is_endless(part, resolver):
                    raise ValueError(f"$ref {quoted(reference)} leads back to itself without end")
            found += part.values()
        elif isinstance(part, list):
            found += part


def _is_endless(part: object, resolver: Any, on_the_way: tuple[int, ...] = ()) -> bool:
    """Whether a value would have to be checked for ever: the same schema again for the same value."""
    if not isinstance(part, dict) or id(part) in on_the_way:
        return isinstance(part, dict)
    on_the_way = (*on_the_way, id(part))
    same = [one for name in ("allOf", "anyOf", "oneOf") for one in part.get(name, ()) if isinstance(part[name], list)]
    same += [part[name] for name in ("not", "if", "then", "else") if name in part]
    if isinstance(part.get("$ref"), str):
        same.append(resolver.lookup(part["$ref"]).contents)
    return any(_is_endless(one, resolver, on_the_way) for one in same)


def lora(text: str) -> tuple[str, float]:
    """PATH or PATH:SCALE -> (absolute path, scale). Raises SettingsError."""
    path, colon, scale = text.rpartition(":")
    value = 1.0
    if colon:
        try:
            value = float(scale)
        except ValueError:
            path = text  # the colon belongs to the path
        if not math.isfinite(value):
            raise SettingsError(f"--lora {text}: the scale after ':' must be a finite number")
    else:
        path = text
    file = Path(path).expanduser()
    if not os.path.isfile(file):
        raise SettingsError(f"--lora {text}: no such file; give PATH or PATH:SCALE of a .safetensors file")
    return of_lora(file), value


def of_lora(file: Path) -> str:
    """The absolute path of a LoRA, without links; but one that has a file of alphas beside it stays there, since the
    hub's cache has each file by another name elsewhere."""
    return os.path.abspath(file) if beside_lora(file) else str(file.resolve())


def transformer(text: str | None) -> str:
    """The absolute path of a file of weights; "" for none. Raises SettingsError."""
    if not text:
        return ""
    path = Path(text).expanduser()
    if not os.path.isfile(path):
        raise SettingsError(f"--transformer {text}: no such file; give a .safetensors or .gguf file")
    return str(path.resolve())
