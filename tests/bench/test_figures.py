"""The arithmetic behind the figures: likeness, operations, ratios, and what the files say of them."""

from __future__ import annotations

import json
import math
import shlex

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from fastgen.bench import peak, report, synthetic
from fastgen.bench.arms import Arm, arms
from fastgen.bench.judge import Judge, ssim
from fastgen.bench.measure import Figures, Measurement
from fastgen.bench.rounds import Round
from fastgen.bench.tune import _best, _joined
from fastgen.bench.work import Work
from fastgen.config.optimizations import Options, Sets
from fastgen.config.profile import Match, Measured, Rate, dump, from_file
from fastgen.errors import EngineError
from fastgen.resolver import resolve


def save(folder, name: str, pixels) -> str:
    path = folder / f"{name}.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return str(path)


def test_likeness(tmp_path):
    dice = np.random.default_rng(0)
    picture = dice.integers(20, 200, (64, 48, 3))
    same, off = save(tmp_path, "a", picture), save(tmp_path, "b", picture + 10)
    equal, shifted = Judge(), Judge()
    equal.pictures({"x": same}, {"x": same}, {})
    shifted.pictures({"x": off, "other": off}, {"x": same}, {})
    assert equal.as_dict() == {"psnr_db": math.inf, "ssim": 1.0, "same_text": None, "score": None}
    assert shifted.as_dict()["psnr_db"] == pytest.approx(20 * math.log10(255 / 10), abs=0.05)
    noise = np.clip(picture + dice.normal(0, 40, picture.shape), 0, 255)
    blurred = (picture + np.roll(picture, 1, 0) + np.roll(picture, 1, 1)) / 3
    values = [
        ssim(picture.astype(float), other.astype(float))
        for other in (picture, picture + 10, noise, blurred, 255 - picture)
    ]
    assert values[0] == pytest.approx(1.0) and values[1] > 0.98 and values[1] > values[2] > values[4] and values[4] < 0


def test_ssim_by_its_definition():
    """One window, added up by hand."""
    dice = np.random.default_rng(1)
    a, b = dice.uniform(0, 255, (11, 11)), dice.uniform(0, 255, (11, 11))
    weights = np.exp(-(np.add.outer((np.arange(11) - 5) ** 2, (np.arange(11) - 5) ** 2)) / (2 * 1.5**2))
    weights /= weights.sum()
    ma, mb = (weights * a).sum(), (weights * b).sum()
    va, vb, cov = (
        (weights * (a - ma) ** 2).sum(),
        (weights * (b - mb) ** 2).sum(),
        (weights * (a - ma) * (b - mb)).sum(),
    )
    c1, c2 = 6.5025, 58.5225
    wanted = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    grey = lambda x: np.repeat(x[..., None], 3, 2)  # noqa: E731
    assert ssim(grey(a), grey(b)) == pytest.approx(wanted)


def test_operations_of_the_published_models():
    size = (1024, 1024)
    assert peak.flops_per_step(synthetic.TRANSFORMER, size, 512) / 1e12 == pytest.approx(74.4, abs=0.1)
    assert peak.flops_per_step(synthetic.TRANSFORMER, size, 256) / 1e12 == pytest.approx(69.5, abs=0.1)
    assert peak.flops_per_step(synthetic.TRANSFORMER, size, 512, size) / 1e12 == pytest.approx(165.5, abs=0.2)
    assert peak.flops_per_step(synthetic.TRANSFORMER, (512, 512), 512) / 1e12 == pytest.approx(21.5, abs=0.1)


def test_operations_are_what_pytorch_counts():
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from fastgen.backends.diffusion.families.flux1.latents import position_ids
    from fastgen.backends.diffusion.families.flux1.load import load

    modules = load(resolve("t2i", model="tiny", gpus="cpu"), torch.device("cpu"))
    transformer, config = modules.transformer, modules.transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    text, picture = torch.randn(1, 64, width), torch.randn(1, 64, width)
    rope = transformer.pos_embed(torch.cat([torch.zeros(64, 3), position_ids((128, 128), 0)]))
    math_only = sdpa_kernel(SDPBackend.MATH)  # the counter does not know a CPU's own kernel
    with torch.inference_mode(), math_only, FlopCounterMode(display=False) as counter:
        for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
            text, picture = block(picture, text, torch.randn(1, width), rope)
    counted = counter.get_total_flops()
    ours = peak.flops_per_step(dict(config), (128, 128), 64)
    assert ours == pytest.approx(counted, rel=0.01)  # the modulation of each block, once a picture, is left out


def test_a_data_sheet_is_found_by_the_whole_name():
    assert peak.data_sheet("NVIDIA H200") == peak.data_sheet("NVIDIA H100 80GB HBM3") == 989.4e12
    assert peak.data_sheet("NVIDIA H100 PCIe") == 756e12 and peak.data_sheet("NVIDIA L40S") == 362e12
    assert peak.data_sheet("NVIDIA L4") == 121e12 and peak.data_sheet("NVIDIA H200 NVL") == 835e12
    for other in ("Some GPU", "NVIDIA RTX A4000", "NVIDIA A10G", "NVIDIA GeForce RTX 4090 Laptop GPU"):
        assert peak.data_sheet(other) == 0.0, other


@pytest.fixture
def settings(tmp_path):
    return resolve("t2i", out=tmp_path, model="tiny", gpus="cpu")


def figures(settings, name: str, ratio: float, right: int = 95) -> Figures:
    found = Figures(Arm(name, settings), ratios=[ratio / 2, ratio, 2 * ratio], rates=[1.0])
    found.judge.right, found.judge.judged = right, 100
    return found


def test_what_a_profile_chooses(settings):
    plain = figures(settings, "plain", 1.0)
    faster = [
        figures(settings, "compile", 1.3),
        figures(settings, "fuse_qkv", 1.01),
        figures(settings, "attention sage", 1.2),
        figures(settings, "attention cudnn", 1.25),
    ]
    assert _joined([plain, *faster]) == "compile + attention cudnn"
    caches = [figures(settings, "a", 1.4, 94), figures(settings, "b", 1.8, 93), figures(settings, "c", 2.5, 91)]
    broken = figures(settings, "d", 9.0)
    broken.failed = "it failed"
    assert _best([plain, *caches, broken], 1.0) == "a" and _best([plain, *caches], 3.0) == "b"
    assert _best([plain, figures(settings, "e", 1.01)], 3.0) == ""


def test_a_profile_is_written_as_it_is_read(tmp_path):
    sets = Sets(exact=Options(compile=True, attention="cudnn"), fast=Options(quantize="fp8", cache="first-block:0.12"))
    measured = Measured("measured", "2026-11-25", 'a "GPU"', "fastgen bench --tune", "a note")
    path = tmp_path / "mine.toml"
    table, rate = {"512x512": 4, "1024x1024": 1}, Rate(exact=1.5)
    path.write_text(dump(Match(family="flux", device="cuda"), table, sets, measured, rate), "utf-8")
    found = from_file(path)
    assert found.opt == sets and found.measured == measured and found.rate == rate
    assert [found.batch_for(side * side) for side in (256, 512, 768, 1024, 2048)] == [4, 4, 1, 1, 1]


class Fixed:
    """An arm's process whose rounds take as long as it is told; the real ones are in test_bench.py."""

    def __init__(self, seconds: list[float], path: str, folder):
        self.seconds, self.path, self.folder = iter(seconds), path, folder
        for turn in range(3):
            (folder / str(turn)).mkdir(parents=True, exist_ok=True)

    def play(self, rows, name):
        return Round(seconds=next(self.seconds), made={row["id"]: self.path for row in rows})

    def peak_gib(self):
        return 1.5


@pytest.mark.parametrize("staying", [True, False])
def test_ratios_are_of_the_same_turn(settings, tmp_path, staying):
    """The machine gets twice as slow in the second turn; the ratio does not. Where both do not fit, each plays
    alone."""
    work = Work(settings, tmp_path)
    path = save(tmp_path, "p", np.zeros((128, 128, 3)))
    measurement = Measurement(arms(settings, ("plain",)), work, tmp_path, rounds=3, rows=4, say=lambda text: None)
    theirs, ours = measurement.figures
    one, other = Fixed([2.0, 4.0, 2.0], path, tmp_path / "a"), Fixed([1.0, 2.0, 1.0], path, tmp_path / "b")
    if staying:
        measurement._play([(theirs, one), (ours, other)])
    else:
        measurement._play([(theirs, one)])
        measurement._play([(ours, other)])
    found = ours.as_dict(work, 1e12)
    assert ours.ratios == [2.0, 2.0, 2.0] and found["ratio"] == 2.0 and found["images_per_second"] == 4.0
    assert theirs.as_dict(work, 1e12)["ratio"] == 1.0 and found["psnr_db"] == math.inf
    assert found["share_of_peak"] == pytest.approx(4.0 * found["tflop_per_image"], rel=0.01)
    assert found["score"]["of"] == theirs.judge.judged == 12


def test_an_opponent_that_does_not_run_ends_it(settings, tmp_path):
    broken = replace(settings, model=replace(settings.model, path=str(tmp_path / "nowhere")))
    measurement = Measurement(
        [Arm("diffusers", broken, "diffusers")], Work(settings, tmp_path), tmp_path, rounds=1, rows=1, say=print
    )
    with pytest.raises(EngineError, match=r"diffusers.*does not run here"):
        measurement.run()


def test_the_command_that_repeats_an_arm():
    about = {
        "task": "t2i",
        "rows": 48,
        "rounds": 3,
        "command": "fastgen bench --only plain --only 'quality high' --steps 4 -o x --rows 0 --tune",
    }
    again = shlex.split(report.rerun(about, "compile + cache first-block", "x"))
    assert again == [
        "fastgen",
        "bench",
        "t2i",
        "--steps",
        "4",
        "--only",
        "compile + cache first-block",
        "--rows",
        "48",
        "--rounds",
        "3",
        "-o",
        "x/again",
    ]


def test_json_without_numbers_that_json_lacks(tmp_path):
    report.write_json(tmp_path / "b.json", {"a": [math.inf, 1.5, None]})
    assert json.loads((tmp_path / "b.json").read_text()) == {"a": ["inf", 1.5, None]}


def test_a_table_has_no_column_that_says_nothing():
    arm = {
        "name": "vllm",
        "images_per_second": 80.0,
        "ratio": 1.5,
        "ratio_least": 1.4,
        "ratio_most": 1.6,
        "first_image_seconds": 9.0,
        "peak_memory_gib": {"main": 2.0, "gpu": None},
        "share_of_peak": None,
        "psnr_db": None,
        "ssim": None,
        "same_text": 0.995,
        "score": {"right": 9, "of": 10, "share": 0.9},
        "times_fewer_blocks": None,
        "recompiles": None,
    }
    refused = {"name": "other", "refused": "no GPU", "same_as": "", "failed": ""}
    head, row = report.table_of({"about": {"memory_gib": None}, "arms": [arm, refused]})
    assert head == ("", "per second", "ratio", "least-most", "first, s", "GiB", "same text", "right")
    assert row == ("vllm", "80", "1.50", "1.40-1.60", "9.0", "2.0", "100%", "9 of 10")


@pytest.mark.parametrize(("gib", "wanted"), [(79.6, "synthetic-flux-dev"), (23.6, "tiny")])
def test_on_a_gpu_without_the_model_nothing_is_downloaded(tmp_path, monkeypatch, gib, wanted):
    from fastgen.bench.run import settings_for
    from fastgen.config import hardware

    monkeypatch.setattr(hardware, "find_gpus", lambda: [hardware.Gpu(0, "GPU-1", "NVIDIA H100", gib, "9.0")])
    monkeypatch.setattr("fastgen.bench.run.is_cached", lambda name: False)
    settings = settings_for("t2i", tmp_path / "out")
    assert (
        settings.model.path.endswith("tiny-flux" if wanted == "tiny" else wanted)
        and settings.engine.dtype == "bfloat16"
    )
    assert any("downloads nothing" in note for note in settings.run.notes)
    assert settings.model.synthetic == (wanted != "tiny")


def test_a_folder_is_one_benchs_alone(tmp_path):
    from fastgen.bench.run import _own
    from fastgen.errors import RunFolderError

    (tmp_path / "mine" / "commands").mkdir(parents=True)
    with pytest.raises(RunFolderError, match="commands"), _own(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine" / "commands").is_dir()
    with _own(tmp_path / "out"):
        (tmp_path / "out" / "arms").mkdir()
        (tmp_path / "out" / "bench.json").write_text("{}")
        with pytest.raises(RunFolderError, match="another bench"), _own(tmp_path / "out"):
            pass
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with _own(tmp_path / "out"):
        assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != ".fastgen-bench") == [
            "notes.txt"
        ]


def test_an_arms_process_sees_its_gpu_alone(settings, tmp_path, monkeypatch):
    from fastgen.bench import process
    from fastgen.config.hardware import Device, Gpu

    seen = {}

    def start(command, **how):
        seen.update(how["env"])
        raise OSError("not here")

    monkeypatch.setattr(process.subprocess, "Popen", start)
    gpu = Device("cuda:1", "cuda", 8, Gpu(1, "GPU-2", "NVIDIA H100", 80.0, "9.0"))
    for device, wanted in ((gpu, "GPU-2"), (settings.placement.devices[0], "")):
        with pytest.raises(OSError, match="not here"):
            placement = replace(settings.placement, devices=(device,))
            process.ArmProcess(Arm("plain", replace(settings, placement=placement)), tmp_path / "arm")
        assert seen["CUDA_VISIBLE_DEVICES"] == wanted and seen["FASTGEN_KEEP_QUANTIZED"] == "0"
