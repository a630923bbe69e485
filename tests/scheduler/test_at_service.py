"""What a run says about its batches, and when it refuses to ask for them again."""

from __future__ import annotations

from contextlib import closing

import pytest

from fastgen.errors import RunFolderError
from fastgen.output.journal import Journal
from fastgen.output.outbox import Outbox
from fastgen.output.parcels import Ask, described
from fastgen.scheduler.at_service import LOOK_EVERY_S, TROUBLE_EVERY_S, AtService, refuse
from fastgen.types import Failed


@pytest.fixture
def box(tmp_path):
    with closing(Outbox(tmp_path, "openai", "here")) as made:
        yield made


def sent(box, row="r", **facts):
    draft = box.draft()
    draft.add(Ask(f"key-{row}", row, 0, ""), b"{}")
    parcel = draft.close("/x")
    box.step(parcel, **{"step": "submitted", "id": f"batch_{row}", **facts})
    return parcel


def test_what_is_said_of_batches(box, tmp_path):
    said = []
    with closing(Journal(tmp_path / "journal.jsonl")) as journal:
        at = AtService(tmp_path, journal, lambda event, **facts: said.append((event, facts)))
        at.begin()
        at.end()
        assert said == []
        parcel = sent(box)
        at.begin()
        (_, warning), (event, counts) = said
        assert warning["message"] == (
            "1 batch with 1 request is still at the service (batch_r) from an earlier run; "
            "this run waits for the results"
        )
        assert (event, counts) == ("batches", {"batches": 1, "requests": 1, "done": 0, "failed": 0})
        now = at._looked + LOOK_EVERY_S
        at.look(now - 1)
        at.look(now)
        assert len(said) == 2, "nothing has changed"
        box.step(parcel, done=1, trouble="no answer")
        at.look(now := now + LOOK_EVERY_S)
        at.look(now := now + LOOK_EVERY_S)
        assert [event for event, _ in said[2:]] == ["batches", "warning"]
        assert said[3][1]["message"] == "batch batch_r: no answer"
        other = sent(box, "other", trouble="no answer")
        at.look(now := now + TROUBLE_EVERY_S)
        assert said[5][1]["message"] == "batch batch_r and 1 more: no answer" and len(said) == 6
        box.keep(other, [], ("unavailable", ""))
        at.end()
        assert said[-1][1]["message"].endswith("(batch_r); run the same command again to get the results")
        box.keep(parcel, [], ("unavailable", ""))
        at.look(now + LOOK_EVERY_S)
        assert said[-1] == ("batches", {"batches": 0, "requests": 0, "done": 0, "failed": 0})
        assert box.find("key-r").kind
        journal.append([Failed("r", "unavailable", "")])
        at.end()
        assert box.find("key-r") is None, "what has become a result is cleared away"


def test_many_batches_in_few_words(box):
    parcels = [sent(box, f"r{number}") for number in range(4)]
    box.step(parcels[0], id="")
    assert described(parcels) == (
        f"4 batches with 4 requests are still at the service (not confirmed yet: {parcels[0].name}, batch_r1, batch_r2 "
        "and 1 more)"
    )


@pytest.mark.parametrize(
    ("durable", "fresh", "words"),
    [
        (True, True, "leave --fresh out"),
        (False, False, "use --batch-api"),
        (False, True, "--batch-api without --fresh"),
    ],
)
def test_rows_at_a_service_are_not_asked_for_again(box, tmp_path, durable, fresh, words):
    refuse(tmp_path, durable, fresh)
    refuse(tmp_path, True, False)
    parcel = sent(box)
    refuse(tmp_path, True, False)
    with pytest.raises(RunFolderError, match=words):
        refuse(tmp_path, durable, fresh)
    box.keep(parcel, [], ("unavailable", ""))
    refuse(tmp_path, durable, fresh)
