"""One type for each column, found over all rows; what has none is text."""

from __future__ import annotations

import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgen.output.writers import columns_of


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(columns_of, "CHUNK", 2)


def stored(rows) -> list[dict]:
    schema = columns_of.schema(rows)
    file = io.BytesIO()
    with pyarrow.parquet.ParquetWriter(file, schema) as table:
        for batch in columns_of.batches(rows, schema):
            table.write_batch(batch)
    return pyarrow.parquet.read_table(file).to_pylist()


def test_values_keep_their_types_over_chunks():
    rows = [{"a": 1, "s": "x"}, {"a": None}, {"a": 2.5, "l": [1]}, {"l": None, "d": {"p": 1}}, {"d": {"q": "z"}}]
    assert stored(rows) == [
        {"a": 1.0, "s": "x", "l": None, "d": None},
        {"a": None, "s": None, "l": None, "d": None},
        {"a": 2.5, "s": None, "l": [1], "d": None},
        {"a": None, "s": None, "l": None, "d": {"p": 1, "q": None}},
        {"a": None, "s": None, "l": None, "d": {"p": None, "q": "z"}},
    ]


@pytest.mark.parametrize(
    "values",
    [[1, "a"], [1, None, "a"], [2**70, 1], [[1], "a"], [{"a": 1}, None, {"a": "b"}], [{}, {}], [True, 3], [[{}]]],
    ids=str,
)
def test_a_column_without_a_common_type_is_text_in_json(values):
    found = [row["c"] for row in stored([{"c": value} for value in values])]
    assert found == [v if isinstance(v, str) or v is None else json.dumps(v) for v in values]


def test_nothing_but_nulls_and_half_characters():
    assert stored([{"a": None, "b": []}, {"a": None, "b": None}]) == [{"a": None, "b": []}, {"a": None, "b": None}]
    assert stored([{"a": "half \ud83d"}]) == [{"a": "half ?"}]


def test_a_dictionary_with_names_without_end_is_text():
    rows = [{"d": {f"name {n}": n}} for n in range(columns_of.MOST_FIELDS + 2)]
    assert stored(rows)[5] == {"d": '{"name 5": 5}'}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), values, max_size=3), min_size=1, max_size=5))
def test_whatever_rows_hold_they_are_stored(rows):
    assert len(stored(rows)) == len(rows) or not any(rows)
