"""What is in a run folder about batches, after any kill."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fastgen.errors import DiskError, EngineError
from fastgen.output import outbox
from fastgen.output.outbox import Outbox
from fastgen.output.parcels import ANSWERS, REQUESTS, STATE, Answer, Ask, Parcel, at_service, sweep

BODY = msgspec.Raw(b'{"text":"a cat"}')


@pytest.fixture
def box(tmp_path):
    made = Outbox(tmp_path, "openai", "http://a/v1")
    yield made
    made.close()


def filled(box: Outbox, *keys: str) -> Parcel:
    draft = box.draft()
    for key in keys:
        draft.add(Ask(key, f"row-{key}", 0, f"said-{key}"), b'{"custom_id":"%s"}' % key.encode())
    parcel = draft.close("/chat/completions")
    assert parcel is not None
    return parcel


def again(box: Outbox, tmp_path, where: str = "http://a/v1") -> Outbox:
    """What the next process finds."""
    box.close()
    return Outbox(tmp_path, "openai", where)


def test_a_request_is_there_from_the_moment_its_parcel_is_closed(box, tmp_path):
    draft = box.draft()
    draft.add(Ask("k", "r", 0, "s"), b"{}")
    assert box.find("k") is None
    parcel = draft.close("/chat/completions")
    assert box.find("k") is parcel and box.path(parcel).read_bytes() == b"{}\n"
    found = again(box, tmp_path)
    assert found.find("k") == parcel and found.find("x") is None
    found.close()


def test_a_parcel_that_a_kill_left_open_was_never_there(box, tmp_path):
    draft = box.draft()
    draft.add(Ask("k", "r", 0, "s"), b"{}")
    found = again(box, tmp_path)
    assert found.find("k") is None and not found.parcels
    assert [path.name for path in found.folder.iterdir()] == ["lock"]
    found.close()


def test_an_empty_or_dropped_draft_leaves_nothing(box):
    assert box.draft().close("/x") is None
    draft = box.draft()
    draft.add(Ask("k", "r", 0, "s"), b"{}")
    draft.drop()
    assert [path.name for path in box.folder.iterdir()] == ["lock"] and box.find("k") is None


@pytest.mark.parametrize("step", ["uploaded", "submitting", "submitted"])
def test_each_step_is_there_after_a_kill(box, tmp_path, step):
    parcel = filled(box, "k")
    box.step(parcel, step=step, file="file-1", id="batch_1")
    found = again(box, tmp_path)
    waits = found.find("k")
    assert isinstance(waits, Parcel) and (waits.step, waits.file, waits.id) == (step, "file-1", "batch_1")
    assert [p.name for p in at_service(tmp_path)] == [parcel.name] * (step != "uploaded")
    found.close()


def test_a_step_that_could_not_be_written_was_not_taken(box, monkeypatch, tmp_path):
    parcel = filled(box, "k")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(outbox.os, "fsync", full)
        with pytest.raises(DiskError, match="No space left"):
            box.step(parcel, step="submitting")
    assert parcel.step == "made"
    found = again(box, tmp_path)
    assert found.find("k").step == "made"
    found.close()


def test_answers_outlive_the_process_and_a_request_without_one_says_why(box, tmp_path):
    parcel = filled(box, "k", "gone")
    twice = [Answer("k", 200, BODY), Answer("k", 500, BODY), Answer("stranger", 200, BODY)]
    box.keep(parcel, twice, ("unavailable", "the batch expired"))
    assert parcel.step == "ended" and not box.path(parcel, REQUESTS).exists() and not at_service(tmp_path)
    found = again(box, tmp_path)
    for one in (box, found):
        answer, gone = one.find("k"), one.find("gone")
        assert (answer.status, bytes(answer.body), answer.said) == (200, bytes(BODY), "said-k")
        assert (gone.kind, gone.why, gone.said) == ("unavailable", "the batch expired", "said-gone")
        assert one.find("stranger") is None
    found.close()


def test_answers_without_the_step_that_follows_are_fetched_again(box, tmp_path):
    parcel = filled(box, "k")
    box.step(parcel, step="submitted", id="batch_1")
    (box.folder / parcel.name / ANSWERS).write_bytes(b'{"key":"k","sta')
    found = again(box, tmp_path)
    waits = found.find("k")
    assert isinstance(waits, Parcel) and waits.step == "submitted"
    found.keep(waits, [Answer("k", 200, BODY)], ("unavailable", ""))
    assert found.find("k").status == 200
    found.close()


def test_parcels_of_another_address_are_left_alone(box, tmp_path):
    parcel = filled(box, "k")
    box.step(parcel, step="submitted")
    found = again(box, tmp_path, "http://b/v1")
    assert found.find("k") is None and not found.parcels
    assert [p.name for p in at_service(tmp_path)] == [parcel.name]
    found.close()


def test_two_processes_do_not_share_it(box, tmp_path):
    with pytest.raises(EngineError, match="another process still uses it"):
        Outbox(tmp_path, "openai", "http://a/v1", lock_s=0.01)
    Outbox(tmp_path, "gemini", "http://a", lock_s=0.01).close()


def test_answers_are_removed_once_all_of_them_are_results(box, tmp_path):
    first, second, third = filled(box, "a", "b"), filled(box, "c"), filled(box, "d")
    for parcel in (first, second):
        box.keep(parcel, [], ("unavailable", ""))
    results = {"row-a": 1, "row-c": 1, "row-d": 1}
    sweep(tmp_path, lambda row: results.get(row, 0))
    left = {path.name for path in box.folder.iterdir() if (path / STATE).exists()}
    assert left == {first.name, third.name}
    results["row-b"] = 1
    sweep(tmp_path, lambda row: results.get(row, 0))
    assert box.find("a") is None and box.find("c") is None and box.find("d") is third


def test_a_result_that_was_there_before_the_request_does_not_count(box, tmp_path):
    draft = box.draft()
    draft.add(Ask("k", "r", 2, "s"), b"{}")
    box.keep(draft.close("/x"), [Answer("k", 200, BODY)], ("unavailable", ""))
    sweep(tmp_path, lambda row: 2)
    assert box.find("k").status == 200
    sweep(tmp_path, lambda row: 3)
    assert box.find("k") is None


def test_a_folder_without_batches_has_none(tmp_path):
    assert at_service(tmp_path) == []
    sweep(tmp_path, lambda row: 1)


def test_a_name_that_no_folder_can_have_holds_no_batches():
    assert at_service(Path("x" * 300)) == []
