"""PyTorch's settings for compiling belong to a thread: each that computes has them, and they fall back together."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch._inductor.config

from fastgen import opt
from fastgen.backends.diffusion import backend as backend_module
from fastgen.backends.diffusion.threads import EngineThreads
from fastgen.config.optimizations import Compile, Optimizations, Quantize
from fastgen.opt import compile
from tests.backends.diffusion.conftest import open_backend


def settings_of_threads(chosen: Optimizations, threads: int) -> list[tuple]:
    engine = EngineThreads(threads, lambda: opt.enter_thread(chosen), by_parts=False)
    begun = []

    def look():
        begun.append(1)
        while len(begun) < threads:  # each thread has one
            torch.ones(1).sum()
        inductor = torch._inductor.config
        return inductor.coordinate_descent_tuning, inductor.force_fuse_int_mm_with_mul
        yield ()

    found = [future.result(60) for future in [engine.submit(look()) for _ in range(threads)]]
    engine.close()
    return found


def are_per_thread() -> bool:
    """Before PyTorch 2.12 they belong to the process."""
    config = torch._inductor.config
    with config.patch(coordinate_descent_tuning=not config.coordinate_descent_tuning):
        here = config.coordinate_descent_tuning
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: config.coordinate_descent_tuning).result() != here


@pytest.fixture
def untouched():
    """No other test has set them. Afterwards they are as before."""
    config = torch._inductor.config
    before = config.save_config()
    config.coordinate_descent_tuning = config.force_fuse_int_mm_with_mul = False
    yield
    torch._inductor.config.load_config(before)


@pytest.mark.parametrize("kind", ["int8", "fp8", "mxfp8"])
@pytest.mark.usefixtures("untouched")
def test_torchaos_settings_reach_every_thread_that_compiles(kind):
    (untouched,) = settings_of_threads(Optimizations(), 1)
    chosen = Optimizations(quantize=Quantize(kind), compile=Compile(True))
    assert untouched != (True, True) and settings_of_threads(chosen, 3) == [(True, True)] * 3
    if are_per_thread():
        assert settings_of_threads(Optimizations(quantize=Quantize("4bit")), 1) == [untouched]


def test_the_engine_enters_its_threads(tmp_path, monkeypatch):
    entered = []
    monkeypatch.setattr(backend_module.opt, "enter_thread", entered.append)
    backend = open_backend("t2i", tmp_path, quantize="int8")
    backend.close()
    assert entered and entered[0].quantize == Quantize("int8")


def test_what_nobody_asked_for_may_fail(tmp_path, monkeypatch):
    """A profile's choice that fails in the warm-up is undone, and said; what a flag chose is an error."""
    (tmp_path / "mine.toml").write_text(open_profile() + "\n[opt.exact]\ncompile = true\n")

    def fails(modules, choice):
        def broken(*_, **__):
            raise RuntimeError("no code today")

        for block in modules.transformer.transformer_blocks:
            block._compiled_call_impl = broken
        return {"backend": "inductor"}

    monkeypatch.setattr(compile, "apply", fails)
    monkeypatch.setattr(compile, "enter_thread", lambda choice: None)
    backend = open_backend("t2i", tmp_path / "a", profile=tmp_path / "mine.toml")
    backend.close()
    with pytest.raises(RuntimeError, match="no code today"):
        open_backend("t2i", tmp_path / "b", compile=True)


def open_profile() -> str:
    from fastgen.config.profile import FOLDER

    return (FOLDER / "cpu-tiny.toml").read_text("utf-8")


def test_compiled_code_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_HOME", str(tmp_path))
    folder = compile.private_folder()
    assert folder == tmp_path / "inductor" and stat.S_IMODE(folder.stat().st_mode) == 0o700
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert compile.private_folder() == tmp_path / f"inductor-{user + 1}"
