"""How far a call is, as fastgen shows it, and lines of the log beside it."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys

import pytest

from fastgen.dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_call_says_how_far_it_is_and_can_be_told_not_to(server, capsys):
    for wanted in (True, False):
        serving = APIVLMServing_openai(server.openai_url, model_name="a-vlm", progress=wanted)
        assert serving.generate_from_input(["What?"] * 3, image_inputs=["image.png"] * 3)[2]
        assert ("caption: 3 of 3 rows (100%)" in capsys.readouterr().err) == wanted


def test_lines_of_the_log_stand_above_what_a_terminal_shows(drawn, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert drawn(progress=True).generate_from_input(["refuse", "a"])
    shown = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", terminal.getvalue())
    assert re.search(r"(^|[\r\n])\S+ \S+ \| ERROR   \| refuse: [^\r\n]*\n", shown), shown
    assert shown.endswith(", 1 failed\n") and "t2i: 2 of 2 rows (100%)" in shown


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
