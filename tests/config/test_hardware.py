"""--gpus becomes one engine process each; which GPUs there are is asked of the driver's tool."""

from __future__ import annotations

import pytest

from fastgen.config.hardware import Gpu, find_gpus, resolve_devices
from fastgen.errors import SettingsError

GPUS = [Gpu(i, f"GPU-{i}", "NVIDIA Test", 79.6, "9.0") for i in range(3)]


@pytest.mark.parametrize(
    ("wanted", "gpus", "names"),
    [
        ("", GPUS, ["cuda:0", "cuda:1", "cuda:2"]),
        ("", [], ["cpu"]),
        ("all", GPUS, ["cuda:0", "cuda:1", "cuda:2"]),
        ("2,0", GPUS, ["cuda:2", "cuda:0"]),
        ("1, 1", GPUS, ["cuda:1"]),
        ("cpu", GPUS, ["cpu"]),
        ("cpu:3", [], ["cpu:0", "cpu:1", "cpu:2"]),
        ("CPU:1", [], ["cpu"]),
    ],
)
def test_devices(wanted, gpus, names):
    devices = resolve_devices(wanted, gpus)
    assert [device.name for device in devices] == names
    assert all(device.threads >= 1 for device in devices)
    assert [device.gpu for device in devices] == [gpus[int(n[5:])] if n.startswith("cuda") else None for n in names]


@pytest.mark.parametrize(
    ("wanted", "gpus", "words"),
    [
        ("7", [], "no GPU 7 .*no CUDA GPU.*--gpus cpu"),
        ("7", GPUS, "no GPU 7 .*0 to 2.*choose from 0, 1, 2"),
        ("all", [], "--gpus cpu"),
        ("cpu:0", [], "from 1 to 256"),
        ("cpu:x", [], "from 1 to 256"),
        ("cpu:²", [], "from 1 to 256"),
        ("gpu", GPUS, "'all', 'cpu'"),
        ("-1", GPUS, "give GPU numbers"),
        ("0,,1", GPUS, "give GPU numbers"),
        ("²", GPUS, "give GPU numbers"),
    ],
)
def test_what_is_not_there_is_an_error(wanted, gpus, words):
    with pytest.raises(SettingsError, match=words):
        resolve_devices(wanted, gpus)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """driver(text): the driver's tool prints that."""

    def install(text: str, code: int = 0):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        tool.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


TWO = "0, GPU-aa1, NVIDIA H200, 143771, 9.0\n1, GPU-bb2, NVIDIA RTX 4090, 24564, 8.9"


def test_gpus_are_found(driver):
    driver(TWO)
    assert find_gpus() == [
        Gpu(0, "GPU-aa1", "NVIDIA H200", 140.4, "9.0"),
        Gpu(1, "GPU-bb2", "NVIDIA RTX 4090", 24.0, "8.9"),
    ]


@pytest.mark.parametrize(
    ("visible", "found"),
    [("1,0", ["GPU-bb2", "GPU-aa1"]), ("1", ["GPU-bb2"]), ("", []), ("-1", []), ("GPU-bb", ["GPU-bb2"]), ("5", [])],
)
def test_only_visible_gpus_count_in_the_order_given(driver, monkeypatch, visible, found):
    driver(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus = find_gpus()
    assert [gpu.visible_as for gpu in gpus] == found and [gpu.index for gpu in gpus] == list(range(len(found)))


def test_no_driver_no_gpus(driver):
    assert find_gpus() == []
    driver("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", code=9)
    assert find_gpus() == []


def test_a_gpu_that_shares_main_memory_reports_none(driver):
    driver("0, GPU-cc3, NVIDIA GB10, [N/A], 12.1")
    [gpu] = find_gpus()
    assert (gpu.name, gpu.compute_capability) == ("NVIDIA GB10", "12.1")
