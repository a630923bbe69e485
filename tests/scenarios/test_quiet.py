"""No line of a library reaches the terminal: what is on it is ours. A new line of ours belongs into the lists here."""

from __future__ import annotations

import logging
import re

import pytest
from PIL import Image

DEMO = (
    r".* \.\.\.",
    "judged by the scene reader: [0-3] of 3 images and [0-3] of 3 edits .* [0-6] of 6 captions are right",
    ".*sheet.png",
)
RUN = (r"(note:|t2i:|edit:|backend|speed:|out:|relative|cpu|cpu:|table:|\d+) .*",)
"""How our lines begin."""


def foreign(text: str, own: tuple[str, ...]) -> list[str]:
    return [line for line in text.splitlines() if not any(re.fullmatch(words, line) for words in own)]


@pytest.mark.slow
def test_demo(cli, tmp_path):
    done = cli("demo", "--count", "3", "-o", "here")
    assert done.returncode == 0 and not done.stderr and not foreign(done.stdout, DEMO), done.stdout
    assert "of 3 images" in done.stdout and "of 6 captions are right" in done.stdout
    with Image.open(tmp_path / "here" / "sheet.png") as sheet:
        assert sheet.width > 600 and sheet.height > 600
    for task in ("t2i", "edit"):
        assert (tmp_path / "here" / task / "results.jsonl").exists()


@pytest.mark.parametrize(("task", "kind"), [("t2i", "8bit"), ("edit", "int8,text:8bit"), ("t2i", "nvfp4,text:mxfp8")])
def test_quantized_runs(cli, task, kind, tmp_path):
    kept = {"FASTGEN_KEEP_QUANTIZED": "1", "FASTGEN_HOME": str(tmp_path / "home")}
    done = cli(task, "--model", "tiny", "--gpus", "cpu", "--quantize", kind, "--limit", "1", "-o", "out", **kept)
    assert done.returncode == 0 and not done.stdout and not foreign(done.stderr, RUN), done.stderr
    (log,) = (tmp_path / "out" / "logs").iterdir()
    assert "quantized weights kept" in log.read_text(), "what is not on the terminal is in the log"


def test_what_else_a_library_says_is_heard(caplog):
    from fastgen.embedded.captioner import Captioner

    Captioner()
    with caplog.at_level(logging.WARNING):
        logging.getLogger("torchao").warning("Failed to load _C_mxfp8.so: Could not load this library")
        logging.getLogger("torchao").warning("this checkpoint is broken")
    assert [record.getMessage() for record in caplog.records if record.name == "torchao"] == [
        "this checkpoint is broken"
    ]
