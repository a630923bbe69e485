"""Which PyTorch can run on which GPU, by the files of an installed one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fastgen.config import torch_build
from fastgen.config.hardware import Gpu

H100 = Gpu(0, "GPU-a", "NVIDIA H100", 79.6, "9.0", "580.65.06")
FILE = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '{version}'
debug = False
cuda: Optional[str] = {cuda}
git_version = 'cf30153c4c131c8164ee7798e5022d810682e2cb'
hip: Optional[str] = {hip}
"""


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """installed(version, cuda, hip): that PyTorch is the one that is found."""

    def install(version: str, cuda: str = "None", hip: str = "None") -> None:
        (tmp_path / "version.py").write_text(FILE.format(version=version, cuda=cuda, hip=hip))
        monkeypatch.setattr(torch_build, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "a.py")))

    return install


def test_the_one_that_is_installed_here_is_understood():
    import torch

    version, cuda, hip = torch_build._versions()
    assert (version, cuda or None, hip or None) == (torch.__version__, torch.version.cuda, torch.version.hip)


@pytest.mark.parametrize(
    ("version", "cuda", "gpu", "words"),
    [
        (
            "2.13.0+cpu",
            "None",
            {},
            ["(2.13.0+cpu) is a build for the CPU", "pip install --force-reinstall torch==2.13.0 "],
        ),
        ("2.13.0+cu130", "'13.0'", {}, []),
        ("2.13.0+cu130", "'13.0'", {"driver": ""}, []),
        (
            "2.13.0",
            "'13.0'",
            {"driver": "570.86.15"},
            ["570.86.15 is too old", "needs 580 or newer", "PyTorch for CUDA 12"],
        ),
        ("2.11.0", "'12.8'", {"driver": "570.86.15"}, []),
        ("2.11.0", "'12.8'", {"driver": "418.40"}, ["418.40 is too old", "update the driver, or use --gpus cpu"]),
        ("2.13.0", "'13.0'", {"compute_capability": "6.1"}, ["no code for NVIDIA H100", "PyTorch for CUDA 12"]),
        ("2.11.0", "'12.6'", {"compute_capability": "6.1"}, []),
    ],
)
def test_what_cannot_run_is_said_with_its_fix(installed, version, cuda, gpu, words):
    installed(version, cuda)
    reason = torch_build.refuse(Gpu(**{**{f: getattr(H100, f) for f in Gpu.__struct_fields__}, **gpu}))
    assert bool(reason) == bool(words) and all(one in reason for one in words), reason
    assert not reason or "--gpus cpu" in reason


def test_what_is_not_known_is_not_refused(installed, monkeypatch):
    installed("2.13.0", hip="'6.4'")
    assert torch_build.refuse(H100) == ""
    monkeypatch.setattr(torch_build, "find_spec", lambda name: None)
    assert torch_build.refuse(H100) == ""
