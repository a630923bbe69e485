"""A run by the Batch API that is killed at the worst moment and interrupted: nothing is submitted twice, nothing lost.
`python -m bench.batch_campaign` is the same with 2,000 rows and 20 kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from PIL import Image

from fastgen.errors import RunFolderError
from fastgen.resolver import resolve
from fastgen.scheduler.run import Run
from tests.conftest import read_lines
from tests.simulator import Simulator
from tests.simulator.batches import Batches

pytest.importorskip("openai")
ROWS, PATIENCE_S = 9, 120
PRICES = (
    '[openai.models."gpt-6-luna"]\ntasks = ["caption"]\nprice = { text_in = 2.0, image_in = 2.0, text_out = 8.0 }\n'
)


class Service:
    """Batches that do not end until the test says so. Who asks for the second one is killed before it is told."""

    def __init__(self):
        self.made, self.process = threading.Semaphore(0), None
        self.batches = Batches(seconds=3600, at_create=self._made)
        self.sim = Simulator(batches=self.batches, prices={"gpt-6-luna": (2, 2, 8, 8)})

    def _made(self, job):
        if len(self.batches.jobs) == 2:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.made.release()

    def wait_for(self, jobs):
        for _ in range(jobs):
            assert self.made.acquire(timeout=PATIENCE_S)


@pytest.fixture
def service():
    made = Service()
    with made.sim:
        yield made


def test_a_kill_a_ctrl_c_and_the_rest(service, tmp_path, monkeypatch):
    (tmp_path / "prices.toml").write_text(PRICES)
    monkeypatch.setenv("FASTGEN_SERVICES", str(tmp_path / "prices.toml"))
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "one.png")
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out"
    fault = {4: " fault:error_500:once", 7: " fault:refusal_field"}
    lines = [{"id": f"r{i}", "images": ["one.png"], "prompt": f"what is {i}?{fault.get(i, '')}"} for i in range(ROWS)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "fastgen", "caption", str(rows), "-o", str(out), "--backend", "openai"]
    command += ["--base-url", service.sim.openai_url, "--batch-api", "--batch-rows", "3", "--max-cost", "1"]

    def start():
        service.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        return service.process

    killed = start()
    service.wait_for(2)
    killed.communicate(timeout=PATIENCE_S)
    assert killed.returncode == -signal.SIGKILL and len(service.batches.jobs) == 2

    interrupted = start()
    service.wait_for(1)  # only the third one is new
    parcels = out / ".batches" / "openai"
    while sum('"step":"submitted"' in path.read_text() for path in parcels.glob("*/state.json")) < 3:
        assert interrupted.poll() is None
    os.killpg(interrupted.pid, signal.SIGINT)
    _, said = interrupted.communicate(timeout=PATIENCE_S)
    assert interrupted.returncode == 130, said
    assert "3 batches with 9 requests are still at the service (batch_0, batch_1, batch_2)" in said
    assert "run the same command again to get the results" in said
    told = subprocess.run([*command[:3], "status", str(out)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert told.stdout.splitlines() == [f"batch batch_{number}: 3 requests, 0 done" for number in range(3)]
    with pytest.raises(RunFolderError, match=r"3 batches with 9 requests .* leave --fresh out"):
        flags = {"backend": "openai", "base_url": service.sim.openai_url, "batch_api": True}
        Run(resolve("caption", rows, out=out, fresh=True, **flags))

    service.batches.seconds = 0
    last = start()
    _, said = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 3, said
    table = read_lines(out / "results.jsonl")
    assert [row["fastgen"]["status"] for row in table] == ["failed" if i == 7 else "done" for i in range(ROWS)]
    assert table[7]["fastgen"]["error"]["kind"] == "refused" and table[4]["fastgen"]["attempts"] == 2
    jobs = [job for job in service.batches.jobs.values()]
    assert [len(job.lines) for job in jobs] == [3, 3, 3, 1] and len({job.name for job in jobs}) == 4
    assert set(service.batches.paid.values()) == {1} and len(service.batches.paid) == ROWS
    ledger = [line["rec"] for line in read_lines(out / "spending.jsonl")]
    assert ledger[-1]["total"] == pytest.approx(service.batches.usd, abs=1e-7)
    assert sum(row["fastgen"].get("cost_usd", 0.0) for row in table) == pytest.approx(service.batches.usd, abs=1e-7)
    assert json.loads((out / "run.json").read_text())["cost_usd"] == pytest.approx(service.batches.usd, abs=1e-6)
    assert [path.name for path in parcels.iterdir()] == ["lock"], "what has become results is cleared away"
