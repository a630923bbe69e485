"""What the driver's tool says, in its format. MIG slices and lost cards are
in test_hardware.py, with what chooses among them."""

from __future__ import annotations

import subprocess

import pytest

from fastgen.config import nvidia
from fastgen.config.hardware import find_devices, find_gpus
from fastgen.errors import SettingsError

TWO = "0, GPU-aa1, NVIDIA H200, 143771, 9.0\n1, GPU-bb2, NVIDIA RTX 4090, 24564, 8.9"


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        (
            9,
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
            "NVIDIA driver is installed and running.",
            r"fails \(exit code 9\): NVIDIA-SMI has failed .* Install the NVIDIA driver or load its kernel module",
        ),
        (
            18,
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.65",
            "Driver/library version mismatch. The driver was updated while it was in use: restart the machine",
        ),
        (6, "No devices were found", "No devices were found. The driver sees no GPU: restart"),
        (255, "Failed to initialize NVML: Unknown Error", "Start the container with --gpus all"),
        (2, 'Field "compute_cap" is not a valid field to query.', "the NVIDIA driver is too old.*Update the driver"),
        (0, "", "it says nothing"),
    ],
)
def test_a_tool_that_fails_is_an_error_with_its_cause_and_fix(driver, code, text, words):
    driver(text, code)
    with pytest.raises(SettingsError, match=words):
        find_gpus()
    assert find_devices("cpu:2")[0].name == "cpu:0", "the CPU can be asked for"
    with pytest.raises(SettingsError, match=r"; if you mean the CPU, use --cpu$"):
        find_gpus(cpu="--cpu")


def test_a_tool_that_hangs_is_an_error(driver, monkeypatch):
    def hang(arguments, timeout, **_):
        raise subprocess.TimeoutExpired(arguments, timeout)

    driver(TWO)
    monkeypatch.setattr(nvidia.subprocess, "run", hang)
    with pytest.raises(SettingsError, match=r"fails .*: no answer within 60 s. Run nvidia-smi and fix"):
        find_gpus()


def test_a_device_without_the_tool_is_an_error(tool, tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    with pytest.raises(SettingsError, match=r"has a GPU \(.*/nvidia0\), but nvidia-smi is not there .*--gpus cpu"):
        find_gpus()
    (tmp_path / "dev" / "nvidia0").rename(tmp_path / "dev" / "nvidiactl")
    assert find_gpus() == []


def test_if_all_cards_are_lost_each_is_named(tool):
    lost = {f"--id={i} ": (15, f"Unable to determine the device handle for GPU{i}: Unknown Error") for i in range(2)}
    tool({**lost, "--id": (6, "No devices were found"), "": (15, "Unable to determine the device handle for GPU0")})
    with pytest.raises(
        SettingsError, match=r"GPU 0: Unable .*; GPU 1: Unable .*restart the machine; if you mean the CPU"
    ):
        find_gpus()
