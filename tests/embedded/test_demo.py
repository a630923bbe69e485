"""`fastgen demo`: prompts, edits, captions and verdicts, on a sheet."""

from __future__ import annotations

import pytest
from PIL import Image

from fastgen.embedded.demo import Panel, contact_sheet


@pytest.mark.slow
def test_the_demo_makes_its_sheet(cli, tmp_path):
    result = cli("demo", "-o", "here", "--count", "3")
    assert result.returncode == 0, result.stderr
    assert "of 3 images" in result.stdout and "of 6 captions are right" in result.stdout
    with Image.open(tmp_path / "here" / "sheet.png") as sheet:
        assert sheet.width > 600 and sheet.height > 600
    for task in ("t2i", "edit"):
        assert (tmp_path / "here" / task / "results.jsonl").exists()


def test_a_wrong_count_is_refused(cli):
    result = cli("demo", "--count", "99")
    assert result.returncode == 2 and "--count 99: must be a whole number from 1 to 12" in result.stderr


def test_long_words_stay_in_their_panel(tmp_path):
    Image.new("RGB", (176, 96), "red").save(tmp_path / "p.png")
    panel = Panel("word " * 40, tmp_path / "p.png", False, "x" * 90, False)
    contact_sheet([panel], [panel], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 255
