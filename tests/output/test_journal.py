"""Whatever befalls the journal's file, the whole lines before the damage count and no wrong line does."""

from __future__ import annotations

import random
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgen.errors import DiskError
from fastgen.output.journal import Journal
from fastgen.types import Done, Failed, ImageParams

PARAMS = ImageParams(64, 64, 4, 0.0, 7, 1)


def done(id: str, content: str = "c") -> Done:
    return Done(id, "fake", "fake", (f"images/{id}.png",), PARAMS, 0.5, content)


def failed(id: str, message: str = "why") -> Failed:
    return Failed(id, "refused", message, content="c")


results = st.lists(
    st.builds(done, st.text(max_size=5)) | st.builds(failed, st.text(max_size=5), st.text(max_size=9)),
    min_size=1,
    max_size=6,
    unique_by=lambda result: result.id,
)


def filled(path: Path, results) -> list[int]:
    """Write a journal. Returns the offsets at which its lines end."""
    ends = []
    with closing(Journal(path)) as journal:
        for result in results:
            journal.append([result])
            ends.append(path.stat().st_size)
    return ends


def test_what_was_committed_is_there(tmp_path):
    path = tmp_path / "journal.jsonl"
    long = failed("long", "word " * 5000)
    with closing(Journal(path)) as journal:
        journal.append([done("a"), long])
        journal.append([failed("b")])
        for _ in range(2):
            assert journal.get("a", "c") == done("a")
            assert journal.get("long", "c") == long
    with closing(Journal(path)) as journal:
        assert journal.get("a", "c") == done("a")
        assert journal.get("long", "c") == long
        assert journal.get("b", "c") == failed("b")
        assert journal.get("none", "c") is None
        assert journal.damaged == 0


def test_lines_are_found_wherever_they_lie_while_the_file_grows(tmp_path, monkeypatch):
    monkeypatch.setattr("fastgen.output.journal.BLOCK", 1 << 10)
    monkeypatch.setattr("fastgen.output.journal.MOST_BLOCKS", 2)
    rng, written = random.Random(3), []
    with closing(Journal(tmp_path / "journal.jsonl")) as journal:
        for number in range(200):
            written.append(failed(f"row-{number}", "word " * rng.randrange(600)))
            journal.append([written[-1]])
            for result in rng.sample(written, min(len(written), 5)):
                assert journal.get(result.id, "c") == result
        assert journal.size == (tmp_path / "journal.jsonl").stat().st_size > 100 << 10


def test_a_row_that_says_something_new_has_no_result(tmp_path):
    with closing(Journal(tmp_path / "journal.jsonl")) as journal:
        journal.append([done("a", "old")])
        assert journal.get("a", "new") is None
        assert journal.get("a", "old") == done("a", "old")


def test_the_newest_result_counts(tmp_path):
    path = tmp_path / "journal.jsonl"
    filled(path, [failed("a"), done("b"), done("a")])
    with closing(Journal(path)) as journal:
        assert journal.get("a", "c") == done("a")


@settings(deadline=None)
@given(results=results, data=st.data())
def test_cut_at_any_byte(results, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        ends = filled(path, results)
        cut = data.draw(st.integers(0, ends[-1]))
        with path.open("r+b") as file:
            file.truncate(cut)
        whole = {result.id for result, end in zip(results, ends, strict=True) if end <= cut}
        with closing(Journal(path)) as journal:
            assert journal.damaged == 0, "a torn last line is ordinary"
            for result in results:
                assert journal.get(result.id, "c") == (result if result.id in whole else None)
            journal.append([result for result in results if result.id not in whole])
        with closing(Journal(path)) as journal:
            assert [journal.get(result.id, "c") for result in results] == results
            assert journal.damaged == 0


@settings(deadline=None)
@given(results=results, data=st.data())
def test_a_changed_byte_costs_its_line_alone(results, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        ends = filled(path, results)
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, ends[-1] - 1))
        content[place] = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
        path.write_bytes(content)
        # A lost line break takes the line after it too.
        hurt = {i for i, end in enumerate(ends) if (ends[i - 1] if i else 0) <= place < end}
        hurt |= {i + 1 for i in hurt if place == ends[i] - 1}
        with closing(Journal(path)) as journal:
            for i, result in enumerate(results):
                assert journal.get(result.id, "c") in ([result, None] if i in hurt else [result])


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300))
def test_rubbish_is_no_journal_and_no_crash(rubbish):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        path.write_bytes(rubbish)
        with closing(Journal(path)) as journal:
            journal.append([done("a")])
        assert path.read_bytes().count(b"\n") == 1
        with closing(Journal(path)) as journal:
            assert journal.get("a", "c") == done("a")


def test_damage_in_the_middle_is_counted(tmp_path):
    path = tmp_path / "journal.jsonl"
    ends = filled(path, [done("a"), done("b"), done("c")])
    content = bytearray(path.read_bytes())
    content[ends[0] + 40] ^= 1
    path.write_bytes(content)
    with closing(Journal(path)) as journal:
        assert journal.damaged == 1
        assert [journal.get(id, "c") is not None for id in "abc"] == [True, False, True]


def test_a_full_disk_leaves_the_journal_whole(small_disk):
    path = small_disk.path / "journal.jsonl"
    with closing(Journal(path)) as journal:
        journal.append([done("a")])
        (small_disk.path / "ballast").write_bytes(b"x" * 1_000_000)
        with pytest.raises(DiskError, match="No space left"):
            for i in range(1000):
                journal.append([failed(f"b{i}", "word " * 100)])
        first_lost = i
        assert journal.get("a", "c") == done("a")
        (small_disk.path / "ballast").unlink()
        journal.append([done("c")])
    with closing(Journal(path)) as journal:
        assert journal.damaged == 0
        assert journal.get("c", "c") == done("c")
        assert journal.get(f"b{first_lost - 1}", "c") is not None
        assert journal.get(f"b{first_lost}", "c") is None


# Rows that said several things


def made(id: str, content: str) -> Done:
    return Done(id, "fake", "fake", (f"images/{id}-{content}.png",), PARAMS, 0.5, content, files=((3, "00"),))


def test_what_a_row_said_before_is_still_known(tmp_path):
    path = tmp_path / "journal.jsonl"
    with closing(Journal(path)) as journal:
        journal.append([made("a", "first"), made("a", "second"), done("b")])
        journal.append([failed("a")])
        for _ in range(2):
            assert journal.get("a", "first") == made("a", "first") and journal.get("a", "second") == made("a", "second")
            assert journal.get("a", "c") == failed("a") and journal.get("a", "never") is None
            assert list(journal.history("a")) == [failed("a"), made("a", "second"), made("a", "first")]
            assert list(journal.history("b")) == [done("b")] and not list(journal.history("none"))
    with closing(Journal(path)) as journal:
        assert journal.get("a", "first") == made("a", "first")
        assert list(journal.history("a")) == [failed("a"), made("a", "second"), made("a", "first")]
        journal.append([made("a", "first")])
        assert len(list(journal.history("a"))) == 4
        assert [(result.id, result.content, newest) for result, newest in journal.results()] == [
            ("a", "first", True),
            ("a", "c", False),
            ("a", "second", False),
            ("b", "c", True),
        ]


def test_an_earlier_result_without_stamps_may_have_been_overwritten(tmp_path):
    """Version 0.1.0 gave the pictures of all that a row ever said the same names."""
    with closing(Journal(tmp_path / "journal.jsonl")) as journal:
        journal.append([done("a", "first"), done("a", "second")])
        assert journal.get("a", "second") and journal.get("a", "first") is None


def test_only_rows_with_several_results_take_more_memory(tmp_path):
    with closing(Journal(tmp_path / "journal.jsonl")) as journal:
        journal.append([made(f"{i}", "c") for i in range(1000)])
        assert len(journal.index) == 1000 and not journal._before
