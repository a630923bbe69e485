"""The door for Python callers."""

from __future__ import annotations

import pytest

import fastgen
from fastgen.api import explain, generate


def test_rows_from_python(settings, tmp_path, table):
    rows = [{"prompt": "a", "key": 2**64 + 1}, {"prompt": "refuse"}]
    results = list(generate(settings("t2i"), iter(rows)))
    assert sorted(type(result).__name__ for result in results) == ["Done", "Failed"]
    first, second = table(tmp_path / "out/results.jsonl")
    assert (first["prompt"], first["key"], second["fastgen"]["error"]["kind"]) == ("a", 2**64 + 1, "refused")
    assert list(generate(settings("t2i"), rows)) == [], "the same rows again: nothing is left to do"


def test_a_result_is_safe_before_it_is_told(settings, rows_file, tmp_path, table):
    for number, result in enumerate(generate(settings("t2i", rows_file([{"prompt": f"{i}"} for i in range(5)]))), 1):
        lines = table(tmp_path / "out/journal.jsonl")
        assert result.id in [line["rec"]["id"] for line in lines] and len(lines) >= number
        assert all((tmp_path / "out" / path).exists() for path in result.paths)


def test_rows_come_from_one_place(settings, rows_file):
    with pytest.raises(fastgen.SettingsError, match="no rows"):
        list(generate(settings("t2i")))
    with pytest.raises(fastgen.SettingsError, match="give one of them"):
        list(generate(settings("t2i", rows_file([{"prompt": "a"}])), [{"prompt": "a"}]))
    with pytest.raises(fastgen.SettingsError, match="row 2"):
        list(generate(settings("t2i"), [{"prompt": "a"}, "b"]))


def test_rows_from_python_do_not_disturb_a_run_in_the_folder(settings, tmp_path):
    rows = [{"prompt": "a"}, {"prompt": "b"}]
    first = generate(settings("t2i", batch_size=1), rows)
    next(first)
    before = (tmp_path / "out/rows.jsonl").read_bytes()
    with pytest.raises(fastgen.RunFolderError, match="another fastgen"):
        next(generate(settings("t2i"), [{"prompt": "c"}]))
    assert (tmp_path / "out/rows.jsonl").read_bytes() == before
    assert len(list(first)) == 1


def test_the_plan_matches_the_run(settings, rows_file):
    rows = [{"prompt": f"{i}", "size": ["64x64", "96x64"][i % 2]} for i in range(10)]
    resolved = settings("t2i", rows_file([*rows, {}]), batch_size=4)
    plan = explain(resolved)
    assert plan["rows"] == 11 and [failed.field for failed in plan["bad"]] == ["prompt"]
    assert {b["bucket"]: (b["requests"], b["batch_size"]) for b in plan["buckets"]} == {
        "t2i 64x64": (5, 4),
        "t2i 96x64": (5, 4),
    }
    # The last rows are spread over what computes side by side, so the exact number depends on the cores.
    assert all(2 <= b["batches"] <= 5 for b in plan["buckets"])
