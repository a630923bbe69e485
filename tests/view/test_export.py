"""The page as a static folder."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from fastgen.errors import RunFolderError
from fastgen.view import export as exporting
from fastgen.view.export import export
from tests.view.folders import done, everything, folder, image, scenes


def values(path):
    """What a script gives to the page: (name, values)."""
    text = path.read_text("utf-8")
    assert text.startswith("fastgen.exported.") and text.endswith(");\n")
    name, _, value = text.removeprefix("fastgen.exported.").partition("(")
    return name, json.loads(f"[{value[:-3]}]")


def test_a_folder_has_everything_and_the_run_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "ROWS_IN_FILE", 5)
    monkeypatch.setattr(exporting, "DETAILS_IN_FILE", 3)
    run = scenes(tmp_path / "run")
    before = everything(run)
    assert export([run], tmp_path / "page") == 8 and everything(run) == before
    page = tmp_path / "page"
    text = (page / "index.html").read_text()
    assert text.index("data.js") < text.index("data/runs.js") < text.index("main.js")
    assert values(page / "data/runs.js")[1][0][0]["counts"] == {"done": 7, "failed": 1}
    rows = [row for k in (0, 1) for row in values(page / f"data/0/rows-{k}.js")[1]]
    assert rows[0] == 0 and [position for position, _ in rows[1]] == [0, 1, 2, 3, 4]
    name, (number, part, details) = values(page / "data/0/details-1.js")
    assert (name, number, part) == ("details", 0, 1) and details[0]["out"] == [
        "images/0/0/3-out-0.png",
        "images/0/0/3-out-1.png",
    ]
    with Image.open(page / details[0]["out"][0]) as copy, Image.open(page / "thumbs/0/0/3-out-0.webp") as small:
        assert copy.size == small.size == (48, 48)
    assert len(values(page / "data/0/details-2.js")[1][2]) == 2


def test_it_may_be_written_again_but_over_nothing_else(tmp_path):
    run = scenes(tmp_path / "run")
    export([run], tmp_path / "page")
    (tmp_path / "page/images/0/0/7-out-0.png").rename(tmp_path / "page/images/old.png")
    assert export([run], tmp_path / "page") == 8 and not (tmp_path / "page/images/old.png").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(RunFolderError, match="has other files; choose a folder that is empty"):
        export([run], tmp_path / "mine")
    for inside in (run, run / "page"):
        with pytest.raises(RunFolderError, match="is in a run folder; choose another one"):
            export([run], inside)


def test_images_that_are_gone_or_none_are_left_out(tmp_path):
    run = tmp_path / "run"
    image(run / "images/a.png")
    (run / "images/b.png").write_text("no image")
    rows = [done(name, [f"images/{name}.png"]) for name in ("a", "b", "c")] + [done("d", ["../secret.png"])]
    image(tmp_path / "secret.png")
    export([folder(run, rows)], tmp_path / "page")
    details = values(tmp_path / "page/data/0/details-0.js")[1][2]
    assert [row["out"] for row in details] == [["images/0/0/0-out-0.png"], [""], [""], [""]]
