"""A place to run, added by the recipe in docs/design.md alone: threads of this process. Runs, sessions and forks take
it as they take processes."""

from __future__ import annotations

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import fastgen
from fastgen.backends import registry as backends
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.scheduler.run import Run
from fastgen.types import Batch, Done
from fastgen.workers import registry
from fastgen.workers.base import Worker

HERE = f"{__name__}:ThreadWorker"


class ThreadWorker:
    """Step 1 of the recipe: a class with all of `workers.base.Worker`."""

    beats = None
    made: list[ThreadWorker] = []  # noqa: RUF012

    def __init__(self, settings: Settings, device: Device, slots: int):
        self.name, self.device, self.slots = f"thread of {device.name}", device, slots
        self.settings = settings
        self.ended = self.forgotten = self.reconfigured = 0
        self._threads: ThreadPoolExecutor | None = None
        ThreadWorker.made.append(self)

    @property
    def model(self) -> str:
        return self.settings.model.name

    @property
    def reusable(self) -> bool:
        return self._threads is not None

    def start(self) -> Future:
        self._threads = ThreadPoolExecutor(self.slots)
        self._backend = backends.create(self.settings, self.device)
        return self._threads.submit(self._backend.open)

    def fits(self, settings: Settings, device: Device, slots: int) -> bool:
        return (settings.engine_key(), device, slots) == (self.settings.engine_key(), self.device, self.slots)

    def reconfigure(self, settings: Settings) -> Future:
        self.settings = settings
        self.reconfigured += 1
        self._backend.reconfigure(settings)
        return self._threads.submit(dict)

    def submit(self, batch: Batch) -> Future:
        return self._threads.submit(self._backend.run, batch)

    def cancel_pending(self) -> None:
        self._backend.cancel_pending()

    def kill(self, reason: str) -> None:
        self.stop(now=True)

    def stop(self, now: bool = False) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=not now, cancel_futures=now)
            self._threads = None
            self.ended += 1

    def forget(self) -> None:
        self._threads = None
        self.forgotten += 1


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Step 2 of the recipe: a line in `workers.registry.PLACES`."""
    monkeypatch.setitem(registry.PLACES, "thread", HERE)
    monkeypatch.setattr(ThreadWorker, "made", [])


ROWS = [{"prompt": f"picture {i}"} for i in range(5)] + [{"prompt": "refuse"}]


def test_a_run_there(settings, rows_file, table, tmp_path):
    run = Run(settings("t2i", rows_file(ROWS), batch_size=2, gpus="cpu:2"), place="thread")
    results = list(run.results())
    assert sum(isinstance(result, Done) for result in results) == 5 and run.counts["failed"] == 1
    assert [row["prompt"] for row in table(tmp_path / "out/results.jsonl")] == [row["prompt"] for row in ROWS]
    assert [worker.ended for worker in ThreadWorker.made] == [1, 1]
    assert set(json.loads((tmp_path / "out/run.json").read_text())["engines"]) <= {"thread of cpu:0", "thread of cpu:1"}


def test_a_session_goes_on_with_its_worker_and_ends_it(settings, tmp_path):
    with fastgen.Session(place="thread") as session:
        for name in ("a", "b"):
            done = list(session.generate(settings("t2i", out=tmp_path / name), ROWS[:3]))
            assert [type(result) for result in done] == [Done] * 3
            assert all((tmp_path / name / path).exists() for result in done for path in result.paths)
        [worker] = ThreadWorker.made
        assert (worker.reconfigured, worker.ended) == (1, 0)
        other = list(session.generate(settings("t2i", out=tmp_path / "c", max_sequence_length=32), ROWS[:1]))
        assert len(other) == 1 and len(ThreadWorker.made) == 2 and worker.ended == 1, "another engine ends the first"
    assert [worker.ended for worker in ThreadWorker.made] == [1, 1]


def test_a_worker_of_another_place_is_not_taken(settings, tmp_path):
    with fastgen.Session(place="thread") as session, fastgen.Session() as elsewhere:
        list(session.generate(settings("t2i", out=tmp_path / "a"), ROWS[:1]))
        list(elsewhere.generate(settings("t2i", out=tmp_path / "b"), ROWS[:1]))
        [worker] = ThreadWorker.made
        assert not worker.reconfigured and worker.ended == 1, "the device is the other session's now"


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "at work"])
def test_a_fork_lets_go_of_it_and_ends_nothing(settings, tmp_path, idle):
    with fastgen.Session(place="thread") as session:
        results = session.generate(settings("t2i", batch_size=1), ROWS[:3])
        next(results)
        if idle:
            list(results)
        [worker] = ThreadWorker.made
        child = os.fork()
        if not child:
            results.close()
            session.close()
            os._exit(10 * worker.forgotten + worker.ended)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 10, "forgotten once, and not ended"
        assert all(isinstance(result, Done) for result in results)
    assert (worker.forgotten, worker.ended) == (0, 1)


def test_a_place_that_there_is_not_is_refused(settings, rows_file):
    run = Run(settings("t2i", rows_file(ROWS)), place="moon")
    with pytest.raises(fastgen.SettingsError, match=r"place 'moon'.*process, ray, thread"):
        list(run.results())


def test_what_there_is_has_all_of_the_protocol():
    from fastgen.workers.process import ProcessWorker

    wanted = {name for name in (*vars(Worker), *Worker.__annotations__) if not name.startswith("_")}
    assert wanted >= {"name", "device", "slots", "model", "reusable", "start", "submit", "stop", "forget"}
    for one in (ProcessWorker, ThreadWorker):
        made = one.__init__.__code__.co_names  # attributes that the constructor sets
        assert wanted <= {*dir(one), *made}, one
