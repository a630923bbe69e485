"""`fastgen check` finds every file that is not what was committed, and no other."""

from __future__ import annotations

from contextlib import closing

import pytest

from fastgen.errors import RunFolderError
from fastgen.output.check import Check

ROWS = [{"id": f"{i}", "prompt": f"p {i}", "n": 1 + (i == 2)} for i in range(6)]


@pytest.fixture
def finished(settings, rows_file, go):
    return go(settings("t2i", rows_file(ROWS))).out


def found(out) -> tuple[dict, Check]:
    with closing(check := Check(out)):
        return {(finding.id, finding.path): finding.problem for finding in check}, check


def test_all_is_well(finished):
    problems, check = found(finished)
    assert not problems and (check.rows, check.files, check.without_hash, check.wrong) == (6, 7, 0, 0)


def test_every_kind_of_damage_by_row(finished):
    images = finished / "images"
    (images / "0_0.png").unlink()
    (images / "1_0.png").write_bytes(b"")
    whole = (images / "2_1.png").read_bytes()
    (images / "2_1.png").write_bytes(whole[:40])
    (images / "3_0.png").write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    problems, check = found(finished)
    assert set(problems) == {
        (id, f"images/{id}_{number}.png") for id, number in (("0", 0), ("1", 0), ("2", 1), ("3", 0))
    }
    for id, words in (("0", "is missing"), ("1", "is empty"), ("2", "has 40 bytes"), ("3", "its hash is another one")):
        assert next(problem for (row, _), problem in problems.items() if row == id).startswith(words) or words in (
            next(problem for (row, _), problem in problems.items() if row == id)
        )
    assert check.wrong == 4


def test_damage_of_the_journal_and_the_table(finished):
    lines = (finished / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (finished / "journal.jsonl").write_bytes(b"".join([lines[0].replace(b'"seed"', b'"sead"'), *lines[1:]]))
    table = (finished / "results.jsonl").read_bytes().splitlines(keepends=True)
    (finished / "results.jsonl").write_bytes(b"".join([table[0], table[1][:-20] + b"\n", *table[2:]]))
    problems, check = found(finished)
    assert problems == {
        ("", "journal.jsonl"): "has 1 damaged line; the rows will run again",
        ("", "results.jsonl"): "has a line that is not a row: line 2",
    }
    assert check.rows == 5


def test_images_of_an_earlier_content_count_while_a_table_names_them(settings, rows_file, go):
    a, b = (rows_file([{"id": "1", "prompt": prompt}], f"{prompt}.jsonl") for prompt in "ab")
    out = go(settings("t2i", a)).out
    go(settings("t2i", b))
    assert found(out)[1].files == 2
    (out / "images/1_0.png").unlink()
    assert set(found(out)[0]) == {("1", "images/1_0.png")}, "results-1.jsonl names it"
    (out / "results-1.jsonl").unlink()
    assert not found(out)[0]


def test_what_was_moved_aside_can_be_checked(settings, rows_file, go):
    out = go(settings("t2i", rows_file(ROWS))).out
    go(settings("t2i", rows_file(ROWS[:1]), fresh=True))
    assert found(out / "previous-1")[1].files == 7 and found(out)[1].files == 1


def test_no_run_folder(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunFolderError, match="give the folder of a run"):
            Check(path)
    assert not list(tmp_path.iterdir())
