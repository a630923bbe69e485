"""The bar, as tqdm draws it, and how lines of the log pass it."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys

import pytest

from fastgen.dataflow import get_logger, logger
from fastgen.dataflow.progress import Progress
from fastgen.dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_bar_looks_as_tqdms():
    clock = Clock()
    bar = Progress("captions", 2000, clock=clock)
    assert bar.line() == "captions:   0%|          | 0/2000 [00:00<?, ?it/s]"
    clock.now, bar.done = 2.0, 900
    assert bar.line() == "captions:  45%|████▌     | 900/2000 [00:02<00:02, 450.00it/s]"
    clock.now, bar.done = 3700.0, 1000
    assert bar.line() == "captions:  50%|█████     | 1000/2000 [1:01:40<1:01:40, 3.70s/it]"


def test_on_a_terminal_it_stays_on_the_last_line_and_lines_of_the_log_stand_above(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: os.terminal_size((60, 24)))
    clock = Clock()
    with Progress("edits", 4, clock=clock) as bar:
        for _ in range(4):
            clock.now += 0.06
            bar.step()
        get_logger().warning("one row")
    drawn = terminal.getvalue().split("\r\x1b[K")
    assert [line.split("|")[0] for line in drawn[1:4]] == ["edits:   0%", "edits:  50%", "edits: 100%"]
    assert drawn[4] == "" or drawn[4].endswith("one row\n")
    assert "WARNING | one row\n" in terminal.getvalue() and terminal.getvalue().endswith("\n")
    assert max(len(line.rstrip("\n")) for line in drawn if "|" in line and "row" not in line) == 59
    assert not logger.shown


def test_elsewhere_it_is_a_line_now_and_then_and_one_at_the_end(capsys):
    clock = Clock()
    with Progress("edits", 3, clock=clock) as bar:
        for seconds in (5.0, 20.0, 40.0):  # the last one is said once
            clock.now = seconds
            bar.step()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("|")[0] for line in lines] == ["edits:  66%", "edits: 100%"]
    with Progress("edits", 3, visible=False) as bar:
        bar.step()
    assert capsys.readouterr().err == ""


def test_a_call_says_how_far_it_is_and_can_be_told_not_to(server, capsys):
    for wanted in (True, False):
        serving = APIVLMServing_openai(server.openai_url, model_name="a-vlm", progress=wanted)
        assert serving.generate_from_input(["What?"] * 3, image_inputs=["image.png"] * 3)[2]
        assert ("texts: 100%|██████████| 3/3 [" in capsys.readouterr().err) == wanted


LOGS = """
import logging, sys
from fastgen.dataflow import get_logger
from fastgen.dataflow.logger import get_logger as same
assert get_logger() is same()
if sys.argv[1] == "own":
    logging.basicConfig(level=logging.INFO, format="own %(message)s")
get_logger().info("a %s", "word")
get_logger().success("done")
get_logger().debug("never")
get_logger(logging.ERROR).warning("not now")
"""


@pytest.mark.parametrize(("whose", "said"), [("ours", ["INFO    | a word", "SUCCESS | done"]), ("own", ["own a word"])])
def test_what_operators_log_can_be_seen_once(whose, said):
    done = subprocess.run([sys.executable, "-c", LOGS, whose], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and all(any(line.endswith(one) for line in lines) for one in said)
