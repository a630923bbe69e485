"""A machine that has a GPU, and cannot use it: the command says why and how to fix it, and writes nothing."""

from __future__ import annotations

import json
import os

import pytest

CARD = "0, GPU-5c89852c, NVIDIA A100-SXM4-40GB, 40960, 8.0, {driver}, Disabled"
FAILS = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
LOST = "Unable to determine the device handle for GPU5: 0000:B3:00.0: Unknown Error"
TORCH = """
import importlib.util, sys, types
real = importlib.util.find_spec
def find_spec(name, package=None):
    return types.SimpleNamespace(origin={here!r} + "/torch.py") if name == "torch" else real(name, package)
importlib.util.find_spec = find_spec
"""


@pytest.fixture
def tool(tmp_path):
    """tool(text, code): PATH with the driver's tool, which prints that."""

    def install(text: str, code: int = 0, cases: str = "") -> str:
        bin = tmp_path / "bin"
        bin.mkdir()
        (bin / "nvidia-smi").write_text(f"#!/bin/sh\n{cases}\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        (bin / "nvidia-smi").chmod(0o755)
        return f"{bin}{os.pathsep}{os.environ['PATH']}"

    return install


def refused(cli, tmp_path, *arguments: str, **environment: str) -> str:
    """The error of a command that must write nothing."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a fox"}\n')
    result = cli("t2i", rows, "-o", tmp_path / "out", *arguments, **environment)
    assert result.returncode == 2 and not (tmp_path / "out").exists(), result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("rows", ["own", "bundled"])
def test_a_tool_that_fails(cli, tmp_path, tool, rows):
    path = tool(FAILS, 9)
    if rows == "bundled":
        result = cli("t2i", "-o", tmp_path / "out", PATH=path)
        assert result.returncode == 2 and not (tmp_path / "out").exists()
        error = result.stderr
    else:
        error = refused(cli, tmp_path, PATH=path)
    assert FAILS in error and "Install the NVIDIA driver" in error and "if you mean the CPU, use --gpus cpu" in error


def test_a_mig_slice_that_is_not_there(cli, tmp_path, tool):
    path = tool(CARD.format(driver="580.65.06"))
    error = refused(cli, tmp_path, PATH=path, CUDA_VISIBLE_DEVICES="MIG-c7384736-a75d")
    assert "no GPU here is MIG-c7384736-a75d (there are GPU-5c89852c NVIDIA A100" in error and "--gpus cpu" in error


def test_one_lost_gpu_of_eight(cli, tmp_path, tool):
    rows = "\n".join(CARD.format(driver="580.65.06").replace("0,", f"{i},", 1) for i in range(8) if i != 5)
    cases = f"""case "$*" in
--id=5*) echo "{LOST}"; exit 255;;
--id=[0-7]*) n=${{1#--id=}}; echo "$n, GPU-$n, NVIDIA A100-SXM4-40GB, 40960, 8.0, 580.65.06, Disabled"; exit 0;;
--id=*) echo "No devices were found"; exit 6;;
esac"""
    path = tool(f"{rows}\n{LOST}", 255, cases)
    error = refused(cli, tmp_path, PATH=path)
    assert f"GPU 5 cannot be used: {LOST}" in error and "use the others with --gpus 0,1,2,3,4,6,7" in error
    dry = cli("t2i", tmp_path / "rows.jsonl", "--gpus", "0,4", "--dry-run", PATH=path)
    assert "--model z-image" in dry.stdout, "the lost one, without memory, counts for nothing"


@pytest.mark.parametrize(
    ("version", "cuda", "words"),
    [
        ("2.13.0+cpu", "None", "cuda:0: this PyTorch (2.13.0+cpu) is a build for the CPU"),
        ("2.13.0", "'13.0'", "cuda:0: the driver 535.183.01 is too old for this PyTorch (2.13.0, CUDA 13.0)"),
    ],
)
def test_a_pytorch_that_cannot_use_the_gpu(cli, tmp_path, tool, version, cuda, words):
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "version.py").write_text(f"__version__ = '{version}'\ncuda: Optional[str] = {cuda}\n")
    (hook / "sitecustomize.py").write_text(TORCH.format(here=str(hook)))
    environment = {"PATH": tool(CARD.format(driver="535.183.01")), "PYTHONPATH": f"{hook}{os.pathsep}{os.getcwd()}"}
    error = refused(cli, tmp_path, "--model", "tiny", **environment)
    assert words in error and "--gpus cpu" in error
    # A model that is not here would be downloaded in vain, so this comes before the hub is asked.
    assert words in refused(cli, tmp_path, "--model", "me/not-here", **environment)
    dry = cli("t2i", tmp_path / "rows.jsonl", "--model", "tiny", "--dry-run", **environment)
    assert dry.returncode == 0 and f"warning: {words}" in dry.stdout


def test_on_a_machine_with_a_gpu_auto_is_never_the_embedded_model_for_rows_of_ones_own(cli, tmp_path, tool):
    path = tool(CARD.format(driver="580.65.06"))
    for words, flags, variable in (
        ("--gpus cpu: --model auto would be 'tiny' here", ("--gpus", "cpu"), {}),
        ("CUDA_VISIBLE_DEVICES=: --model auto would be 'tiny' here", (), {"CUDA_VISIBLE_DEVICES": ""}),
    ):
        assert words in refused(cli, tmp_path, *flags, PATH=path, **variable)
    assert cli("t2i", "--gpus", "cpu", "--dry-run", PATH=path).returncode == 0, "the bundled rows are made for it"
    assert (
        cli("t2i", tmp_path / "rows.jsonl", "--gpus", "cpu", "--model", "tiny", "--dry-run", PATH=path).returncode == 0
    )


def test_without_a_gpu_the_first_line_and_every_row_name_the_embedded_model(cli, tmp_path, table):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a fox", "size": "64x64", "steps": 1}\n{"prompt": "", "id": "bad"}\n')
    result = cli("t2i", rows, "-o", tmp_path / "out")
    assert result.stderr.startswith("note: no CUDA GPU here, so --model auto is 'tiny', the embedded model")
    done, failed = table(tmp_path / "out" / "results.jsonl")
    assert done["fastgen"]["model"] == "tiny" and failed["fastgen"]["error"]["kind"] == "input"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["model"] == "tiny"
