"""Several servers as one: who gets which row, and what happens to the rows of one that dies."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest

from fastgen.backends.remote.fleet import LEFT_ALONE_S, Fleet, Member
from fastgen.errors import EngineError, ModelError, SettingsError
from fastgen.resolver import resolve
from fastgen.types import Batch, Bucket, Done, Failed, Request, TextParams

URLS = ["http://a/v1", "http://b/v1", "http://c/v1"]


class Fake:
    """A backend that answers as the test says."""

    def __init__(self, settings, device):
        self.settings, self.url = settings, settings.endpoint.base_url
        self.seen, self.kind, self.model, self.is_dead = [], "", "m", False

    def open(self):
        if self.is_dead:
            raise EngineError(f"{self.url} does not answer")
        return {"model": self.model, "base_url": self.url}

    def run(self, batch):
        (request,) = batch.requests
        self.seen.append(request.id)
        if self.kind:
            return [Failed(request.id, self.kind, "no", cost=0.5)]
        return [Done(request.id, "vllm", self.model, (), request.params, 0.0, text=self.url, cost=0.25)]

    def cancel_pending(self): ...

    def close(self): ...


@pytest.fixture
def fleet(tmp_path):
    now = [0.0]
    settings = resolve("caption", None, base_url=URLS, model="m", out=tmp_path)
    made = Fleet(settings, settings.placement.devices[0], Fake, lambda: now[0])
    made.now = now
    made.open()
    return made


def row(number: int) -> Batch:
    request = Request(str(number), "caption", (), TextParams(1, 0.0, 0), dialogue=(("user", "x"),))
    return Batch(Bucket.of(request), (request,))


def test_the_settings_of_a_fleet(tmp_path):
    settings = resolve("caption", None, base_url=["http://a", *URLS[1:]], model="m", out=tmp_path, max_inflight=30)
    assert (settings.endpoint.base_url, settings.endpoint.more_urls) == (URLS[0], tuple(URLS[1:]))
    assert len(settings.placement.devices) == 1
    fleet = Fleet(settings, settings.placement.devices[0], Fake)
    assert [member.backend.url for member in fleet.members] == URLS
    assert [member.backend.settings.endpoint.max_inflight for member in fleet.members] == [10, 10, 10]
    with pytest.raises(SettingsError, match="given twice"):
        resolve("caption", None, base_url=[URLS[0], URLS[0]], model="m", out=tmp_path)
    with pytest.raises(SettingsError, match="not an address"):
        resolve("caption", None, base_url=[URLS[0], "b"], model="m", out=tmp_path)
    alone = resolve("caption", None, base_url=URLS[0], model="m", out=tmp_path)
    assert alone.endpoint.more_urls == ()


def test_rows_go_to_the_server_that_is_done_first():
    fast, slow = Member(None, "fast", 64), Member(None, "slow", 64)
    for member, each in ((fast, 0.1), (slow, 1.0)):
        member.began(0.0)
        member.ended(each, failed=False)
    given = {fast: 0, slow: 0}
    for _ in range(22):
        best = min((fast, slow), key=lambda member: member.load_s(1.0))
        best.running += 1
        best._since = 1.0
        given[best] += 1
    assert given == {fast: 20, slow: 2}


def test_a_pause_between_two_rounds_of_its_slots_does_not_make_a_server_slow():
    """Eight slots for 0.8 s each are ten rows per second; two such slots are two and a half."""
    fast, slow = Member(None, "fast", 64), Member(None, "slow", 64)
    for member, slots in ((fast, 8), (slow, 2)):
        for _ in range(2 * slots):
            member.began(0.0)
        for finished in (0.8, 1.6, 2.4):
            for _ in range(slots):
                member.ended(finished, failed=False)
                member.began(finished)
    for now in (2.4, 2.8, 3.19):
        assert fast.load_s(now) == pytest.approx(17 * 0.1, rel=0.2)
        assert slow.load_s(now) == pytest.approx(5 * 0.4, rel=0.2)
    assert fast.load_s(2.4 + 2.4) > slow.load_s(2.4 + 0.8), "after three times its pause it is slower than it was"


def test_a_server_gets_more_as_it_answers_and_one_row_after_a_failure():
    member = Member(None, "a", 16)
    while member.is_free(0.0):
        member.began(0.0)
    assert member.running == 8
    for _ in range(8):
        member.ended(1.0, failed=False)
    while member.is_free(1.0):
        member.began(1.0)
    assert member.running == 16, "its most"
    for _ in range(16):
        member.ended(2.0, failed=True)
    assert not member.is_free(2.0 + LEFT_ALONE_S[-1] - 0.1) and member.is_free(2.0 + LEFT_ALONE_S[-1])
    member.began(99.0)
    assert not member.is_free(99.0), "one row finds out whether it is there again"


def test_a_row_of_a_dead_server_goes_to_another_one_at_once(fleet):
    a, b, _ = (member.backend for member in fleet.members)
    a.kind = "unavailable"
    (result,) = fleet.run(row(1))
    assert (result.text, result.attempts, result.cost) == (URLS[1], 2, 0.75) and a.seen == b.seen == ["1"]
    for number in range(2, 9):
        assert fleet.run(row(number))[0].attempts == 1
    assert a.seen == ["1"], "it is left alone"
    a.kind, fleet.now[0] = "", LEFT_ALONE_S[0]
    for number in range(9, 13):
        fleet.run(row(number))
    assert len(a.seen) > 1, "and tried again"


def test_faults_of_rows_stay_where_they_are(fleet):
    for member in fleet.members:
        member.backend.kind = "refused"
    (result,) = fleet.run(row(1))
    assert result.kind == "refused" and sum(len(member.backend.seen) for member in fleet.members) == 1


def test_if_all_are_down_the_row_fails_once(fleet):
    for member in fleet.members:
        member.backend.kind = "unavailable"
    (result,) = fleet.run(row(1))
    assert (result.kind, result.attempts, result.cost) == ("unavailable", 3, 1.5)


def test_a_server_that_is_not_there_yet_is_tried_later(tmp_path):
    now = [0.0]
    settings = resolve("caption", None, base_url=URLS, model="m", out=tmp_path)
    fleet = Fleet(settings, settings.placement.devices[0], Fake, lambda: now[0])
    first = fleet.members[0].backend
    first.is_dead = True
    assert fleet.open() == {"model": "m", "base_url": URLS}
    fleet.run(row(1))
    first.is_dead, now[0] = False, 60.0
    for number in range(2, 8):
        fleet.run(row(number))
    assert first.seen
    for member in fleet.members:
        member.backend.is_dead = True
    with pytest.raises(EngineError, match="does not answer"):
        fleet.open()


def test_servers_of_different_models_are_no_fleet(tmp_path):
    settings = resolve("caption", None, base_url=URLS, model="m", out=tmp_path)
    fleet = Fleet(settings, settings.placement.devices[0], Fake)
    fleet.members[2].backend.model = "other"
    with pytest.raises(ModelError, match="http://c/v1 serves other, the others serve m"):
        fleet.open()


def test_all_threads_share_the_servers(fleet):
    """Every row is done once, by all three."""
    done: Queue = Queue()
    with ThreadPoolExecutor(16) as pool:
        for number in range(200):
            pool.submit(lambda number=number: done.put(fleet.run(row(number))[0]))
    results = [done.get_nowait() for _ in range(200)]
    assert all(isinstance(result, Done) for result in results) and len({result.id for result in results}) == 200
    assert sum(len(member.backend.seen) for member in fleet.members) == 200
    assert all(member.running == 0 for member in fleet.members)


def test_what_waits_for_a_full_server_is_given_back(fleet):
    """Closing lets no row wait."""
    for member in fleet.members:
        member.running, member.window = 1, 1
    thread = threading.Thread(target=fleet.run, args=(row(1),))
    thread.start()
    fleet.cancel_pending()
    thread.join(10)
    assert not thread.is_alive()
