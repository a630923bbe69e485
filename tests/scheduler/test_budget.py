"""What was spent stays spent, and the limit is never passed."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from fastgen.errors import DiskError
from fastgen.output import sent
from fastgen.output.sent import SentMarks
from fastgen.scheduler.budget import SPENDING, Ledger


def test_what_may_still_be_spent(tmp_path):
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.afford({"a": 0.6}) and not ledger.afford({"b": 0.5})
        assert ledger.afford({"c": 0.4}) and not ledger.afford({"d": 0.01})
        ledger.settle("a", 0.1)
        assert ledger.afford({"b": 0.5}) and (round(ledger.spent, 6), round(ledger.reserved, 6)) == (0.1, 0.9)
        ledger.settle("b", None)
        ledger.settle("c", 0.0)
        assert round(ledger.spent, 6) == 0.6 and ledger.reserved == 0


def test_a_killed_run_has_spent_what_it_had_set_aside(tmp_path):
    with closing(Ledger(tmp_path, limit=0.0)) as ledger:
        ledger.afford({"a": 0.2})
        ledger.settle("a", 0.15)
        ledger.afford({"b": 0.2})
    with (tmp_path / SPENDING).open("ab") as file:
        file.write(b'{"id": "to')  # torn
    with closing(Ledger(tmp_path, limit=0.5)) as ledger:
        assert round(ledger.spent, 6) == 0.35 and ledger.reserved == 0
        assert not ledger.afford({"c": 0.2}) and ledger.afford({"c": 0.15})


def test_what_follows_a_torn_line_is_not_lost_with_it(tmp_path):
    (tmp_path / SPENDING).write_bytes(b'{"id": "to')
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.afford({"a": 0.7})  # and then it is killed
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.spent == 0.7 and not ledger.afford({"b": 0.5})


def test_a_full_disk_is_told_before_anything_is_sent(tmp_path, monkeypatch):
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.afford({"a": 0.1})
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:5], offset))
        with pytest.raises(DiskError):
            ledger.afford({"b": 0.1})


def test_what_is_free_leaves_no_trace(tmp_path):
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.afford({})
        ledger.settle("a", 0.0)
    assert not (tmp_path / SPENDING).exists()


def fill(folder, rows: int = 6) -> list[bytes]:
    """A folder where each of so many rows may cost 0.2 USD and did cost 0.1. Returns the lines of its file."""
    with closing(Ledger(folder, limit=0.0)) as ledger:
        for number in range(rows):
            assert ledger.afford({f"r{number}": 0.2})
            ledger.settle(f"r{number}", 0.1)
    return (folder / SPENDING).read_bytes().splitlines(keepends=True)


def reopened(folder, floor: float = 0.0, dearest: float = 0.0) -> tuple[float, list[str]]:
    with closing(Ledger(folder, 0.0, floor, dearest)) as ledger:
        assert not ledger.reserved
        return round(ledger.spent, 6), ledger.warnings


def test_an_undamaged_file_says_nothing(tmp_path):
    assert len(fill(tmp_path)) == 12
    assert reopened(tmp_path) == (0.6, [])
    assert reopened(tmp_path, floor=0.6) == (0.6, [])


@pytest.mark.parametrize("at", [0, 3, 4, 10])
@pytest.mark.parametrize("how", ["damaged", "missing", "doubled"])
def test_what_befalls_a_line_is_made_good_by_the_next_and_said(tmp_path, at, how):
    lines = fill(tmp_path)
    lines[at : at + 1] = {
        "damaged": [lines[at].replace(b"total", b"tot@l")],
        "missing": [],
        "doubled": [lines[at]] * 2,
    }[how]
    (tmp_path / SPENDING).write_bytes(b"".join(lines))
    spent, [warning] = reopened(tmp_path)
    assert spent == 0.6 and ("1 lines are damaged" if how == "damaged" else "lines are missing or doubled") in warning


@pytest.mark.parametrize(("kept", "spent"), [(11, 0.7), (10, 0.5)])
def test_lines_missing_at_the_end_cost_no_more_than_the_results_say(tmp_path, kept, spent):
    """Nothing in the file tells; an open request counts as it was set aside, and the journal is the least."""
    lines = fill(tmp_path)
    (tmp_path / SPENDING).write_bytes(b"".join(lines[:kept]))
    found, warnings = reopened(tmp_path, floor=0.6)
    assert found == max(0.6, spent) and len(warnings) == 1
    assert ("were in flight" in warnings[0]) == (kept == 11)


def test_damage_at_the_end_counts_at_its_upper_bound(tmp_path):
    lines = fill(tmp_path)
    lines[-2:] = [b"\0" * 40 + b"\n", b"x\n"]
    (tmp_path / SPENDING).write_bytes(b"".join(lines))
    spent, [warning] = reopened(tmp_path)
    assert spent == 0.5 + 2 * 0.2 and "2 lines are damaged" in warning and "0.9000 USD" in warning


def test_a_file_of_rubbish_counts_with_the_dearest_result(tmp_path):
    (tmp_path / SPENDING).write_bytes(b"?\n" * 4)
    spent, [warning] = reopened(tmp_path, floor=0.2, dearest=0.1)
    assert spent == 0.4 and "4 lines are damaged" in warning


def test_a_file_that_was_deleted_does_not_give_the_money_back(tmp_path):
    fill(tmp_path)
    (tmp_path / SPENDING).unlink()
    spent, [warning] = reopened(tmp_path, floor=0.6)
    assert spent == 0.6 and "is missing" in warning
    assert reopened(tmp_path, floor=0.6) == (0.6, []), "and it is written down again"


def test_what_was_under_way_at_a_kill_is_settled_once_and_said(tmp_path, table):
    with closing(Ledger(tmp_path, limit=0.0)) as ledger:
        ledger.afford({"a": 0.2})
    spent, [warning] = reopened(tmp_path)
    assert spent == 0.2 and "1 requests were in flight" in warning
    assert table(tmp_path / SPENDING)[-1]["rec"] | {"why": ""} == {
        "id": "a",
        "spent": 0.2,
        "number": 2,
        "total": 0.2,
        "unknown": 0.2,
        "why": "",
    }
    with closing(Ledger(tmp_path, limit=0.0)) as ledger:  # the row is asked for again
        ledger.afford({"a": 0.2})
        ledger.settle("a", 0.1)
    assert reopened(tmp_path) == (0.3, []), "what may have been billed before is not forgotten"


def test_a_file_of_the_version_before_is_read_and_gone_on_with(tmp_path):
    (tmp_path / SPENDING).write_text(
        '{"id":"a","reserved":0.2}\n{"id":"a","spent":0.15}\n{"id":"b","reserved":0.2}\n{"id":"b","spent":0.1}\n'
    )
    assert reopened(tmp_path, floor=0.25) == (0.25, [])
    with closing(Ledger(tmp_path, limit=0.5)) as ledger:
        assert not ledger.afford({"c": 0.3}) and ledger.afford({"c": 0.2})
        ledger.settle("c", 0.2)
    assert reopened(tmp_path) == (0.45, [])


def test_what_a_full_disk_does_not_take_counts_and_is_written_later(tmp_path, monkeypatch):
    with closing(Ledger(tmp_path, limit=0.5)) as ledger:
        assert ledger.afford({"a": 0.3})
        with monkeypatch.context() as full:
            full.setattr(os, "pwrite", lambda file, data, offset: 0)
            assert ledger.settle("a", 0.1) == 0.1 and ledger.spent == 0.1
            with pytest.raises(DiskError):
                ledger.afford({"b": 0.1})
        assert ledger.afford({"b": 0.4}) and not ledger.afford({"c": 0.1})
        ledger.settle("b", None)
    assert reopened(tmp_path) == (0.5, [])


def test_lines_are_made_durable(tmp_path, monkeypatch):
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), real(file)))
    with closing(Ledger(tmp_path, limit=0.0)) as ledger:
        ledger.afford({"a": 0.2})
        ledger.sync(at_most_every_s=3600)
        assert not synced
        ledger.sync()
        ledger.sync()
        assert len(synced) == 1, "once, for there was nothing new"
        ledger.settle("a", 0.1)
    assert len(synced) == 2


def killed(folder, *asked: str, sent_rows: tuple[str, ...] = (), marked: bool = True) -> None:
    """A run that is killed while requests of 0.2 USD at most are reserved for these rows."""
    ledger = Ledger(folder, limit=0.0, marked=marked)
    for id in asked:
        assert ledger.afford({id: 0.2}, {id: f"ask of {id}"})
    marks = SentMarks(str(folder))
    marks.add(sent_rows)
    marks.close()
    os.close(ledger._file)


def answered(folder, id: str, usd: float, ask: str = "") -> tuple[float, float]:
    """The row is asked for again and answered. Returns the USD that are spent, and those of them that may not be."""
    with closing(Ledger(folder, limit=0.0, marked=True)) as ledger:
        assert ledger.afford({id: 0.2}, {id: ask or f"ask of {id}"})
        ledger.settle(id, usd)
        ledger.learn(id, ask or f"ask of {id}", usd)
        assert not ledger.has_lost(id) or ask
        return round(ledger.spent, 6), round(ledger.unknown, 6)


def test_after_a_kill_only_what_was_sent_may_have_been_billed(tmp_path):
    killed(tmp_path, "a", "b", "c", sent_rows=("b",))
    spent, [warning] = reopened(tmp_path)
    assert spent == 0.2 and warning.startswith("1 requests were in flight") and not (tmp_path / ".sent").exists()
    assert reopened(tmp_path) == (0.2, [])


@pytest.mark.parametrize("how", ["no marks", "deleted", "another run's", "cut", "another boot"])
def test_without_a_trustworthy_record_everything_may_have_been_sent(tmp_path, how, monkeypatch):
    killed(tmp_path, "a", "b", sent_rows=("b",), marked=how != "no marks")
    marks = tmp_path / ".sent"
    if how == "deleted":
        marks.unlink()
    elif how == "another run's":
        sent.begin(tmp_path)
    elif how == "cut":
        marks.write_bytes(marks.read_bytes()[:-1])
    elif how == "another boot":
        monkeypatch.setattr(sent, "_boot", lambda: "0ther000")
    assert reopened(tmp_path)[0] == 0.4


def test_the_answer_to_a_row_tells_what_its_lost_requests_cost(tmp_path, table):
    for _ in range(2):  # killed twice
        killed(tmp_path, "a", "b", sent_rows=("a", "b"))
    assert reopened(tmp_path)[0] == 0.8
    assert answered(tmp_path, "a", 0.05) == (0.55, 0.5), "three times 0.05, and twice the most for the other row"
    assert [line["rec"].get("replaces") for line in table(tmp_path / SPENDING)][-1] is True
    assert answered(tmp_path, "a", 0.07) == (0.62, 0.5), "it is known already"
    assert answered(tmp_path, "b", 0.1) == (0.52, 0.3)
    assert reopened(tmp_path, floor=0.22) == (0.52, []), "never below what the results cost"


def test_another_request_of_the_row_tells_nothing(tmp_path):
    """Its prompt, model or input has changed in the meantime."""
    killed(tmp_path, "a", sent_rows=("a",))
    assert answered(tmp_path, "a", 0.05, ask="another") == (0.25, 0.2)
    assert answered(tmp_path, "a", 0.05) == (0.15, 0.05)


def test_a_loss_is_not_corrected_twice_if_the_correction_was_damaged(tmp_path, table):
    killed(tmp_path, "a", sent_rows=("a",))
    answered(tmp_path, "a", 0.05)
    lines = (tmp_path / SPENDING).read_bytes().splitlines(keepends=True)
    [at] = [number for number, line in enumerate(lines) if b"replaces" in line]
    with closing(Ledger(tmp_path, limit=0.0)) as ledger:
        ledger.afford({"z": 0.2})
        ledger.settle("z", 0.1)
    lines = (tmp_path / SPENDING).read_bytes().splitlines(keepends=True)
    lines[at] = lines[at].replace(b"replaces", b"rep1aces")
    (tmp_path / SPENDING).write_bytes(b"".join(lines))
    assert reopened(tmp_path)[0] == 0.2
    assert answered(tmp_path, "a", 0.05)[0] == 0.25


def test_a_worker_that_died_is_told_apart_in_the_same_run(tmp_path):
    with closing(Ledger(tmp_path, limit=0.0)) as ledger:
        ledger.afford({"a": 0.2}, {"a": "x"})
        assert ledger.settle("a", None) == 0.2 and ledger.has_lost("a")
        ledger.afford({"a": 0.2}, {"a": "x"})
        ledger.settle("a", 0.05)
        ledger.learn("a", "x", 0.05)
        assert round(ledger.spent, 6) == 0.1 and not ledger.has_lost("a")


def test_a_durable_reservation_outlives_the_run(tmp_path):
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:
        assert ledger.afford({"a": 0.4, "b": 0.4}, {"a": "x", "b": "x"}, durable=True)
        ledger.settle("a", 0.1, "receipt")
    with closing(Ledger(tmp_path, limit=1.0)) as ledger:  # after a kill
        assert (round(ledger.spent, 6), ledger.reserved) == (0.1, 0.4) and not ledger.warnings and ledger.unknown == 0
        assert ledger.holds("b", "x") and not ledger.holds("b", "y") and not ledger.holds("a", "x")
        assert ledger.left == pytest.approx(0.5)
        assert ledger.afford({"b": 0.4, "c": 0.5}, {"b": "x", "c": "x"}, durable=True), "b is reserved already"
        assert not ledger.afford({"d": 0.01}, {"d": "x"}, durable=True)
        ledger.settle("b", 0.2, "another")
        assert ledger.spent == pytest.approx(0.3)


def test_the_same_answer_is_booked_once(tmp_path):
    with closing(Ledger(tmp_path, limit=0.0)) as ledger:
        ledger.afford({"a": 0.4}, {"a": "x"}, durable=True)
        ledger.settle("a", 0.1, "first try")
    with closing(Ledger(tmp_path, limit=0.0)) as ledger:  # it was killed before the result was in the journal
        ledger.afford({"a": 0.4}, {"a": "x"}, durable=True)
        assert ledger.settle("a", 0.1, "first try") == 0 and (ledger.spent, ledger.reserved) == (0.1, 0)
        ledger.afford({"a": 0.4}, {"a": "x"}, durable=True)
        ledger.settle("a", 0.2, "second try")
        assert ledger.spent == pytest.approx(0.3)


def test_a_row_that_changed_may_have_been_paid_for_as_it_was(tmp_path):
    with closing(Ledger(tmp_path, limit=0.0)) as ledger:
        ledger.afford({"a": 0.4}, {"a": "x"}, durable=True)
        ledger.afford({"a": 0.3}, {"a": "y"}, durable=True)
        assert (ledger.spent, ledger.unknown, ledger.reserved) == (0.4, 0.4, 0.3)
