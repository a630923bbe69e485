from __future__ import annotations

import subprocess
import sys

import pytest

from fastgen.backends.diffusion import backend as diffusion
from fastgen.backends.diffusion.backend import DiffusionBackend
from fastgen.resolver import resolve

FAULTS = """
import resource, sys, threading
from fastgen.backends.diffusion.heap import keep_freed_memory

def fill():
    for _ in range(3):
        blocks = [bytearray(24 << 20) for _ in range(2)]

def count():
    fill()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    fill()
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
count()
thread = threading.Thread(target=count)
thread.start()
thread.join()
"""


def pages(mode: str) -> list[int]:
    """Pages that the system gave for blocks of sizes that had been freed before: in the main thread, in another one."""
    done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("this C library has no mallopt")
    return [int(line) for line in done.stdout.split()]


def test_freed_memory_is_used_again_without_the_system():
    main, thread = pages("keep")
    assert max(main, thread) < 100  # 36,864 pages were written
    main, thread = pages("")
    assert min(main, thread) > 10_000


def test_an_engine_on_a_cpu_keeps_freed_memory(tmp_path, monkeypatch):
    class Loading(Exception):
        """The engine has come to the model."""

    called = []
    monkeypatch.setattr(diffusion, "keep_freed_memory", lambda: called.append(True))
    monkeypatch.setattr(diffusion, "load", lambda settings, device: (_ for _ in ()).throw(Loading))
    settings = resolve("t2i", out=tmp_path, model="tiny", gpus="cpu")
    with pytest.raises(Loading):
        DiffusionBackend(settings, settings.placement.devices[0]).open()
    assert called == [True]
