"""The way of a parcel, and a kill at each step of it: submitted once, every answer back."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from fastgen.backends.remote.batch_api.courier import Courier, Pace
from fastgen.backends.remote.batch_api.service import Look
from fastgen.backends.remote.responses import ProviderError
from fastgen.errors import DiskError
from fastgen.output import outbox
from fastgen.output.outbox import Outbox
from fastgen.output.parcels import Answer, Ask

BODY = msgspec.Raw(b'"yes"')


class Killed(BaseException):
    """The process ends here."""


class Fake:
    """A service that keeps what it was given, and dies or fails as the test says.

    Args: at: "submit before", "submit after" and so on; the first time that point is passed, `error` is raised.
    """

    most_requests = most_bytes = 1000

    def __init__(self, at: str = "", error: BaseException | None = None):
        self.at, self.error = at, error or Killed()
        self.uploads: dict[str, list[str]] = {}
        self.batches: dict[str, str] = {}
        """Id -> the parcel's name."""
        self.made: Counter[str] = Counter()
        self.looks = Look(True, done=2, files=("out",))
        self.lines = [b'{"key":"a"}\n', b'{"key":"b"}\n']
        self.in_list = True
        self.calls: list[str] = []

    def _point(self, name: str, when: str) -> None:
        if self.at == f"{name} {when}":
            self.at = ""
            raise self.error

    def _do(self, name, work):
        self.calls.append(name)
        self._point(name, "before")
        found = work()
        self._point(name, "after")
        return found

    def upload(self, parcel, file):
        def work():
            name = f"file-{len(self.uploads)}"
            self.uploads[name] = file.read_text().splitlines()
            return name

        return self._do("upload", work)

    def submit(self, parcel):
        def work():
            assert parcel.file in self.uploads
            id = f"batch-{len(self.batches)}"
            self.batches[id] = parcel.name
            self.made[parcel.name] += 1
            return id

        return self._do("submit", work)

    def find(self, parcel):
        ids = [id for id, name in self.batches.items() if name == parcel.name]
        return self._do("find", lambda: ids[0] if ids and self.in_list else "")

    def look(self, parcel):
        assert self.batches[parcel.id] == parcel.name
        return self._do("look", lambda: self.looks)

    def fetch(self, file, to):
        return self._do("fetch", lambda: to.write_bytes(b"".join(self.lines)))

    def read(self, line):
        return Answer(msgspec.json.decode(line)["key"], 200, BODY)


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path)


class Setting:
    """A run folder, a clock that goes to the next moment when something is due, and processes one after the other."""

    def __init__(self, folder):
        self.folder, self.now, self.box = folder, 1000.0, None

    def process(self, service, keys: str = "ab") -> Courier:
        """A new process. The first one fills a parcel."""
        if self.box is not None:
            self.box.close()
        is_new, self.box = self.box is None, Outbox(self.folder, "openai", "here")
        if is_new and keys:
            self.fill(keys)
        return Courier(self.box, service, Pace(), lambda: self.now)

    def fill(self, keys: str):
        draft = self.box.draft()
        for key in keys:
            draft.add(Ask(key, key, 0, ""), key.encode())
        return draft.close("/x")

    def work(self, courier: Courier, times: int = 60) -> None:
        for _ in range(times):
            if all(parcel.step == "ended" for parcel in self.box.parcels.values()):
                return
            self.now += max(0.001, courier.work())


def test_the_way_of_a_parcel(setting):
    service = Fake()
    setting.work(setting.process(service))
    assert service.calls == ["upload", "submit", "look", "fetch"]
    assert service.uploads == {"file-0": ["a", "b"]}
    assert [setting.box.find(key).status for key in "ab"] == [200, 200]
    assert not list(setting.folder.rglob("*.part"))


POINTS = [f"{call} {when}" for call in ("upload", "submit", "look", "fetch") for when in ("before", "after")]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_each_call(setting, point):
    service = Fake(point)
    with pytest.raises(Killed):
        setting.work(setting.process(service))
    setting.work(setting.process(service))
    assert set(service.made.values()) == {1}
    assert [setting.box.find(key).status for key in "ab"] == [200, 200]


@pytest.mark.parametrize("number", range(1, 12))
def test_a_kill_at_each_write(setting, monkeypatch, number):
    service, left, real = Fake(), [number], outbox.os.rename

    def rename(old, new):
        left[0] -= 1
        if not left[0]:
            raise Killed
        real(old, new)

    courier = setting.process(service)
    monkeypatch.setattr(outbox.os, "rename", rename)
    try:
        setting.work(courier)
    except Killed:
        setting.work(setting.process(service))
    assert set(service.made.values()) == {1}
    assert [setting.box.find(key).status for key in "ab"] == [200, 200]


def test_a_kill_while_it_looks_for_its_batch(setting):
    service = Fake("submit after")
    with pytest.raises(Killed):
        setting.work(setting.process(service))
    service.at = "find after"
    with pytest.raises(Killed):
        setting.work(setting.process(service))
    setting.work(setting.process(service))
    assert set(service.made.values()) == {1} and setting.box.find("a").status == 200


def test_a_batch_that_comes_into_the_list_late_is_not_submitted_again(setting):
    service = Fake("submit after")
    with pytest.raises(Killed):
        setting.work(setting.process(service))
    service.in_list = False
    courier, died_at = setting.process(service), setting.now
    while setting.now < died_at + Pace.arrive_s - 1:
        setting.now += courier.work()
    assert set(service.made.values()) == {1}
    service.in_list = True
    setting.work(courier)
    assert set(service.made.values()) == {1} and setting.box.find("b").status == 200


def test_a_batch_that_never_came_is_submitted_after_a_while(setting):
    service = Fake("submit before")
    with pytest.raises(Killed):
        setting.work(setting.process(service))
    died_at = setting.now
    setting.work(setting.process(service))
    assert setting.now >= died_at + Pace.arrive_s
    assert set(service.made.values()) == {1} and setting.box.find("a").status == 200


def test_no_answer_to_a_submission_is_looked_up_not_repeated(setting):
    service = Fake("submit after", ProviderError("unavailable", "no answer: ReadTimeout"))
    setting.work(setting.process(service))
    assert set(service.made.values()) == {1} and "find" in service.calls


def test_a_refused_submission_is_repeated_without_a_search(setting):
    service = Fake("submit before", ProviderError("rate_limited", "429", retry_after=7.0))
    before = setting.now
    setting.work(setting.process(service))
    assert "find" not in service.calls and set(service.made.values()) == {1} and setting.now >= before + 7.0


@pytest.mark.parametrize("kind", ["quota", "unauthorized", "gone", "input"])
def test_a_service_that_takes_no_batch_gives_the_rows_back(setting, kind):
    setting.work(setting.process(Fake("submit before", ProviderError(kind, "no"))))
    assert (setting.box.find("a").kind, setting.box.find("a").why) == (kind, "no")


def test_a_service_that_is_not_there_is_given_up_after_a_while(setting):
    service = Fake()
    service.upload = lambda parcel, file: (_ for _ in ()).throw(ProviderError("unavailable", "no answer"))
    before = setting.now
    setting.work(setting.process(service))
    assert setting.box.find("a").kind == "unavailable" and setting.now >= before + Pace.patience_s


def test_what_is_at_the_service_is_never_given_up(setting):
    service = Fake()
    courier = setting.process(service)
    service.look = lambda parcel: (_ for _ in ()).throw(ProviderError("unavailable", "no answer"))
    setting.work(courier, 500)
    (parcel,) = setting.box.parcels.values()
    assert setting.now > 1000 + 10_000 and (parcel.step, parcel.trouble) == ("submitted", "no answer")
    assert courier.blocked(parcel) is None
    del service.look
    setting.work(courier)
    assert setting.box.find("a").status == 200


def test_a_service_that_refuses_to_say_how_a_batch_is_blocks_its_rows_but_not_its_parcel(setting):
    service = Fake()
    courier = setting.process(service)
    service.look = lambda parcel: (_ for _ in ()).throw(ProviderError("unauthorized", "401"))
    setting.work(courier, 40)
    (parcel,) = setting.box.parcels.values()
    assert courier.blocked(parcel).kind == "unauthorized" and parcel.step == "submitted"
    del service.look
    setting.work(setting.process(service))
    assert setting.box.find("a").status == 200 and set(service.made.values()) == {1}


def test_a_batch_without_room_is_submitted_again_later(setting):
    service = Fake()
    courier = setting.process(service)
    service.looks = Look(is_full=True, otherwise=("rate_limited", "too much"))
    setting.work(courier, 4)
    (parcel,) = setting.box.parcels.values()
    assert parcel.step in ("uploaded", "submitted") and parcel.trouble == "too much"
    service.looks = Look(True, files=("out",))
    setting.work(courier)
    assert setting.box.find("a").status == 200


def test_a_batch_for_which_there_is_never_room_is_given_up(setting):
    service = Fake()
    service.looks = Look(is_full=True, otherwise=("rate_limited", "too much"))
    setting.work(setting.process(service), 500)
    assert (setting.box.find("a").kind, setting.box.find("a").why) == ("rate_limited", "too much")


def test_a_request_that_the_results_lack_says_so(setting):
    service = Fake()
    service.lines = [b'{"key":"b"}\n']
    service.looks = Look(True, files=("out",), otherwise=("unavailable", "it expired"))
    setting.work(setting.process(service))
    assert setting.box.find("b").status == 200
    assert (setting.box.find("a").kind, setting.box.find("a").why) == ("unavailable", "it expired")


def test_results_that_cannot_be_read_are_kept_and_not_asked_for_again(setting):
    service = Fake()
    service.lines, service.read = [b"something else\n"], lambda line: None
    setting.work(setting.process(service))
    assert setting.box.find("a").kind == "unsupported" and len(list(setting.folder.rglob("*.part"))) == 1


def test_a_full_disk_is_told(setting, monkeypatch):
    courier = setting.process(Fake())

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outbox.os, "fsync", full)
    courier._run()
    assert isinstance(courier.broken, DiskError)
