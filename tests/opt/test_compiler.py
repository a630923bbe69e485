"""Programs that torch.compile would miss in the middle of a warm-up are named before any work."""

from __future__ import annotations

import pytest

from fastgen.config import torch_build
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Compile, Optimizations
from fastgen.opt import compile as compiling
from fastgen.opt import compiler

H100 = Gpu(0, "GPU-a", "NVIDIA H100", 79.6, "9.0")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """machine("gcc", ...): the programs that are there."""
    (tmp_path / "Python.h").touch()

    def make(*programs: str) -> None:
        monkeypatch.setattr(compiler.shutil, "which", lambda name: name if name in programs else None)

    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compiler.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(torch_build, "cuda_version", lambda: "")
    return make


def test_a_gpu_needs_a_c_compiler_and_pythons_headers(machine, monkeypatch, tmp_path):
    machine()
    assert "Triton needs a C compiler; install one (apt-get install gcc), or set CC" in compiler.missing(H100)
    for programs in (["gcc"], ["clang"]):
        machine(*programs)
        assert compiler.missing(H100) is None
    monkeypatch.setenv("CC", "icx -O2")
    assert "the compiler that CC names, icx, is not there" in compiler.missing(H100)
    machine("icx")
    assert compiler.missing(H100) is None
    (tmp_path / "Python.h").unlink()
    assert "apt-get install python3-dev" in compiler.missing(H100)


def test_a_build_for_cuda_needs_triton(machine, monkeypatch):
    machine("gcc")
    monkeypatch.setattr(torch_build, "cuda_version", lambda: "13.0")
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    assert "needs Triton, which is not installed" in compiler.missing(H100)


def test_a_cpu_needs_a_cpp_compiler(machine):
    machine("gcc")
    assert "needs a C++ compiler" in compiler.missing(None)
    machine("g++")
    assert compiler.missing(None) is None


def test_compile_is_refused_for_it(machine):
    machine()
    for gpu in (H100, None):
        reason = compiling.refuse(gpu, Compile(on=True), Optimizations())
        assert reason == compiler.missing(gpu) and "--no-compile" in reason
