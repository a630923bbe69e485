"""Workers on a real Ray cluster of two machines, here two of Ray's node processes: what becomes of rows when workers,
machines and the command itself are lost. One cluster serves the whole file."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pandas
import psutil
import pytest

from fastgen.config import ray_cluster
from fastgen.errors import EngineError, SettingsError
from fastgen.output.run_dir import RunFolder
from fastgen.scheduler import watchdog
from fastgen.scheduler.run import Run
from fastgen.types import Batch, Bucket, Done, ImageParams, Request
from fastgen.workers import ray as ray_worker
from fastgen.workers.base import MachineRefused, WorkerDied
from fastgen.workers.ray import RayWorker
from tests.processes import ended

ray = pytest.importorskip("ray")
PATIENCE_S = 60
# Ray turns 127.0.0.1 into the address that other machines see; this one stays on the loopback.
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "node_ip_address": "127.0.0.2"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def on_ray(settings, cluster):
    def make(task="t2i", input=None, **flags):
        return settings(task, input, **{"engine": "ray", "ray_address": cluster.address, "gpus": "cpu", **flags})

    return make


@pytest.fixture
def worker(on_ray):
    """A worker that has not been started."""
    resolved = on_ray()
    folder = RunFolder(resolved)
    worker = RayWorker(resolved, resolved.placement.devices[0], slots=2)
    yield worker
    worker.stop(now=True)
    folder.close()


def batch(*prompts: str) -> Batch:
    params = ImageParams(64, 64, 4, 0.0, 0, 1)
    requests = tuple(Request(f"r{i}", "t2i", (prompt,), params, (64, 64)) for i, prompt in enumerate(prompts))
    return Batch(Bucket.of(requests[0]), requests)


def made(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "images").iterdir() if path.is_file()}


def said(out: Path) -> list[dict]:
    """The table without what differs from run to run."""
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    for row in rows:
        row["fastgen"] = {key: row["fastgen"].get(key) for key in ("id", "status", "seed", "width")}
    return rows


def test_one_worker_per_machine_unless_told(on_ray):
    assert [device.name for device in on_ray().placement.devices] == ["ray:0", "ray:1"]
    resolved = on_ray(max_workers=5, min_workers=2)
    assert len(resolved.placement.devices) == 5 and resolved.placement.least == 2
    with pytest.raises(SettingsError, match=r"--gpus 0,1: Ray chooses the GPUs.*--max-workers"):
        on_ray(gpus="0,1")
    with pytest.raises(SettingsError, match=r"--min-workers 3: the cluster has room for 2; add --max-workers 3"):
        on_ray(min_workers=3)
    with pytest.raises(SettingsError, match="no machine of the cluster has 1 GPU now"):
        on_ray(gpus="all")


def test_a_child_that_dies_says_how_and_the_worker_starts_again(worker):
    facts = worker.start().result(PATIENCE_S)
    assert facts["machine"]
    assert [type(result) for result in worker.submit(batch("a", "b")).result(PATIENCE_S)] == [Done, Done]
    death = worker.submit(batch("crash")).exception(PATIENCE_S)
    assert isinstance(death, WorkerDied) and "was ended by SIGKILL" in str(death) and not death.may_cost
    late = worker.submit(batch("a")).exception(PATIENCE_S)
    assert isinstance(late, WorkerDied) and late.idle
    assert worker.start().result(PATIENCE_S)["pid"] != facts["pid"]
    assert len(worker.submit(batch("a")).result(PATIENCE_S)) == 1


def test_one_that_is_killed_leaves_no_process(worker):
    child = psutil.Process(worker.start().result(PATIENCE_S)["pid"])
    future = worker.submit(batch("slow:600"))
    child.suspend()
    worker.kill("it was silent for long")
    assert str(future.exception(PATIENCE_S)) == "it was silent for long"
    psutil.wait_procs([child], timeout=PATIENCE_S)
    assert ended(child)


def test_another_version_is_refused(worker, monkeypatch):
    ours = ray_cluster.versions()
    monkeypatch.setattr(ray_cluster, "versions", lambda: {**ours, "fastgen": "99.0"})
    error = worker.start().exception(PATIENCE_S)
    assert isinstance(error, MachineRefused)
    assert f"cannot take part: fastgen is {ours['fastgen']} there and 99.0 here" in str(error)


def test_no_room_is_an_error_after_a_while(on_ray, monkeypatch):
    monkeypatch.setattr(ray_worker, "PLACE_S", 0.0)
    resolved = on_ray()
    folder = RunFolder(resolved)
    [device, *_] = resolved.placement.devices
    from msgspec.structs import replace

    worker = RayWorker(resolved, replace(device, threads=999), 1)
    error = worker.start().exception(PATIENCE_S)
    assert isinstance(error, EngineError) and "no room for it" in str(error) and "999" in str(error)
    worker.stop(now=True)
    folder.close()


def test_a_hung_worker_is_found_and_a_poison_row_named(on_ray, rows_file, monkeypatch, tmp_path):
    """The folder is not shared, as far as the workers know, so images come back in messages."""
    monkeypatch.setattr(watchdog, "BEAT_END_S", 4.0)
    monkeypatch.setattr(watchdog, "BEAT_WARN_S", 3.0)
    monkeypatch.setattr(ray_worker, "mark", lambda probe: "another folder")
    rows = [{"id": str(i), "prompt": "crash" if i == 7 else f"slow:0.1 {i}"} for i in range(24)]
    events = []
    run = Run(on_ray("t2i", rows_file(rows), batch_size=2), lambda event, **facts: events.append((event, facts)))
    stopped = False
    for result in run.results():
        if isinstance(result, Done) and not stopped:
            ready = next(facts for event, facts in events if event == "lane_ready")
            os.kill(ready["pid"], signal.SIGSTOP)
            stopped = True
    assert (run.counts["done"], run.counts["failed"]) == (23, 1)
    assert any(event == "lane_died" and "no sign of life" in facts["reason"] for event, facts in events)
    assert [row["id"] for row in said(tmp_path / "out")] == [row["id"] for row in rows]
    assert len(made(tmp_path / "out")) == 23
    lines = (tmp_path / "out/journal.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["rec"]["id"] for line in lines) == sorted(row["id"] for row in rows)


def test_ray_data_gets_one_row_for_each_row(cluster, tmp_path, monkeypatch):
    """The example of docs/machines.md, with the fake backend on a CPU."""
    rows = [{"id": f"r{i}", "prompt": "refuse" if i == 5 else f"picture {i}", "mine": i} for i in range(12)]
    (tmp_path / "prompts").mkdir()
    pandas.DataFrame(rows).to_parquet(tmp_path / "prompts/part.parquet")
    page = (Path(__file__).parents[2] / "docs/machines.md").read_text()
    [example] = [block for block in page.split("```") if "fastgen.ray.Worker, " in block]
    for theirs, ours in {
        "/shared/run": str(tmp_path / "run"),
        '"model": "klein"': '"backend": "fake", "gpus": "cpu"',
        "batch_size=256, concurrency=4, num_gpus=1": "batch_size=6, concurrency=1",
        '"prompts/"': repr(str(tmp_path / "prompts")),
        '"made/"': repr(str(tmp_path / "made")),
    }.items():
        assert theirs in example
        example = example.replace(theirs, ours)
    exec(example.removeprefix("python"), {})
    made = pandas.read_parquet(tmp_path / "made")
    assert sorted(made["mine"]) == list(range(12))
    for row in made.to_dict("records"):
        failed = row["mine"] == 5
        assert row["fastgen_status"] == ("failed" if failed else "done")
        assert [Path(path).exists() for path in row["images"]] == ([] if failed else [True])
        assert ("refused" in row["fastgen_error"]) if failed else pandas.isna(row["fastgen_error"])


def test_a_machine_is_lost_one_joins_and_the_command_is_killed(
    on_ray, settings, cluster, cli_process, rows_file, tmp_path
):
    """The embedded FLUX: same table and same pictures as from one process of this machine."""
    path = rows_file([{"id": str(i), "prompt": f"a red circle {i}"} for i in range(12)])
    flags = {"backend": "local", "model": "tiny", "steps": 2, "batch_size": 1, "size": "64x64"}
    alone = settings("t2i", path, **{**flags, "out": tmp_path / "alone"})
    assert len(list(Run(alone).results())) == 12

    words = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", value)]
    command = cli_process(
        "t2i", path, "-o", tmp_path / "out", "--json", "--engine", "ray", "--ray-address", cluster.address, *words
    )
    for line in command.stdout:
        if json.loads(line)["event"] == "row_done":
            break
    command.kill()
    command.wait()

    run = Run(on_ray("t2i", path, **flags, max_workers=3))
    lost = threading.Event()
    for _ in run.results():
        if not lost.is_set():
            lost.set()
            cluster.remove_node(next(iter(cluster.worker_nodes)))
            cluster.add_node(**NODE)
    assert lost.is_set() and run.counts["done"] == 12
    assert said(tmp_path / "out") == said(tmp_path / "alone")
    assert made(tmp_path / "out") == made(tmp_path / "alone")
    ids = [json.loads(line)["rec"]["id"] for line in (tmp_path / "out/journal.jsonl").read_text().splitlines()]
    assert len(ids) == len(set(ids)) == 12
