"""What is not among the marks was never sent, and marks that cannot be relied on say nothing."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastgen.output import sent
from fastgen.output.sent import SentMarks


def test_what_was_sent_is_known_to_whoever_comes_after_a_kill(tmp_path):
    run = sent.begin(tmp_path)
    workers = [SentMarks(str(tmp_path)) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: workers[i % 2].add([f"r{i}", f"\ud800{i}"]), range(200)))
    found = sent.read(tmp_path, run)
    assert all(f"r{i}" in found and f"\ud800{i}" in found for i in range(200)) and "r200" not in found
    sent.end(tmp_path)
    assert sent.read(tmp_path, run) is None
    for marks in workers:
        marks.close()


def test_a_mark_that_cannot_be_written_makes_all_of_them_worthless(tmp_path, monkeypatch):
    run = sent.begin(tmp_path)
    marks = SentMarks(str(tmp_path))
    marks.add(["a"])
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, data: 3)
        marks.add(["b"])
    assert sent.read(tmp_path, run) is None
    marks.add(["c"])
    assert sent.read(tmp_path, run) is None, "and they do not come back"


def test_a_worker_begins_no_file(tmp_path):
    SentMarks(str(tmp_path)).add(["a"])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("boot", ["", "0ther000"])
def test_marks_of_another_boot_may_be_incomplete(tmp_path, monkeypatch, boot):
    run = sent.begin(tmp_path)
    monkeypatch.setattr(sent, "_boot", lambda: boot)
    assert sent.read(tmp_path, run) is None
    if not boot:
        assert sent.begin(tmp_path) == "" and sent.read(tmp_path, "") is None
