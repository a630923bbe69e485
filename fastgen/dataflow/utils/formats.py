"""Rows in files of five formats, and as DataFrames. Does not know steps.

Nothing in the rows is lost: 64-bit integers, nulls, keys that only some rows have, and lines that cannot be read, which
become rows with the text in `line`. In a DataFrame, columns of numbers are numbers, and a key that a row lacks is a
missing value.
"""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastgen
from fastgen.dataflow import get_logger

if TYPE_CHECKING:
    from pandas import DataFrame, Series

TYPES = ("json", "jsonl", "csv", "parquet", "pickle")
EXACT = 2**53
"""Integers up to this are exact as floats."""
INT64 = 2**63


class TableError(fastgen.SettingsError, ValueError):
    """A table cannot be read or written."""


def as_frame(rows: list[dict]) -> DataFrame:
    """Integers become int64, or Int64 if some rows have none; other numbers float64; everything else stays Python
    objects."""
    import pandas

    names = dict.fromkeys(name for row in rows for name in row)
    return pandas.DataFrame({name: _column([row.get(name, MISSING) for row in rows]) for name in names})


MISSING = float("nan")


def _column(cells: list) -> Series:
    import pandas

    there = [cell for cell in cells if cell is not None and cell is not MISSING]
    kinds = {type(cell) for cell in there}
    whole = len(there) == len(cells)
    if kinds == {bool} and whole:
        return pandas.Series(cells, dtype=bool)
    if kinds == {int} and all(-INT64 <= cell < INT64 for cell in there):
        if whole:
            return pandas.Series(cells, dtype="int64")
        return pandas.Series([None if cell is MISSING else cell for cell in cells], dtype="Int64")
    if float in kinds and kinds <= {int, float} and all(abs(cell) <= EXACT for cell in there if type(cell) is int):
        return pandas.Series(cells, dtype="float64")
    return pandas.Series(cells, dtype=object)


def nulls_of(rows: list[dict]) -> frozenset[str]:
    """The names of the columns in which some row has null."""
    return frozenset(name for row in rows for name, value in row.items() if value is None)


def as_rows(data: DataFrame | list[dict], nulls: frozenset[str] = frozenset()) -> list[dict]:
    """Rows as dicts of plain values.

    Args:
        nulls: columns of numbers in which a missing value is a null; in others the row does not have the key. Columns
            of objects distinguish the two.
    """
    if isinstance(data, list):
        return [{key: plain(value) for key, value in row.items()} for row in data]
    columns = [(str(name), data[name].tolist()) for name in data.columns]
    rows: list[dict] = [{} for _ in range(len(data))]
    for name, cells in columns:
        for row, cell in zip(rows, cells, strict=True):
            if not _is_missing(cell):
                row[name] = plain(cell)
            elif name in nulls and data[name].dtype != object:
                row[name] = None
    return rows


def plain(value: Any) -> Any:
    """A value without types of numpy or pandas."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def _is_missing(value: Any) -> bool:
    return (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")


def refuse_pickle(what: str, kind: str, allow_pickle: bool) -> None:
    """Raises TableError."""
    if kind == "pickle" and not allow_pickle:
        raise TableError(
            f"{what}: a pickle file can run any program when it is read. Use cache_type='parquet' or 'jsonl', or "
            "FileStorage(..., allow_pickle=True) if you trust its author"
        )


def read(path: str, kind: str, allow_pickle: bool = False) -> list[dict]:
    """The rows of a file. Raises TableError."""
    if kind not in TYPES:
        raise TableError(f"{path}: the name must end in one of .{', .'.join(TYPES)}")
    refuse_pickle(path, kind, allow_pickle)
    try:
        return {"jsonl": _lines, "json": _list, "csv": _csv, "parquet": _parquet, "pickle": _pickle}[kind](path)
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except ValueError as error:
        raise TableError(f"{path}: cannot be read as {kind}: {error}") from None


def _lines(path: str) -> list[dict]:
    rows = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not (line := line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip():
                continue
            try:
                row, problem = json.loads(line), "is not a JSON object"
            except (ValueError, RecursionError) as error:
                row, problem = None, f"cannot be read as JSON: {error}"
            if not isinstance(row, dict):
                get_logger().error("%s: line %d %s; it stays in the table unchanged, in `line`", path, number, problem)
                row = {"line": line.decode("utf-8", "replace").strip()}
            rows.append(row)
    return rows


def _list(path: str) -> list[dict]:
    rows = json.loads(Path(path).read_bytes())
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it must hold one list of objects: [{...}, {...}]")
    return rows


def _csv(path: str) -> list[dict]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return [{name: _cell(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _cell(text: str | None) -> Any:
    """A cell as a value, if that can be written back unchanged: 007 stays a text. Lists and objects are JSON or
    Python."""
    if not text:
        return None
    for number in (int, float):
        try:
            if str(value := number(text)) == text and value == value:
                return value
        except ValueError:
            pass
    if text[0] in "[{":
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                pass
    return text


def _parquet(path: str) -> list[dict]:
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()  # not through pandas, which turns integers next to nulls into floats


def _pickle(path: str) -> list[dict]:
    import pandas

    return as_rows(pandas.read_pickle(path))


def write(rows: list[dict], path: str, kind: str) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if kind == "jsonl":
        with open(path, "wb") as file:
            file.writelines(_json(row) + b"\n" for row in rows)
    elif kind == "json":
        Path(path).write_bytes(_json(rows, indent=2))
    elif kind == "csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(names)
            writer.writerows([_text(row.get(name)) for name in names] for row in rows)
    elif kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        try:
            table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
        except pyarrow.ArrowException as error:
            raise TableError(f"cache_type parquet: {error}; a column of mixed types needs json or jsonl") from None
        parquet.write_table(table, path)
    else:
        as_frame(rows).to_pickle(path, compression=None)


def _json(value: Any, indent: int | None = None) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent).encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value, indent=indent).encode()


def _text(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else "" if value is None else value


def from_hub(name: str) -> list[dict]:
    """hf:{dataset}:{config}:{split} or ms:{dataset}:{split}; for what is left out the library's default is used, for
    the split train."""
    hub, dataset, *rest = name.split(":")
    config, split = (rest[0] if len(rest) > 1 else None), (rest[-1] if rest else "train")
    try:
        if hub == "hf":
            from datasets import load_dataset

            found = load_dataset(dataset, config, split=split)
        else:
            from modelscope import MsDataset

            found = MsDataset.load(dataset, split=split)
    except ImportError as error:
        raise TableError(f"{name}: {error}: pip install {'datasets' if hub == 'hf' else 'modelscope'}") from None
    return [plain(dict(row)) for row in found]
