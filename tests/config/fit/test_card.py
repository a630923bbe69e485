"""What a run may use of a GPU and of the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastgen.config import hardware
from fastgen.config.fit import card
from fastgen.config.hardware import Device, Gpu, child_environment


def device(number: int = 0, memory_gib: float = 24.0) -> Device:
    return Device(f"cuda:{number}", "cuda", 2, Gpu(number, f"GPU-fit-{number}", "NVIDIA RTX 4090", memory_gib, "8.9"))


@pytest.fixture
def free(monkeypatch):
    """free[visible_as] = GiB that the driver reports."""
    found: dict[str, float] = {}
    monkeypatch.setattr(hardware, "free_gpu_gib", lambda gpu: found.get(gpu.visible_as, 0.0))
    return found


def test_the_card_with_the_least_room(free):
    free |= {"GPU-fit-0": 22.9, "GPU-fit-1": 9.5}
    found = card.of((device(0), device(1)))
    assert (found.name, found.free_gib, found.total_gib, found.engines) == ("cuda:1 (NVIDIA RTX 4090)", 9.5, 23.52, 2)
    assert found.host_gib > 0


def test_a_24_gb_card_has_less(free):
    """The driver keeps some of it, so an idle RTX 4090 has about 23.5 GiB."""
    assert card.of((device(),)).free_gib == 23.52
    free["GPU-fit-0"] = 23.6
    assert card.of((device(),)).free_gib == 23.6, "what the driver says is free is free"


def test_no_card_without_a_gpu_or_its_memory(free):
    assert card.of((Device("cpu", "cpu", 2),)) is None
    assert card.of((device(memory_gib=0.0),)) is None
    assert card.of((device(), device(1, 0.0))) is None


def test_engines_of_this_process_do_not_count(free):
    free["GPU-fit-0"] = 1.5
    assert card.of((device(),)).free_gib == 1.5
    wait = [sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        wait, env=child_environment(device()), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as engine:
        assert engine.stdout.readline() == b"here\n"
        found = card.of((device(),))
        assert (found.free_gib, found.host_gib) == (23.52, 0.0)  # main memory that the engine holds cannot be told
        free["GPU-fit-1"] = 2.0
        assert card.of((device(1),)).free_gib == 2.0
        engine.stdin.close()
    assert card.of((device(),)).free_gib == 1.5


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine(group, {folder: (limit, used, cached)}): control groups of this process, sizes in GiB."""

    def make(own: str, limits: dict[str, tuple[float | None, float, float]]) -> None:
        proc, groups = tmp_path / "proc", tmp_path / "cgroup"
        (proc / "self").mkdir(parents=True)
        (proc / "self" / "cgroup").write_text(f"0::{own}\n")
        for folder, (limit, used, cached) in limits.items():
            path = groups / folder.lstrip("/")
            path.mkdir(parents=True, exist_ok=True)
            (path / "memory.max").write_text("max\n" if limit is None else f"{int(limit * 2**30)}\n")
            (path / "memory.current").write_text(f"{int(used * 2**30)}\n")
            (path / "memory.stat").write_text(f"anon 1\ninactive_file {int(cached * 2**30)}\nactive_file 0\n")
        monkeypatch.setattr(card, "PROC", proc)
        monkeypatch.setattr(card, "CGROUPS", groups)
        monkeypatch.setattr(hardware, "free_main_gib", lambda: 100.0)

    return make


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("/", {"/": (32.0, 10.0, 4.0)}, 26.0),
        ("/", {"/": (None, 10.0, 4.0)}, 100.0),
        ("/job/step", {"/job": (16.0, 4.0, 0.0), "/job/step": (None, 1.0, 0.0)}, 12.0),
        ("/job/step", {"/job": (64.0, 4.0, 0.0), "/job/step": (8.0, 9.0, 0.0)}, 0.0),
        ("/job", {}, 100.0),
        ("/../..", {"/": (32.0, 2.0, 0.0)}, 30.0),
    ],
)
def test_main_memory_under_a_limit(machine, own, limits, expected):
    machine(own, limits)
    assert card.free_host_gib() == pytest.approx(expected)
