"""A GPU fails in the middle of a run. CUDA then answers every call of that process with an error, so only a new process
helps; and if the GPU fails again and again, the run goes on without it."""

from __future__ import annotations

import json
import os
import random
import textwrap
from pathlib import Path

import pytest

from fastgen.config import backends
from fastgen.errors import EngineError
from fastgen.resolver import resolve
from fastgen.workers.messages import DEVICE_FAULT_EXIT
from tests.backends.faulty import SPEC

ROOT = Path(__file__).parents[2]
ROWS = 200


@pytest.fixture
def run(monkeypatch, tmp_path, rows_file, go):
    """run(["a prompt", ...], **flags): a whole run on the faulty backend; ids are r0, r1 ..."""
    monkeypatch.setattr(backends, "_by_name", dict(backends._by_name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    backends.register(SPEC)

    def run(prompts, **flags):
        rows = rows_file([{"id": f"r{i}", "prompt": prompt} for i, prompt in enumerate(prompts)])
        flags = {"gpus": "cpu:2", "batch_size": 1, **flags}
        return go(resolve("t2i", rows, backend="faulty", out=tmp_path / "out", **flags))

    return run


def failed_kinds(outcome) -> dict[str, str]:
    return {row["id"]: row["fastgen"]["error"]["kind"] for row in outcome.failures}


def happened(outcome, event: str) -> list[str]:
    return [one["lane"] for one in outcome.events if one["event"] == event]


def warnings(outcome) -> str:
    return "\n".join(one["message"] for one in outcome.events if one["event"] == "warning")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_fault_costs_a_restart_and_no_row(run, batch_size):
    outcome = run(["a", "b", "c fault:once", *"defghij"], batch_size=batch_size)
    assert outcome.state == "finished" and (outcome.counts["done"], outcome.counts["failed"]) == (10, 0)
    (died,) = [one for one in outcome.events if one["event"] == "lane_died"]
    assert died["reason"].startswith("CUDA error: an illegal memory access was encountered (after this only a new")
    assert len(outcome.made) == len(set(outcome.made)) == 10
    log = (outcome.out / "logs" / f"{died['lane'].replace(':', '-')}.log").read_text()
    assert f"this process ends with exit code {DEVICE_FAULT_EXIT}" in log and "Traceback" in log


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_gpu_that_always_fails_is_taken_out(run, monkeypatch, batch_size):
    monkeypatch.setenv("FAULTY_DEVICES", "cpu:1")
    outcome = run([f"slow:0.02 after:3 {i}" for i in range(40)], batch_size=batch_size)
    assert outcome.state == "finished" and (outcome.counts["done"], outcome.counts["failed"]) == (40, 0)
    assert set(happened(outcome, "lane_died")) == {"cpu:1"} and len(happened(outcome, "lane_died")) == 3
    died = [one.get("restarting", True) for one in outcome.events if one["event"] == "lane_died"]
    assert died == [True, True, False]
    assert "cpu:1 is no longer used, and the run goes on without it: cpu:1 failed 3 times in a row" in warnings(outcome)


def test_a_gpu_that_cannot_even_start_is_taken_out(run, monkeypatch):
    monkeypatch.setenv("FAULTY_AT_START", "cpu:0")
    outcome = run([f"slow:0.1 after:3 {i}" for i in range(12)])
    assert outcome.state == "finished" and (outcome.counts["done"], outcome.counts["failed"]) == (12, 0)
    assert "cpu:0 is no longer used after 3 failed starts: CUDA error: an illegal memory access" in warnings(outcome)


def test_after_the_last_gpu_the_run_ends_and_every_row_is_left_for_the_next_one(run, monkeypatch, tmp_path):
    monkeypatch.setenv("FAULTY_DEVICES", "cpu:0 cpu:1")
    prompts = [str(i) for i in range(12)]
    with pytest.raises(EngineError, match=r"failed 8 times in a row and finished nothing in between: CUDA error: an"):
        run(prompts)
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["state"] == "stopped" and "illegal memory access" in about["error"]
    assert not about["counts"].get("failed"), "no row is blamed for the GPU"
    monkeypatch.delenv("FAULTY_DEVICES")
    again = run(prompts)
    assert again.state == "finished" and (again.counts["done"], again.counts["failed"]) == (12, 0)


def test_few_rows_on_a_dead_gpu_are_not_blamed_either(run, monkeypatch, tmp_path):
    monkeypatch.setenv("FAULTY_DEVICES", "cpu")
    with pytest.raises(EngineError, match=r"no row could be done, and 2 ended .* the device may be the cause; row r"):
        run(["a", "b"], gpus="cpu")
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == b""


@pytest.mark.parametrize("gpus", ["cpu", "cpu:2"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_row_that_makes_every_gpu_fail_is_poison_and_harms_no_other(run, gpus, batch_size):
    bad = [3, 4] if gpus == "cpu" else [3]
    outcome = run([f"{i} fault" if i in bad else str(i) for i in range(12)], gpus=gpus, batch_size=batch_size)
    assert outcome.state == "finished" and failed_kinds(outcome) == {f"r{i}": "poison" for i in bad}
    assert outcome.counts["done"] == 12 - len(bad) and "no longer used" not in warnings(outcome)


def test_the_last_row_may_be_the_bad_one(run):
    outcome = run(["a", "b", "c fault"], gpus="cpu")
    assert failed_kinds(outcome) == {"r2": "poison"} and outcome.counts["done"] == 2
    (row,) = outcome.failures
    assert "CUDA error: an illegal memory access" in row["fastgen"]["error"]["message"]


BREAKS_ONCE = """
    import contextlib, os, sys

    def breaks():
        import diffusers.models.transformers.transformer_flux as flux, torch
        name = os.path.basename(os.readlink("/proc/self/fd/1"))
        real, calls, step = flux.FluxSingleTransformerBlock.forward, [0], int(os.environ["FAULT_AT_" + name[4:5]])

        def forward(self, *args, **kwargs):
            calls[0] += 1
            if calls[0] == step:
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(os.environ["FAULT_MARKS"] + name, os.O_CREAT | os.O_EXCL))
                    raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")
            return real(self, *args, **kwargs)

        flux.FluxSingleTransformerBlock.forward = forward

    if "fastgen.workers.worker_main" in sys.orig_argv:
        breaks()
"""


@pytest.mark.slow
def test_two_hundred_rows_of_a_real_model_with_faults_at_random_steps(cli, tmp_path, rows_file, table):
    """The error comes out of a block of the transformer, once on each of two workers, so one of them must come back."""
    rows = rows_file([{"id": str(i), "prompt": f"picture {i}", "size": "64x64"} for i in range(ROWS)])
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(textwrap.dedent(BREAKS_ONCE))
    steps = {f"FAULT_AT_{i}": str(random.Random().randrange(10, 120)) for i in range(2)}
    result = cli(
        *("t2i", rows, "-o", tmp_path / "out", "--model", "tiny", "--gpus", "cpu:2", "--steps", "2"),
        *("--batch-size", "4", "--json"),
        PYTHONPATH=f"{hook}{os.pathsep}{ROOT}",
        FAULT_MARKS=f"{tmp_path}/failed-",
        **steps,
    )
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0, (steps, result.stderr)
    assert events[-1]["counts"]["done"] == ROWS and not events[-1]["counts"].get("failed")
    died = [one for one in events if one["event"] == "lane_died"]
    assert sorted(one["lane"] for one in died) == ["cpu:0", "cpu:1"], steps
    assert all(one["reason"].startswith("CUDA error: uncorrectable ECC error encountered") for one in died)
    assert len([one for one in events if one["event"] == "lane_ready"]) >= 3, "no worker came back"
    assert sorted(row["id"] for row in table(tmp_path / "out" / "results.jsonl")) == sorted(map(str, range(ROWS)))
