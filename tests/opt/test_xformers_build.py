"""xformers and PyTorch must be built for the same CUDA; what each says of itself decides."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from fastgen.config import torch_build
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Attention, Optimizations
from fastgen.opt import attention, xformers_build

H100 = Gpu(0, "GPU-a", "NVIDIA H100", 79.6, "9.0")
ABOUT = {"version": {"cuda": 1208, "hip": None, "torch": "2.10.0+cu128", "python": "3.10.19"}}
"""As in the wheel of xformers 0.0.35 on PyPI."""


@pytest.mark.parametrize(
    ("about", "cuda", "words"),
    [
        (ABOUT, "13.0", "is built for CUDA 12.8, and this PyTorch for CUDA 13.0; what works is xformers 0.0.35 with"),
        (ABOUT, "12.6", ""),
        (ABOUT, "", ""),
        ({}, "13.0", ""),
        (
            None,
            "13.0",
            "the package xformers is not installed; what works is xformers 0.0.35 with a PyTorch for CUDA 12",
        ),
    ],
)
def test_a_pair_that_does_not_fit_is_refused_with_one_that_does(monkeypatch, tmp_path, about, cuda, words):
    (tmp_path / "cpp_lib.json").write_text(json.dumps(about or {}))
    found = None if about is None else SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(xformers_build, "find_spec", lambda name: found)
    monkeypatch.setattr(torch_build, "cuda_version", lambda: cuda)
    reason = xformers_build.refuse()
    assert bool(reason) == bool(words) and words in (reason or "")
    if reason:
        assert attention.refuse(H100, Attention("xformers"), Optimizations()) == reason
