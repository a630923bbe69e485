"""Shards of a WebDataset: tar files in which the files of one sample follow each other and share a name."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from fastgen.input.embedded_pictures import kind
from fastgen.input.readers.rows import Row, written
from fastgen.input.readers.source import Source

TEXTS = ("txt", "text", "caption", "prompt")
"""Suffixes of text files; each is a field of that name, txt of the name `text`."""
KEY = "__key__"


def read(file: Source) -> Iterator[Row]:
    """One row per sample: the fields of its .json, its texts, its pictures in `image` (several: `images`), and its name
    in `__key__`. Raises OSError, tarfile.TarError."""
    number, name, parts = 0, "", dict[str, bytes]()
    with file.open() as opened, tarfile.open(fileobj=opened, mode="r|") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
            if not member.isfile():
                continue
            folder, _, base = member.name.rpartition("/")
            stem, _, suffix = base.partition(".")
            if not stem:
                continue
            key = f"{folder}/{stem}" if folder else stem
            if key != name:
                if parts:
                    number += 1
                    yield _row(number, name, parts, file)
                name, parts = key, {}
            content = tar.extractfile(member)
            if content is not None:
                parts[suffix.lower()] = content.read()
    if parts:
        yield _row(number + 1, name, parts, file)


def _row(number: int, key: str, parts: dict[str, bytes], file: Source) -> Row:
    fields: dict[str, object] = {KEY: key}
    problem = ""
    if "json" in parts:
        try:
            own = Row(number, parts["json"]).fields()
            fields |= own
        except Exception as error:  # InputError: it fails this row only
            problem = f"{key}.json: {error}"
    pictures = []
    for suffix, data in parts.items():
        last = suffix.rpartition(".")[2]
        if kind(data[:32]):
            path = file.store.keep(data)
            if suffix == last:
                pictures.append(path)
            else:
                fields[suffix.rpartition(".")[0]] = path
        elif last in TEXTS:
            fields.setdefault("text" if suffix == "txt" else suffix, data.decode("utf-8", "replace").strip())
        elif last == "cls":
            fields.setdefault("cls", data.decode("utf-8", "replace").strip())
    if len(pictures) == 1:
        fields["image"] = pictures[0]
    elif pictures:
        fields["images"] = pictures
    return Row(number, written(fields), problem)
