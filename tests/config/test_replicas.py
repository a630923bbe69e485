"""GPUs are grouped, and each group runs one copy of a model."""

from __future__ import annotations

import pytest

from fastgen.config.hardware import Gpu, child_environment, resolve_devices
from fastgen.config.replicas import first, group, parse
from fastgen.errors import SettingsError

GPUS = [Gpu(i, f"GPU-{i}", "NVIDIA Test", 79.6, "9.0") for i in range(4)]


@pytest.mark.parametrize(
    ("gpus", "per_replica", "names", "visible"),
    [
        ("", 0, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"], ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]),
        ("", 1, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"], ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]),
        ("", 2, ["cuda:0+1", "cuda:2+3"], ["GPU-0,GPU-1", "GPU-2,GPU-3"]),
        ("all", 4, ["cuda:0+1+2+3"], ["GPU-0,GPU-1,GPU-2,GPU-3"]),
        ("0,1,2,3", 2, ["cuda:0+1", "cuda:2+3"], ["GPU-0,GPU-1", "GPU-2,GPU-3"]),
        ("0+2, 3+1", 0, ["cuda:0+2", "cuda:3+1"], ["GPU-0,GPU-2", "GPU-3,GPU-1"]),
        ("3+1", 2, ["cuda:3+1"], ["GPU-3,GPU-1"]),
    ],
)
def test_groups(gpus, per_replica, names, visible):
    flat, size = parse(gpus, per_replica)
    devices = resolve_devices(flat, GPUS)
    replicas = group(devices, size)
    assert [one.name for one in replicas] == names
    assert [child_environment(one)["CUDA_VISIBLE_DEVICES"] for one in replicas] == visible
    assert {len(one.gpus) for one in replicas} == {one.size for one in replicas} == {size}
    assert all(one.threads == size * devices[0].threads for one in replicas)


def test_slices_cannot_share_a_model():
    slices = [Gpu(i, f"MIG-{i}", "NVIDIA Test MIG 3g.40gb", 39.0, "9.0") for i in range(2)]
    devices = resolve_devices("", slices)
    assert group(devices, 1) == devices
    with pytest.raises(
        SettingsError, match="--gpus-per-replica 2: cuda:0 is a MIG slice, and CUDA shows a process only one"
    ):
        group(devices, 2)


def test_devices_of_the_cpu_are_grouped_too():
    flat, size = parse("cpu:4", 2)
    devices = resolve_devices(flat, [])
    replicas = group(devices, size)
    assert [(one.name, one.kind, one.size, one.gpus) for one in replicas] == [
        ("cpu:0+1", "cpu", 2, ()),
        ("cpu:2+3", "cpu", 2, ()),
    ]
    assert all(one.threads == 2 * devices[0].threads for one in replicas)


def test_the_first_device_of_a_replica():
    [replica] = group(resolve_devices("2,3", GPUS), 2)
    assert first(replica) == resolve_devices("2,3", GPUS)[0]
    assert first(first(replica)) == first(replica)


def test_a_device_without_gpus():
    [device] = group(resolve_devices("cpu", GPUS), 1)
    assert device.gpus == () and child_environment(device)["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("gpus", "per_replica", "words"),
    [
        ("", 3, "4 GPUs cannot be divided into groups of 3; choose with --gpus, such as --gpus 0\\+1\\+2$"),
        ("cpu", 2, "the CPU is 1 devices in this run; ask for 2 of them with --gpus cpu:2"),
        ("cpu:3", 2, "the CPU is 3 devices in this run; ask for 2 of them with --gpus cpu:2"),
        ("0+1,2", 0, "same number of GPUs"),
        ("0+1,1+2", 0, "a GPU is there twice"),
        ("0+1", 4, "groups of 2, but --gpus-per-replica is 4"),
        ("0+,1", 0, "give groups of GPU numbers"),
        ("0+cpu", 0, "give groups of GPU numbers"),
        ("0+9", 0, "no GPU 9"),
        ("", -1, "from 1 to 64"),
    ],
)
def test_what_cannot_be_grouped_is_an_error(gpus, per_replica, words):
    with pytest.raises(SettingsError, match=words):
        flat, size = parse(gpus, per_replica)
        group(resolve_devices(flat, GPUS), size)
