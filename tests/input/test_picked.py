"""--rows: only the rows that a file names."""

from __future__ import annotations

import json

import pytest

import fastgen
from fastgen.errors import SettingsError
from fastgen.input.picked import picked_ids
from fastgen.output.writers import from_journal
from tests.conftest import read_lines

ROWS = [{"id": "a", "prompt": "a fox"}, {"prompt": "an owl"}, {"id": "c", "prompt": "an elk"}, {"prompt": "an owl"}]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_of_a_table_are_known_by_their_ids(settings, go, rows_file, tmp_path):
    """Rows without an id too, and equal ones: the table says which."""
    given = rows_file(ROWS)
    first = go(settings("t2i", given, size="64x64"))
    picks = written(tmp_path / "picks.jsonl", [first.table[3], first.table[0]])
    again = go(settings("t2i", given, size="64x64", out=tmp_path / "again", only_rows=picks))
    assert sorted(again.made) == sorted(row["fastgen"]["id"] for row in (first.table[0], first.table[3]))
    assert [row["fastgen"] | {"seconds": 0} for row in again.table] == [
        first.table[k]["fastgen"] | {"seconds": 0} for k in (0, 3)
    ], "with the same seeds, and the table has only them"
    assert from_journal.make_tables(again.out) == {"done": 2} and len(read_lines(again.out / "results.jsonl")) == 2


def test_ids_in_a_text_and_ids_that_are_nowhere(settings, go, rows_file, tmp_path):
    (tmp_path / "ids.txt").write_text("c\n\n  a\nnobody\n")
    resolved = settings("t2i", rows_file(ROWS), size="64x64", only_rows=tmp_path / "ids.txt")
    assert fastgen.explain(resolved)["rows"] == 2
    outcome = go(resolved)
    assert [row["id"] for row in outcome.table] == ["a", "c"]
    (warning,) = [e["message"] for e in outcome.events if e["event"] == "warning" and "--rows" in e["message"]]
    assert "1 of its 3 ids are of no row of INPUT, such as nobody" in warning


def test_a_column_of_another_name(tmp_path):
    file = written(tmp_path / "picks.jsonl", [{"key": 7, "prompt": "x"}, {"key": "b", "prompt": "y"}])
    assert picked_ids(str(file), "images", "key") == {"7", "b"} and picked_ids("", "images") is None


def test_what_names_no_row_is_refused(settings, go, rows_file, tmp_path):
    given = rows_file(ROWS)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other.txt").write_text("nobody")
    (tmp_path / "broken.txt").write_bytes(b"\xff\xfe")
    for name, words in (
        ("nowhere.txt", "no such file; give a file of rows"),
        ("empty.txt", "names no row; give a file of rows"),
        ("broken.txt", "not UTF-8 at byte 0"),
    ):
        with pytest.raises(SettingsError, match=f"--rows .*{name}: {words}"):
            settings("t2i", given, only_rows=tmp_path / name)
    with pytest.raises(SettingsError, match="--rows: is empty"):
        settings("t2i", given, only_rows="")
    with pytest.raises(SettingsError, match="none of its ids is of a row of INPUT"):
        go(settings("t2i", given, only_rows=tmp_path / "other.txt"))
