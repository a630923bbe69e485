"""Whether rows name the same pictures again, found without opening a picture."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from fastgen.config.settings import Rows
from fastgen.input.repeats import SAMPLE, Repeats, sample


def rows_below(folder) -> Rows:
    return Rows("caption", str(folder), 0)


@pytest.mark.parametrize(
    ("rows", "found", "many"),
    [
        ([{"image": f"{i}.png"} for i in range(10)], Repeats(10, 10, 10), False),
        ([{"image": f"{i // 3}.png", "prompt": str(i)} for i in range(9)], Repeats(9, 3, 9), True),
        ([{"images": ["same.png", f"{i}.png"]} for i in range(10)], Repeats(20, 11, 10, 2), True),
        ([{"image": f"{max(i, 1)}.png"} for i in range(100)], Repeats(100, 99, 100), False),
        ([{"image": "a.png"}, {"image": "./a.png"}], Repeats(2, 1, 2), True),
        ([{"text_only": True, "prompt": "p", "image": "a.png"}], None, None),
        ([{"prompt": "p"}, {"image": 7}, {"image": "ftp://x/a.png"}], None, None),
        ([{"image": "https://x/a.png"}] * 2, Repeats(2, 1, 2), True),
    ],
)
def test_rows(tmp_path, rows, found, many):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no JSON\n")
    got = sample(path, rows_below(tmp_path))
    assert got == (found and replace(found, rows=len(rows) + 1))
    assert got is None or got.many is many


def test_only_the_start_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"image": "{min(i, SAMPLE)}.png"}}\n' for i in range(3 * SAMPLE)))
    assert sample(path, rows_below(tmp_path)) == Repeats(SAMPLE, SAMPLE, SAMPLE)
    assert sample(path, rows_below(tmp_path), limit=5) == Repeats(5, 5, 5)


def test_files_of_a_folder_are_different(tmp_path):
    found = sample(tmp_path, rows_below(tmp_path))
    assert found is not None and not found.many


def test_input_that_cannot_be_read(tmp_path):
    assert sample(tmp_path / "none.jsonl", rows_below(tmp_path)) is None
    (tmp_path / "rows.json").write_text('{"image": "a.png"}')
    assert sample(tmp_path / "rows.json", rows_below(tmp_path)) is None
