"""The door for Python callers."""

from __future__ import annotations

import doctest
import io

import pytest

import fastgen
from fastgen.api import explain, generate


def test_rows_from_python(settings, tmp_path, table):
    rows = [{"prompt": "a", "key": 2**64 + 1}, {"prompt": "refuse"}]
    results = list(generate(settings("t2i"), iter(rows)))
    assert sorted(type(result).__name__ for result in results) == ["Done", "Failed"]
    first, second = table(tmp_path / "out/results.jsonl")
    assert (first["prompt"], first["key"], second["fastgen"]["error"]["kind"]) == ("a", 2**64 + 1, "refused")
    again = list(generate(settings("t2i"), rows))
    assert [(r.id, r.row["prompt"], r.earlier, r.error) for r in sorted(again, key=lambda r: r.row["prompt"])] == [
        (r.id, r.row["prompt"], True, r.error) for r in sorted(results, key=lambda r: r.row["prompt"])
    ], "the same rows again: nothing is left to do, and their results are there"


def test_every_row_has_a_result_with_its_row_and_images(settings, tmp_path):
    rows = [
        {"prompt": "a", "key": 2**64 + 1, "n": 2},
        {"prompt": "b", "size": "1x1"},
        {"prompt": "c", "images": ["mine.png"]},
        {"prompt": "a", "key": 2**64 + 1, "n": 2},  # one of two equal rows
    ]
    for earlier in (False, True):
        results = list(generate(settings("t2i"), rows))
        assert sorted((r.row for r in results), key=str) == sorted(rows, key=str)
        made = [r for r in results if isinstance(r, fastgen.Done) and r.backend]
        [failed] = [r for r in results if isinstance(r, fastgen.Failed)]
        [kept] = [r for r in results if r.row["prompt"] == "c"]
        assert [r.earlier for r in made] == [earlier] * 2 and kept.earlier
        assert failed.error == failed.message and failed.error.startswith("row 2, field size: ")
        assert list(failed.images) == [] and failed.image_paths == ()
        assert kept.error is None and kept.paths == ("mine.png",) and kept.attempts == 0
        for result in made:
            assert result.error is None and len(result.images) == len(result.paths) == 2
            assert [image.size for image in result.images] == [(64, 64)] * 2
            assert result.images[-1].tobytes() and result.images[:1].paths == result.image_paths[:1]
            assert result.image_paths[0] == str(tmp_path / "out" / result.paths[0])
            assert "Images([" in repr(result.images)
    text = (tmp_path / "out/journal.jsonl").read_text()
    assert '"key"' not in text and '"folder"' not in text and '"earlier"' not in text


def test_captions_come_with_their_rows(settings, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [{"image": "a.png", "id": "x"}, {"image": "a.png", "id": "y", "caption": "mine"}]
    results = {r.id: r for r in generate(settings("caption", image_root=tmp_path), rows)}
    assert results["x"].text and results["x"].row == rows[0] and results["x"].image_paths == ()
    assert (results["y"].text, results["y"].earlier, results["y"].row) == ("mine", True, rows[1])


def test_a_line_that_is_no_row_has_its_text(settings, rows_file):
    [result] = generate(settings("t2i", rows_file([b"{oops"])))
    assert result.kind == "input" and result.row == {"line": "{oops"}


def test_examples_in_docstrings(tmp_path, monkeypatch):
    """Every public name has one. They share a run folder, so that the model draws once."""
    monkeypatch.chdir(tmp_path)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    names = [name for name in fastgen.__all__ if name != "__version__"]
    names.sort(key=lambda name: name not in ("generate", "Done"))  # these make the row that others show
    for name in names:
        examples = [test for test in finder.find(getattr(fastgen, name), name) if test.examples]
        assert examples, f"{name} has no example"
        said = io.StringIO()
        for test in examples:
            runner.run(test, out=said.write)
        assert not runner.failures, said.getvalue()


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


def test_the_time_of_a_plan_is_measured_or_not_told(rows_file, tmp_path):
    """By the last run of the folder, else by the profile, for what is left to do; else nobody knows."""
    rows = rows_file([{"prompt": "a", "n": 3, "size": "128x128"}, {"prompt": "b", "size": "256x256", "steps": 6}])

    def plan(**flags):
        settings = fastgen.resolve("t2i", rows, out=tmp_path / "out", gpus="cpu", steps=12, **flags)
        return explain(settings), settings.placement.profile.rate

    found, rate = plan(model="tiny")
    work = (3 * 128**2 * 12 + 256**2 * 6) / 1e6
    assert (found["seconds"], found["seconds_by"]) == (round(work / rate.exact, 1), "profile")
    assert plan(model="tiny", quality="fast")[0]["seconds"] == round(work / rate.fast, 1) < found["seconds"]
    found, _ = plan(backend="fake")
    assert (found["seconds"], found["seconds_by"]) == (None, "")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"images_per_second": 0.5}')
    found, _ = plan(model="tiny")
    assert (found["seconds"], found["seconds_by"]) == (8.0, "run")


def test_a_plan_of_no_rows_is_refused_as_its_run_would_be(settings, tmp_path):
    (tmp_path / "head.csv").write_text("prompt,id\n")
    with pytest.raises(fastgen.SettingsError, match="holds no rows"):
        explain(settings("t2i", tmp_path / "head.csv"))
