"""Whether the programs are there that torch.compile needs: it writes C++ for a CPU, and Triton writes C for a GPU's
kernels. Imports no torch."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from fastgen.config import torch_build
from fastgen.config.hardware import Gpu

INSTEAD = "or use --no-compile"


def missing(gpu: Gpu | None) -> str | None:
    """What is missing and how to get it, or None. `gpu` None: on a CPU."""
    if gpu is None:
        if any(map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))):
            return None
        return f"needs a C++ compiler (g++) on a CPU; install one {INSTEAD}"
    if torch_build.cuda_version() and find_spec("triton") is None:
        return f"needs Triton, which is not installed; pip install triton, {INSTEAD}"
    own = os.environ.get("CC", "").split()
    if own and not shutil.which(own[0]):
        return f"the compiler that CC names, {own[0]}, is not there; correct or unset CC, {INSTEAD}"
    if not own and not any(map(shutil.which, ("gcc", "clang"))):
        return f"Triton needs a C compiler; install one (apt-get install gcc), or set CC, {INSTEAD}"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return f"Triton needs Python's header files; install them (apt-get install python3-dev), {INSTEAD}"
    return None
