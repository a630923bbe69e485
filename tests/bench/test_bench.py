"""`fastgen bench` as a user runs it: real processes, the embedded models, all files."""

from __future__ import annotations

import json
import shlex
import sys

import psutil
import pytest
from msgspec.structs import replace
from PIL import Image

from fastgen.bench import synthetic
from fastgen.bench.arms import Arm, arms
from fastgen.bench.measure import Measurement
from fastgen.bench.work import Work
from fastgen.resolver import resolve
from tests.processes import command_line

FIELDS = {
    "images_per_second",
    "ratio",
    "stages_seconds",
    "first_image_seconds",
    "peak_memory_gib",
    "recompiles",
    "share_of_peak",
    "tflop_per_image",
    "psnr_db",
    "ssim",
    "score",
    "times_fewer_blocks",
    "engine",
    "again",
}
BRIEF = ("--rows", "4", "--rounds", "1", "--steps", "4", "--batch-size", "2")
OTHER = (
    "import json, sys; [open(f'{sys.argv[2]}/{i}.png', 'wb') for i, row in enumerate(map(json.loads, "
    "open(sys.argv[1])))]"
)


def check_measured(arm: dict) -> None:
    assert arm.keys() >= FIELDS and arm["images_per_second"] > 0 and arm["first_image_seconds"] > 0
    assert 0.2 < arm["peak_memory_gib"]["main"] < 4 and 0 < arm["share_of_peak"] < 1 and arm["score"]["of"] == 4


@pytest.mark.slow
def test_a_bench_and_one_arm_of_it_again(cli, tmp_path):
    compare = f"{shlex.quote(sys.executable)} -c {shlex.quote(OTHER)} {{rows}} {{out}}"
    only = ["plain", "cache first-block:0.4", "attention flash3"]
    flags = [word for name in only for word in ("--only", name)]
    done = cli("bench", "t2i", *BRIEF, *flags, "--compare", compare)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "fastgen-runs/bench-t2i"
    found = json.loads((out / "bench.json").read_text())
    theirs, plain, cached, refused = found["arms"]
    assert (theirs["name"], plain["name"], cached["name"]) == ("diffusers", "plain", "cache first-block:0.4")
    for arm in (theirs, plain, cached):
        check_measured(arm)
    assert plain["psnr_db"] == "inf" or plain["psnr_db"] > 50
    assert plain["times_fewer_blocks"] == 1 < cached["times_fewer_blocks"] and plain["recompiles"] == 0
    assert "CUDA" in refused["refused"] and "ratio" not in refused
    text = (out / "bench.md").read_text()
    assert (
        all(name in text for name in ("diffusers", "plain", "cache first-block:0.4", "refused", "embedded"))
        and "nan" not in text
    )
    with Image.open(out / "bench.png") as picture:
        picture.load()
        assert picture.width > 800
    assert "cache first-block:0.4" in done.stdout and "refused" in done.stdout
    ours, other = found["commands"]
    assert ours["ratio"] == 1 and other["command"] == compare and 0 < other["seconds"] < ours["seconds"]
    assert ours["command"] == "fastgen t2i {rows} -o {out} --quiet --steps 4 --batch-size 2"
    again = cli(*shlex.split(cached["again"])[1:])
    assert again.returncode == 0, again.stderr
    repeated = json.loads((out / "again" / "bench.json").read_text())
    assert [arm["name"] for arm in repeated["arms"]] == ["diffusers", "cache first-block:0.4"]
    assert repeated["arms"][1]["score"] == cached["score"] and json.loads((out / "bench.json").read_text()) == found
    mine = psutil.Process()
    assert not [p for p in mine.children(recursive=True) if "fastgen.bench" in " ".join(command_line(p))]


@pytest.mark.slow
def test_a_bench_of_edits(cli, tmp_path):
    done = cli("bench", "edit", *BRIEF, "--only", "plain")
    assert done.returncode == 0, done.stderr
    theirs, plain = json.loads((tmp_path / "fastgen-runs/bench-edit/bench.json").read_text())["arms"]
    assert (theirs["name"], plain["name"]) == ("diffusers", "plain")
    for arm in (theirs, plain):
        check_measured(arm)
    assert plain["psnr_db"] == "inf" or plain["psnr_db"] > 50
    assert plain["times_fewer_blocks"] == 1 and plain["recompiles"] == 0


@pytest.mark.slow
def test_an_arm_that_fails_harms_no_other(tmp_path):
    settings = resolve("t2i", out=tmp_path, model="tiny", gpus="cpu", steps=2, batch_size=1)
    opponent, plain = arms(settings, ("plain",))
    nowhere = replace(settings, model=replace(settings.model, path=str(tmp_path / "nowhere")))
    broken = [Arm("broken", nowhere, asked_for=True), Arm("of all", nowhere)]
    work = Work(settings, tmp_path / "inputs")
    measurement = Measurement([opponent, *broken, plain], work, tmp_path / "arms", rounds=1, rows=2, say=print)
    measurement.run()
    _, failed, refused, made = (figures.as_dict(work, 1e12) for figures in measurement.figures)
    assert "cannot load" in failed["failed"] and "ratio" not in failed and made["ratio"] > 0
    assert "cannot load" in refused["refused"] and not refused["failed"] and "ratio" not in refused


@pytest.mark.slow
@pytest.mark.vllm
def test_captions_by_the_real_vllm(environment, cli, tmp_path):
    done = cli("bench", "caption", "--rows", "16", "--rounds", "1", "--only", "vllm")
    assert done.returncode == 0, done.stderr
    theirs, ours = json.loads((tmp_path / "fastgen-runs/bench-caption/bench.json").read_text())["arms"]
    assert (
        ours["score"]["of"] == theirs["score"]["of"] == 16 and ours["score"]["right"] >= 14 and ours["same_text"] > 0.8
    )
    assert ours["ratio"] > 0 and ours["peak_memory_gib"]["main"] > 0.5


def test_wrong_flags(cli):
    for words in (
        ["paint"],
        ["--only", "magic"],
        ["caption", "--size", "64x64"],
        ["t2i", "--vllm-command", "x"],
        ["--rounds", "0"],
        ["--synthetic", "flux"],
        ["edit", "--synthetic", "flux-dev"],
        ["--gpus", "cpu:2"],
        ["caption", "--tune"],
    ):
        done = cli("bench", *words)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr, words


SMALLER = {
    "transformer": {
        "num_layers": 1,
        "num_single_layers": 2,
        "num_attention_heads": 2,
        "joint_attention_dim": 64,
        "pooled_projection_dim": 32,
    },
    "vae": {"block_out_channels": [32, 32, 32, 32]},
    "text_encoder": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "vocab_size": 800,
    },
    "text_encoder_2": {"d_model": 64, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 1, "vocab_size": 400},
}


@pytest.mark.parametrize("name", synthetic.NAMES)
def test_a_model_without_weights(cli, rows_file, tmp_path, name, table):
    """The published layout, smaller: loaded, run and said to be random."""
    folder = synthetic.make(name, tmp_path / "model", SMALLER)
    pictures = []
    for out in ("a", "b") if name == "flux-dev" else ("a",):
        rows = [{"prompt": "a fox", "size": "64x64", "seed": 1}]
        task = "t2i"
        if name == "flux-kontext":
            Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
            rows, task = [rows[0] | {"image": "red.png"}], "edit"
        done = cli(task, rows_file(rows), "-o", out, "--model", folder, "--gpus", "cpu", "--steps", "2")
        assert done.returncode == 0 and "random weights" in done.stderr, done.stderr
        [row] = table(tmp_path / out / "results.jsonl")
        [path] = row[{"t2i": "images", "edit": "edited_images"}[task]]
        with Image.open(tmp_path / out / path) as picture:
            pictures.append(picture.tobytes())
    assert len(set(pictures)) == 1 and len(set(pictures[0])) > 16, "noise, the same each time"


def test_a_full_size_model_is_refused_where_it_does_not_fit(cli, monkeypatch):
    from fastgen.config.hardware import find_gpus, free_main_gib

    if find_gpus() or free_main_gib() > 60:
        pytest.skip("here it fits")
    done = cli("bench", "--synthetic", "flux-dev")
    assert done.returncode == 2 and "63 GiB in float32" in done.stderr


def test_the_published_configs_are_the_models_they_name():
    """Without memory for them: built on the meta device and counted."""
    import torch
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    def drop(config):
        return {key: value for key, value in config.items() if not key.startswith("_")}

    with torch.device("meta"):
        parts = {
            "transformer": FluxTransformer2DModel(**drop(synthetic.TRANSFORMER)),
            "vae": AutoencoderKL(**drop(synthetic.VAE)),
            "clip": CLIPTextModel(CLIPTextConfig(**synthetic.CLIP)),
            "t5": T5EncoderModel(T5Config(**synthetic.T5)),
        }
    count = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}
    assert count["transformer"] == pytest.approx(11901, abs=1) and count["vae"] == pytest.approx(83.8, abs=0.1)
    assert count["clip"] == pytest.approx(123.1, abs=0.1) and count["t5"] == pytest.approx(4762, abs=2)
    assert sum(count.values()) * 1e6 == pytest.approx(synthetic.PARAMETERS, rel=0.01)
