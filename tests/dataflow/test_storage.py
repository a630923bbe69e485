"""Tables of a pipeline: every format, step by step, with what rows say left as it is."""

from __future__ import annotations

import json
import math

import pandas
import pytest

import fastgen
from fastgen.dataflow.utils.storage import DummyStorage, FileStorage

ROWS = [
    {"id": 9007199254740993, "text": "ä 狐狸 🦊", "tags": ["a", "b"], "note": None},
    {"id": 7, "text": "plain", "tags": [], "note": "n", "score": 0.5},
]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet", "pickle"])
def test_each_format_gives_back_what_was_written(here, kind):
    trusted = {"allow_pickle": True} if kind == "pickle" else {}
    storage = FileStorage("none.jsonl", "./cache", "t", kind, **trusted)
    storage.operator_step = 0
    path = storage.write(ROWS)
    assert path == f"./cache/t_step1.{kind}"
    back = storage.step().read("dict")
    assert [{k: v for k, v in row.items() if v is not None} for row in back] == [
        {k: v for k, v in row.items() if v is not None} for row in ROWS
    ]
    assert type(back[0]["id"]) is int
    if kind in ("json", "jsonl"):
        assert back == ROWS and [list(row) for row in back] == [list(row) for row in ROWS]
    frame = storage.read()
    assert isinstance(frame, pandas.DataFrame) and list(frame.columns)[:4] == ["id", "text", "tags", "note"]
    first = FileStorage(path, "./other", cache_type="jsonl", **trusted).step()
    assert first.read("dict") == back


def test_pickle_files_are_only_read_where_somebody_says_so(here):
    pandas.DataFrame({"a": [1]}).to_pickle("rows.pkl")
    for make in (lambda: FileStorage("rows.pkl").step().read(), lambda: FileStorage("rows.jsonl", cache_type="pickle")):
        with pytest.raises(ValueError, match=r"FileStorage\(..., allow_pickle=True\)"):
            make()
    assert FileStorage("rows.pkl", allow_pickle=True).step().read("dict") == [{"a": 1}]


def test_columns_of_numbers_are_numbers(storage, here):
    big, rows = 2**63 - 1, []
    rows.append(
        {"whole": 1, "big": big, "some": 2, "real": 0.5, "flag": True, "null": None, "huge": 2**70, "text": "a"}
    )
    rows.append({"whole": 3, "big": 5, "real": 2, "flag": False, "null": 4, "huge": 1, "text": None})
    store = storage(rows)
    frame = store.read("dataframe")
    assert {name: str(frame[name].dtype) for name in frame} == {
        **{"whole": "int64", "big": "int64", "some": "Int64", "real": "float64", "flag": "bool", "null": "Int64"},
        **{"huge": "object", "text": "object"},
    }
    assert frame.mean(numeric_only=True)["whole"] == 2 and frame.nlargest(1, "real")["text"].tolist() == [None]
    assert set(frame.describe().columns) >= {"whole", "big", "some", "real", "null"}
    frame["twice"] = frame["whole"] * 2
    store.write(frame)
    back = store.step().read("dict")
    assert (
        back == [{**rows[0], "twice": 2}, {**rows[1], "twice": 6}] and [type(row["big"]) for row in back] == [int] * 2
    )
    assert (
        store._get_cache_file_path(0) == "rows.jsonl" and store._load_local_file("rows.jsonl", "jsonl")["big"][0] == big
    )


def test_steps_and_what_comes_before_them(here):
    storage = FileStorage("rows.jsonl", "./cache", "p")
    with pytest.raises(ValueError, match="step"):
        storage.read()
    with pytest.raises(fastgen.SettingsError, match="no such file"):
        storage.step().read()
    storage.write([{"a": 1}])
    assert storage.step().read("dict") == [{"a": 1}] and storage.write([{"a": 2}]) == "./cache/p_step2.jsonl"
    assert storage.step().operator_step == 2 and storage.reset().operator_step == -1
    with pytest.raises(ValueError, match="dataframe"):
        storage.step().read("list")


def test_numbers_and_missing_keys_survive_a_dataframe(storage, here):
    store = storage([{"id": 9007199254740993}, {"id": 1, "images": ["x"]}, {"id": 2, "images": None}])
    frame = store.read()
    assert frame["id"].tolist() == [9007199254740993, 1, 2] and math.isnan(frame["images"][0])
    store.write(frame)
    lines = (here / "cache" / "dataflow_cache_step_step1.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == store.step().read("dict")
    assert store.read("dict") == [{"id": 9007199254740993}, {"id": 1, "images": ["x"]}, {"id": 2, "images": None}]


def test_a_line_that_cannot_be_read_stays_in_the_table(storage, caplog):
    store = storage([{"a": 1}, b'{"a": 2', b"3", {"a": 4}])
    assert store.read("dict") == [{"a": 1}, {"line": '{"a": 2'}, {"line": "3"}, {"a": 4}]
    assert "line 2" in caplog.text and "line 3" in caplog.text


def test_cells_of_a_csv_are_what_they_say_and_can_be_written_back(here):
    (here / "rows.csv").write_text(
        'code,n,turns,repr\n007,5,"[{""role"": ""user"", ""content"": ""x""}]","[{\'content\': \'y\'}]"\n'
    )
    [row] = FileStorage("rows.csv").step().read("dict")
    assert row == {"code": "007", "n": 5, "turns": [{"role": "user", "content": "x"}], "repr": [{"content": "y"}]}


def test_a_storage_in_memory():
    storage = DummyStorage()
    storage.set_data(pandas.DataFrame({"a": [1, 2]}))
    assert storage.read("dict") == [{"a": 1}, {"a": 2}] and storage.write([{"b": 1}]) is None
    assert storage.read().to_dict("records") == [{"b": 1}]
