"""A run folder that version 0.1.0 made, and left after two of four rows, goes on with the same command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fastgen.errors import RunFolderError

MADE_BEFORE = Path(__file__).with_name("run-0.1.0")
"""t2i --backend fake --limit 2 over the rows below."""
ROWS = [{"prompt": f"a red circle number {i}", "note": i} for i in range(4)]


@pytest.fixture
def folder(tmp_path, rows_file):
    """(the folder, its INPUT)"""
    rows = rows_file(ROWS)
    shutil.copytree(MADE_BEFORE, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(json.dumps(about | {"input": str(rows)}))
    return tmp_path / "out", rows


def test_it_goes_on_where_it_was(folder, settings, go):
    out, rows = folder
    before = {path.name: path.read_bytes() for path in (out / "images").iterdir()}
    done = go(settings("t2i", rows))
    assert done.counts == {"rows": 4, "done": 4, "new": 2, "images": 2, "captions": 0}
    assert len(before) == 2 and all((out / "images" / name).read_bytes() == data for name, data in before.items())
    assert [row["note"] for row in done.table] == [0, 1, 2, 3]
    assert all((out / path).exists() for row in done.table for path in row["images"])
    assert len(done.made) == len(set(done.made)) == 4


def test_other_settings_are_refused_with_the_difference(folder, settings, go):
    _, rows = folder
    with pytest.raises(RunFolderError, match=r"steps: 4 before, 5 now"):
        go(settings("t2i", rows, steps=5))
