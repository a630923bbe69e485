"""`fastgen demo`: what it refuses, and its sheet. tests/scenarios/test_quiet.py has a whole one."""

from __future__ import annotations

from PIL import Image

from fastgen.embedded.demo import Panel, contact_sheet


def test_a_wrong_count_is_refused(cli):
    result = cli("demo", "--count", "99")
    assert result.returncode == 2 and "--count 99: must be a whole number from 1 to 12" in result.stderr


def test_long_words_stay_in_their_panel(tmp_path):
    Image.new("RGB", (176, 96), "red").save(tmp_path / "p.png")
    panel = Panel("word " * 40, tmp_path / "p.png", False, "x" * 90, False)
    contact_sheet([panel], [panel], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 255
