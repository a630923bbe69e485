"""`fastgen doctor`: what is there, what is missing, and the fix for each lack."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from fastgen.cli import doctor
from fastgen.cli.main import app
from fastgen.config.hardware import Gpu
from fastgen.errors import SettingsError
from tests.resolver.gpus import H100, RTX_3060


@pytest.fixture
def found(monkeypatch, tmp_path):
    """found([GPU, ...]) -> the findings by name."""
    monkeypatch.setenv("FASTGEN_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("fastgen.config.fit.card.free_host_gib", lambda: 60.0)
    monkeypatch.setattr("fastgen.config.hardware.free_gpu_gib", lambda gpu: 0.0)
    monkeypatch.setattr("fastgen.config.nvidia.evidence", lambda: "")
    monkeypatch.setattr("fastgen.opt.quantize.unfit", lambda name: "")

    def found(gpus):
        monkeypatch.setattr("fastgen.config.hardware.find_gpus", lambda *_: gpus)
        return {finding.what: finding for finding in doctor.findings()}

    return found


def test_without_a_gpu(found):
    seen = found([])
    assert seen["GPUs"].state == "missing" and "on the CPU" in seen["GPUs"].text
    assert seen["models"].text.startswith("tiny") and "native" in seen["attention kernels"].text
    assert seen["disk"].state == "ok" and "torch 2." in seen["packages"].text


def test_the_models_that_fit_are_those_of_the_planner(found, monkeypatch):
    monkeypatch.setattr("fastgen.config.torch_build.refuse", lambda gpu: "")
    large, small = found([H100]), found([RTX_3060])
    flux = "FLUX.1-dev (--model flux-dev)"
    assert large["GPU 0"].state == "ok" and large[flux].text.startswith("bfloat16 3")
    assert "partly in main memory" not in large[flux].text.partition(";")[0]
    assert "partly in main memory" in small[flux].text and "31 GiB to download" in small[flux].text
    for name in ("FLUX.2-klein-4B (--model klein)", "Z-Image-Turbo (--model z-image)"):
        assert large[name].state == "ok" and "8bit" in large[name].text and "(batch " in large[name].text
        assert small[name].state == "ok"
    assert large["Qwen-Image-2512 (--model qwen-image)"].text.startswith("bfloat16 5")
    assert large["Hugging Face token"].state == "fact" and "hf auth login" in large["Hugging Face token"].fix
    assert "https://huggingface.co/black-forest-labs/FLUX.1-dev" in large["Hugging Face token"].text


def test_gpus_of_two_kinds_are_told_apart(found, monkeypatch):
    monkeypatch.setattr("fastgen.config.torch_build.refuse", lambda gpu: "")
    seen = found([H100, replace(RTX_3060, index=1)])
    assert "FLUX.1-dev (--model flux-dev) on NVIDIA H100 80GB HBM3" in seen
    assert "klein" in " ".join(name for name in seen if name.endswith("on NVIDIA RTX 3060"))


def test_what_is_broken_has_its_fix_and_an_exit_code(found, monkeypatch):
    monkeypatch.setattr("fastgen.config.torch_build.refuse", lambda gpu: "this PyTorch is for the CPU: pip install it")
    seen = found([H100])["GPU 0"]
    assert seen.state == "broken" and seen.text.endswith("this PyTorch is for the CPU") and seen.fix == "pip install it"
    assert found([Gpu(0, "0", "A", 8.0, "8.0", "1", "it fell off the bus")])["GPU 0"].state == "broken"

    def none(*_):
        raise SettingsError("the driver does not answer; restart it")

    monkeypatch.setattr("fastgen.config.hardware.find_gpus", none)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 3
    assert next(line for line in lines if line["what"] == "GPUs")["text"] == "the driver does not answer; restart it"


def test_the_command(cli):
    done = cli("doctor")
    assert "attention kernels: " in done.stdout and "disk: " in done.stdout and done.returncode in (0, 3)
