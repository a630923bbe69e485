"""A worker is a process: whatever becomes of it, its futures are answered and it never outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import wait

import psutil
import pytest

from fastgen.errors import DiskError, ModelError
from fastgen.output.run_dir import RunFolder
from fastgen.types import Batch, Bucket, Done, Failed, ImageParams, Request
from fastgen.workers import process
from fastgen.workers.base import WorkerDied
from fastgen.workers.process import ProcessWorker
from tests.processes import ended

PATIENCE_S = 60


def batch(*prompts: str) -> Batch:
    requests = tuple(
        Request(f"r{i}", "t2i", (prompt,), ImageParams(64, 64, 4, 0.0, i, 1), (64, 64))
        for i, prompt in enumerate(prompts)
    )
    return Batch(Bucket.of(requests[0]), requests)


@pytest.fixture
def worker(settings):
    resolved = settings("t2i")
    folder = RunFolder(resolved)
    worker = ProcessWorker(resolved, resolved.placement.devices[0], slots=2)
    yield worker
    worker.stop(now=True)
    folder.close()


@pytest.fixture
def pid(worker) -> int:
    """The process of a worker that is ready."""
    return worker.start().result(PATIENCE_S)["pid"]


def test_one_result_per_request_in_order(worker, pid, tmp_path):
    assert pid != os.getpid() and psutil.pid_exists(pid)
    results = worker.submit(batch("a", "refuse", "b")).result(PATIENCE_S)
    assert [type(result) for result in results] == [Done, Failed, Done] and [r.id for r in results] == [
        "r0",
        "r1",
        "r2",
    ]
    assert (tmp_path / "out" / results[0].paths[0]).stat().st_size


def test_two_batches_at_once(worker, pid):
    slow = worker.submit(batch("slow:600"))
    assert worker.submit(batch("quick")).result(PATIENCE_S)[0].id == "r0"
    assert not slow.done()


def test_an_unforeseen_error_fails_its_batch_alone(worker, pid):
    results = worker.submit(batch("broken", "a")).result(PATIENCE_S)
    assert [(r.kind, "told to break" in r.message) for r in results] == [("internal", True)] * 2
    assert isinstance(worker.submit(batch("a")).result(PATIENCE_S)[0], Done)
    assert "Traceback" in worker.log.read_text()


def test_a_warning_comes_before_the_results(worker, pid):
    worker.submit(batch("warn", "b")).result(PATIENCE_S)
    assert list(worker.warnings) == ["r0 was told to warn"]


def test_a_full_disk_comes_back_as_such(worker, pid):
    with pytest.raises(DiskError, match="No space left"):
        worker.submit(batch("disk")).result(PATIENCE_S)


def test_an_error_is_told_although_the_log_takes_no_more(settings, small_disk):
    resolved = settings("t2i", out=small_disk.path)
    folder = RunFolder(resolved)
    worker = ProcessWorker(resolved, resolved.placement.devices[0], slots=2)
    try:
        worker.start().result(PATIENCE_S)
        with pytest.raises(OSError, match="No space left"), (small_disk.path / "ballast").open("wb", 0) as ballast:
            while ballast.write(b"x" * 4096):
                pass
        results = worker.submit(batch("broken", "a")).result(20)
        assert [result.kind for result in results] == ["internal", "internal"]
    finally:
        worker.stop(now=True)
        folder.close()


def test_death_is_told_to_all_that_wait(worker, pid):
    waiting = [worker.submit(batch("slow:600")), worker.submit(batch("slow:600"))]
    os.kill(pid, signal.SIGKILL)
    for future in waiting:
        with pytest.raises(WorkerDied, match="SIGKILL") as death:
            future.result(PATIENCE_S)
        assert not death.value.idle
    with pytest.raises(WorkerDied) as death:
        worker.submit(batch("a")).result(PATIENCE_S)
    assert death.value.idle, "this batch was never there"
    assert worker.start().result(PATIENCE_S)["pid"] != pid
    assert isinstance(worker.submit(batch("a")).result(PATIENCE_S)[0], Done)


def test_last_words_are_kept(worker, pid):
    worker.log.write_text("something odd happened\n")
    with pytest.raises(WorkerDied, match="something odd happened"):
        worker.submit(batch("crash")).result(PATIENCE_S)


def test_an_engine_that_cannot_start_says_why(worker, monkeypatch):
    monkeypatch.setenv("FASTGEN_FAKE_CANNOT_START", "the model is made of cheese")
    with pytest.raises(ModelError, match="made of cheese"):
        worker.start().result(PATIENCE_S)


def test_stop_lets_go_and_stop_now_does_not_wait(worker, pid):
    worker.stop()
    assert not psutil.pid_exists(pid)
    pid = worker.start().result(PATIENCE_S)["pid"]
    future = worker.submit(batch("slow:600"))
    worker.stop(now=True)
    assert not psutil.pid_exists(pid)
    wait([future], PATIENCE_S)
    assert isinstance(future.exception(), WorkerDied)


def test_ctrl_c_is_for_the_parent_to_decide(worker, pid):
    future = worker.submit(batch("slow"))
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, name)
    assert isinstance(future.result(PATIENCE_S)[0], Done)


def test_it_beats_until_it_is_stopped(worker, pid):
    start = worker.beats
    while worker.beats < start + 2:
        assert psutil.pid_exists(pid)
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        pass
    future = worker.submit(batch("a"))
    worker.kill("it was silent for long")
    assert isinstance(future.exception(PATIENCE_S), WorkerDied)


def test_one_that_is_killed_says_why_and_what_may_have_been_paid(worker, pid):
    """A request goes out for the first batch; the second has not begun."""
    paying, other = worker.submit(batch("pay slow:600")), worker.submit(batch("slow:600"))
    while not worker._paying:
        assert not paying.done()
    worker.kill("it was silent for long")
    worker.kill("it was told to stop")
    told = [future.exception(PATIENCE_S) for future in (paying, other)]
    assert [str(death) for death in told] == ["it was silent for long"] * 2
    assert [(death.idle, death.may_cost) for death in told] == [(False, True), (False, False)]
    late = worker.submit(batch("a")).exception(PATIENCE_S)
    assert late.idle and not late.may_cost
    assert isinstance(worker.start().result(PATIENCE_S)["pid"], int), "and it can be started again"


def test_one_that_takes_no_message_is_ended(worker, monkeypatch):
    """It is stopped, and what it is sent is more than the line holds."""
    monkeypatch.setattr(process, "SEND_S", 1.0)
    os.kill(worker.start().result(PATIENCE_S)["pid"], signal.SIGSTOP)
    death = worker.submit(batch("long " * 1_000_000)).exception(PATIENCE_S)
    assert isinstance(death, WorkerDied) and "accepted no message for 1 s" in str(death)


OWNER = """
import sys
from fastgen.output.run_dir import RunFolder
from fastgen.workers.process import ProcessWorker
from fastgen.resolver import resolve
settings = resolve("t2i", backend="fake", gpus="cpu", out=sys.argv[1])
folder = RunFolder(settings)
worker = ProcessWorker(settings, settings.placement.devices[0], 2)
print(worker.start().result()["pid"], flush=True)
sys.stdin.read()
"""


def test_no_worker_outlives_its_owner(tmp_path):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path / "out"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        child = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
        owner.wait()
        _, alive = psutil.wait_procs([child], timeout=PATIENCE_S)
        assert not alive or ended(child)
    finally:
        owner.kill()
        owner.communicate()
