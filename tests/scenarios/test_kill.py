"""Kill it at any time: SIGKILL of any process of a run at random moments, then a last run to the end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.processes import ended

ROWS = 200


def start(rows: Path, out: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "fastgen", "t2i", str(rows), "-o", str(out), "--quiet", *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def family(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def await_gone(processes: list[psutil.Process], seconds: float = 20) -> list[psutil.Process]:
    """Those still alive after that many seconds."""
    _, alive = psutil.wait_procs([p for p in processes if p.pid != os.getpid()], timeout=seconds)
    return [p for p in alive if not ended(p)]


def table(out: Path) -> list[dict]:
    """results.jsonl without timings."""
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        row["fastgen"].pop("seconds", None)
    return rows


def kill_often(rows: Path, out: Path, flags: list[str], pause: tuple[float, float], most: int, seed: int) -> int:
    """Run, and run again, with SIGKILLs at random moments. Returns how many hit; the last run ends by itself."""
    dice = random.Random(seed)
    kills = 0
    process = start(rows, out, *flags)
    while kills < most:
        # at a random moment, but no later than this kill's share of the rows: a fast machine is killed as often as a
        # slow one
        latest, share = time.monotonic() + dice.uniform(*pause), ROWS * (kills + 1) // (most + 1)
        while time.monotonic() < latest and (not (out / "journal.jsonl").exists() or len(committed(out)) < share):
            time.sleep(0.02)
        if process.poll() is not None:
            break
        members = family(process)
        if not members:
            break
        victim = dice.choice(members)
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
        kills += 1
        if victim.pid == process.pid:
            process.wait()
            assert not await_gone(members), "a worker outlived its main process"
            process = start(rows, out, *flags)
    assert process.wait(timeout=600) == 0
    return kills


def committed(out: Path) -> list[str]:
    """Ids in the journal, in order of their commits; a torn last line left out."""
    ids = []
    for line in (out / "journal.jsonl").read_bytes().splitlines():
        try:
            ids.append(json.loads(line)["rec"]["id"])
        except ValueError:
            continue
    return ids


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "pause", "most"),
    [
        (["--backend", "fake", "--gpus", "cpu:2", "--batch-size", "2"], (0.1, 0.8), 20),
        (["--model", "tiny", "--gpus", "cpu:2", "--steps", "4"], (0.5, 8.0), 10),
    ],
    ids=["fake", "tiny"],
)
def test_kills_lose_nothing(tmp_path, flags, pause, most):
    rows = tmp_path / "rows.jsonl"
    slow = " slow:0.1" if "fake" in flags else ""
    rows.write_text("".join(json.dumps({"prompt": f"picture {i}{slow}", "n": 1 + i % 2}) + "\n" for i in range(ROWS)))
    calm = start(rows, tmp_path / "calm", *flags)
    kills = kill_often(rows, tmp_path / "killed", flags, pause, most, seed=7)
    assert calm.wait(timeout=600) == 0
    assert kills == most, "the run ended before it was disturbed often enough"
    assert table(tmp_path / "killed") == table(tmp_path / "calm")
    ids = committed(tmp_path / "killed")
    assert len(ids) == len(set(ids)) == ROWS, "a row that the journal had was made again"
    for row in table(tmp_path / "killed"):
        for path in row["images"]:
            with Image.open(tmp_path / "killed" / path) as image:
                image.load()
    assert not (tmp_path / "killed" / ".partial").exists()
