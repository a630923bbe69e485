"""--gpus becomes one engine process each; which GPUs there are is asked of the driver's tool."""

from __future__ import annotations

import pytest

from fastgen.config.hardware import Gpu, find_devices, find_gpus, resolve_devices
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


TWO = "0, GPU-aa1, NVIDIA H200, 143771, 9.0\n1, GPU-bb2, NVIDIA RTX 4090, 24564, 8.9"
MIG = (
    "0, GPU-5c89852c, NVIDIA A100-SXM4-40GB, 40960, 8.0, 550.54.15, Enabled\n"
    "1, GPU-9d1f2a3b, NVIDIA A100-SXM4-40GB, 40960, 8.0, 550.54.15, Disabled"
)
SLICES = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89852c)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 1g.5gb      Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-9d1f2a3b)"""
IN_SLICES = {"--query-gpu": (0, MIG), "--list-gpus": (0, SLICES)}


def test_gpus_are_found(driver):
    driver(TWO)
    assert find_gpus() == [
        Gpu(0, "GPU-aa1", "NVIDIA H200", 140.4, "9.0"),
        Gpu(1, "GPU-bb2", "NVIDIA RTX 4090", 24.0, "8.9"),
    ]


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("1,0", ["GPU-bb2", "GPU-aa1"]),
        ("1", ["GPU-bb2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,-1,0", ["GPU-bb2"]),
        ("1,1", ["GPU-bb2"]),
        ("GPU-bb", ["GPU-bb2"]),
    ],
)
def test_only_visible_gpus_count_in_the_order_given(driver, monkeypatch, visible, found):
    driver(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus = find_gpus()
    assert [gpu.visible_as for gpu in gpus] == found and [gpu.index for gpu in gpus] == list(range(len(found)))


@pytest.mark.parametrize(
    ("visible", "words"),
    [
        ("5", "no GPU here is 5 .there are GPU-aa1 NVIDIA H200; GPU-bb2 NVIDIA RTX 4090.*Correct it or unset it"),
        ("0,5", "CUDA_VISIBLE_DEVICES=0,5: no GPU here is 5"),
        ("GPU-", "several GPUs are GPU-"),
        ("MIG-c7384736", "no GPU here is MIG-c7384736"),
        ("all", "no GPU here is all"),
    ],
)
def test_a_visible_gpu_that_is_not_there_is_an_error(driver, monkeypatch, visible, words):
    driver(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(SettingsError, match=words + ".*if you mean the CPU, use --gpus cpu"):
        find_gpus()


def test_without_any_sign_of_a_gpu_there_is_none(tool, monkeypatch, tmp_path):
    assert find_gpus() == [] and find_devices("")[0].name == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(SettingsError, match=r"CUDA_VISIBLE_DEVICES=0: no GPU here is 0 \(there are none\)"):
        find_gpus()


def one_lost_of_eight(says: str) -> dict[str, tuple[int, str]]:
    """The query for all cards fails; one for each card fails for the fifth alone."""
    cards = {i: f"{i}, GPU-{i}ab, NVIDIA H100 80GB HBM3, 81559, 9.0, 580.65.06, Disabled" for i in range(8) if i != 5}
    answers = {f"--id={i} ": (0, text) for i, text in cards.items()}
    return {**answers, "--id=5 ": (15, says), "--id": (6, "No devices were found"), "": (15, says)}


LOST = (
    "Unable to determine the device handle for GPU5: 0000:B3:00.0: GPU is lost.  Reboot the system to recover this GPU"
)


@pytest.mark.parametrize("how", ["alone", "cells", "exit code"])
def test_one_lost_gpu_of_eight_is_named_and_the_others_can_be_used(tool, monkeypatch, how):
    answers = one_lost_of_eight(LOST)
    if how != "alone":
        rows = [answers.get(f"--id={i} ", (0, ""))[1] for i in range(8)]
        rows[5] = "5, GPU-5ab, [GPU is lost], [GPU is lost], 9.0, 580.65.06, [GPU is lost]"
        answers[""] = (0 if how == "cells" else 15, "\n".join(rows))
    tool(answers)
    gpus = find_gpus()
    assert [gpu.visible_as for gpu in gpus if not gpu.problem] == [f"GPU-{i}ab" for i in range(8) if i != 5]
    assert gpus[0].driver == "580.65.06" and "is lost" in gpus[5].problem
    for wanted in ("", "all", "4,5"):
        with pytest.raises(
            SettingsError, match=r"GPU 5 cannot be used: .*is lost.*use the others with --gpus "
        ) as error:
            find_devices(wanted)
        assert error.match("--gpus 4$" if wanted == "4,5" else "--gpus 0,1,2,3,4,6,7$")
    devices = find_devices("0,1,2,3,4,6,7")
    assert [device.gpu.visible_as for device in devices] == [f"GPU-{i}ab" for i in range(8) if i != 5]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with pytest.raises(SettingsError, match=r"GPU 0 cannot be used: .*is lost.*or use --gpus cpu$"):
        find_devices("")


def test_mig_slices_are_gpus(tool, monkeypatch):
    tool(IN_SLICES)
    big, small, whole = find_gpus()
    assert big == Gpu(
        0, "MIG-c7384736-a75d-5afc-978f-d2f1294409fd", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", 19.0, "8.0", "550.54.15"
    )
    assert (small.memory_gib, small.index) == (4.8, 1) and whole.visible_as == "GPU-9d1f2a3b"
    for visible, found in {
        "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d": [small],
        "MIG-a28a,1": [small, whole],
        "0": [big],
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert [gpu.visible_as for gpu in find_gpus()] == [gpu.visible_as for gpu in found]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-77777777")
    with pytest.raises(SettingsError, match=r"no GPU here is MIG-77777777 \(there are MIG-c7384736.*MIG 3g.20gb; "):
        find_gpus()


def test_the_names_of_slices_of_older_drivers(tool, monkeypatch):
    old = "MIG-GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f/7/0"
    text = f"GPU 0: A100-SXM4-40GB (UUID: GPU-5c89852c)\n  MIG 1g.5gb Device 0: (UUID: {old})"
    tool({"--query-gpu": (0, MIG.splitlines()[0]), "--list-gpus": (0, text)})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", old)
    assert [gpu.visible_as for gpu in find_gpus()] == [old]


def test_a_card_with_mig_on_and_no_slice_cannot_be_used(tool):
    tool({**IN_SLICES, "--list-gpus": (0, "\n".join(SLICES.splitlines()[::3]))})
    with pytest.raises(SettingsError, match=r"GPU 0 cannot be used: MIG is on, and it has no slice.*--gpus 1$"):
        find_devices("")
    assert find_devices("1")[0].gpu.visible_as == "GPU-9d1f2a3b"


def test_a_gpu_that_shares_main_memory_reports_none(driver):
    driver("0, GPU-cc3, NVIDIA GB10, [N/A], 12.1, 580.95, [N/A]")
    [gpu] = find_gpus()
    assert (gpu.name, gpu.memory_gib, gpu.compute_capability, gpu.problem) == ("NVIDIA GB10", 0.0, "12.1", "")
