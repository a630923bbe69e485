"""What --help shows, what is said about a mistyped name, and what a shell completes."""

from __future__ import annotations

import re

import pytest
import typer
from typer.testing import CliRunner

from fastgen.cli import main

APP = typer.main.get_command(main.app)


def said(*line: str, columns: int = 80, **environment: str) -> str:
    return CliRunner().invoke(main.app, line, env={"COLUMNS": str(columns), **environment}, prog_name="fastgen").output


def options(text: str) -> list[str]:
    return re.findall(r"^│ (?:-\w, )?(--[a-z0-9-]+)", text, re.M)


@pytest.mark.parametrize("columns", [60, 80, 160])
@pytest.mark.parametrize("line", [(), *((name,) for name in APP.commands), ("dataflow",)], ids=" ".join)
def test_help_is_in_panels_that_fit_the_terminal(line, columns):
    text = said(*line, "--help", columns=columns)
    width = min(columns, 100)
    assert text.startswith(f" Usage: fastgen {' '.join(line)}".rstrip())
    assert all(len(row) <= width for row in text.splitlines())
    boxes = [row for row in text.splitlines() if row.startswith("╭─ ")]
    assert boxes and all(len(box) == width for box in boxes)


def test_help_of_a_task_says_what_that_task_takes():
    t2i, edit, caption = (said(task, "--help", columns=160) for task in ("t2i", "edit", "caption"))
    assert "--mask-key" in options(edit) and not {"--mask-key", "--image-key", "--image-root"} & set(options(t2i))
    for text, task, own, other in (
        (t2i, "t2i", "'z-image'", "edited_images"),
        (edit, "edit", "edited_images", "'z-image'"),
    ):
        assert f"[default: fastgen-runs/{task}]" in text and own in text and other not in text
    assert "[default: edited_images]" in edit and "a prompt in quotes" in t2i
    assert "[default: fastgen-runs/caption]" in caption and "[default: 120]" in caption
    assert all(len(options(text)) == len(set(options(text))) for text in (t2i, edit, caption))
    assert not re.search(r"(\[default: [^]]*\])\s*\1", t2i + edit + caption), "a default is said twice"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("generate",), "Did you mean 't2i'?"),
        (("cpation",), "Did you mean 'caption'?"),
        (("t2i", "--num-images", "3"), "No such option: --num-images. Did you mean --n?"),
        (("t2i", "--width", "64"), "Did you mean --size WxH?"),
        (("t2i", "--quantise", "8bit"), "Did you mean --quantize?"),
        (("caption", "--steps", "3"), "No such option: --steps; t2i, edit and bench have it"),
        (("t2i", "--system", "x"), "No such option: --system; caption has it"),
        (("export", "run", "--format", "hf"), "Did you mean --to?"),
        (("--vresion",), "Did you mean --version?"),
        (("t2i", "--zzzz"), "No such option: --zzzz\n"),
        (("t2i", "a.txt", "b.txt"), "or a pattern of files in quotes, such as '*.csv'"),
    ],
    ids=str,
)
def test_what_was_meant_is_said(line, words):
    assert words in said(*line)


def test_a_file_without_a_task_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").touch()
    (tmp_path / "photos").mkdir()
    assert "Name a task first, such as 'fastgen t2i rows.csv'" in said("rows.csv")
    assert "'fastgen caption photos'" in said("photos")
