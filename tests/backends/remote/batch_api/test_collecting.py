"""Which call is which, and what is given in its place."""

from __future__ import annotations

import msgspec
import pytest

from fastgen.backends.remote.batch_api.collecting import Collecting, NotDone, Row
from fastgen.backends.remote.deferred import NotYet, each, here
from fastgen.output.outbox import Outbox
from fastgen.output.parcels import Answer

URL = "http://a/v1/chat/completions"


class Http:
    base_url = "http://a/v1"

    def send(self, method, url, headers, body=None):
        return f"sent {method} {url}"


@pytest.fixture
def setting(tmp_path):
    made = Setting(tmp_path)
    yield made
    made.box.close()
    here.row = None


class Setting:
    def __init__(self, folder):
        self.box, self.taken, self.block = Outbox(folder, "openai", "here"), {}, None
        self.http = Collecting(Http(), self.box, lambda url: "/chat" if url == URL else "", lambda parcel: self.block)

    def row(self, key="row"):
        here.row = Row("id", key, 0, self.take)
        return here.row

    def take(self, ask, path, body):
        self.taken[ask.key] = (path, body)
        draft = self.box.draft()
        draft.add(ask, body)
        self.parcel = draft.close(path)
        return draft.name

    def ask(self, body=b"{}"):
        return self.http.send("POST", URL, {}, body)

    def answer(self, *statuses):
        """Answer what was asked last."""
        for status in statuses:
            body = msgspec.Raw(b'{"is":%d}' % status)
            keys = [key for key in self.taken if not isinstance(self.box.find(key), Answer)]
            self.box.keep(self.parcel, [Answer(key, status, body) for key in keys], ("unavailable", "expired"))


def test_only_requests_of_a_row_that_a_batch_can_hold_are_taken_down(setting):
    assert setting.ask() == f"sent POST {URL}"
    setting.row()
    assert setting.http.send("GET", URL, {}) == f"sent GET {URL}"
    assert setting.http.send("POST", "http://a/v1/files", {}, b"x") == "sent POST http://a/v1/files"
    assert setting.http.base_url == "http://a/v1" and not setting.taken


def test_a_call_finds_its_answer_by_its_number_and_not_by_its_words(setting):
    row = setting.row()
    with pytest.raises(NotYet):
        setting.ask(b'{"n":1}')
    assert list(setting.taken.values()) == [("/chat", b'{"n":1}')] and row.waits_for == {setting.parcel.name}
    setting.row()
    with pytest.raises(NotYet):
        setting.ask(b'{"n":1}')
    setting.answer(200)
    row = setting.row()
    answer = setting.ask(b'{"n":2}')  # a setting may have been learned in the meantime
    assert (answer.status, answer.data, row.answers) == (200, b'{"is":200}', 1)
    with pytest.raises(NotYet):
        setting.ask(b'{"n":1}')  # the second call of the row
    setting.row("other")
    with pytest.raises(NotYet):
        setting.ask(b'{"n":1}')
    assert len(setting.taken) == 3


@pytest.mark.parametrize("status", [400, 422])
def test_a_complaint_counts_only_for_the_same_request(setting, status):
    setting.row()
    with pytest.raises(NotYet):
        setting.ask(b'{"seed":1}')
    setting.answer(status)
    setting.row()
    assert setting.ask(b'{"seed":1}').status == status
    setting.row()
    with pytest.raises(NotYet):
        setting.ask(b"{}")
    assert [body for _, body in setting.taken.values()] == [b'{"seed":1}', b"{}"]


def test_what_was_not_done_is_a_fault_and_costs_nothing(setting):
    setting.row()
    with pytest.raises(NotYet):
        setting.ask()
    setting.box.keep(setting.parcel, [], ("unavailable", "expired"))
    setting.row()
    with pytest.raises(NotDone, match="expired") as told:
        setting.ask()
    assert (told.value.kind, told.value.paid) == ("unavailable", False)


def test_a_blocked_parcel_is_a_fault(setting):
    setting.row()
    with pytest.raises(NotYet):
        setting.ask()
    setting.block = NotDone("unauthorized", "401")
    setting.row()
    with pytest.raises(NotDone, match="401"):
        setting.ask()


def test_what_does_not_depend_on_each_other_is_asked_together(setting):
    def work():
        each(lambda n=n: answers.append(setting.ask(b"%d" % n).status) for n in range(3))

    row, answers = setting.row(), []
    with pytest.raises(NotYet):
        work()
    assert [body for _, body in setting.taken.values()] == [b"0", b"1", b"2"]
    assert row.is_missing_answers and row.branch == ()


def test_an_error_waits_until_the_others_were_asked(setting):
    setting.row()
    done = []

    def fail():
        raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        each([fail, lambda: done.append(1)])
    with pytest.raises(NotYet):
        each([fail, setting.ask])
    here.row = None
    done.clear()
    with pytest.raises(ValueError, match="one"):
        each([fail, lambda: done.append(1)])
    assert not done, "direct calls end with the first error"
