"""From flags and machine to a plan: each card runs FLUX.1 by default, flags win, and a run folder keeps its
precision."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from fastgen.config import profile
from fastgen.config.fit.planner import Plan
from fastgen.errors import SettingsError
from fastgen.output.run_dir import JOURNAL, RUN, RunFolder
from fastgen.resolver import resolve
from tests.resolver.gpus import (
    A100_40,
    A100_80,
    B200,
    H100,
    H200,
    L40S,
    MODELS,
    RTX_3060,
    RTX_3090,
    RTX_4080,
    RTX_4090,
    RTX_5090,
    gpu,
    resolved,
)

GROUP, TURNS, WHOLE = ("none", "group"), ("none", "model"), ("none", "none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def settings(folder, tmp_path):
    def settings(*gpus, model="FLUX.1-dev", **flags):
        return resolved(folder, model, *gpus, **{"out": tmp_path / "out", **flags})

    return settings


def choice(settings) -> tuple[str, str]:
    return settings.optimizations.quantize.word(), settings.optimizations.offload.kind


@pytest.mark.parametrize(
    ("card", "exact", "fast"),
    [
        (RTX_3060, GROUP, GROUP),
        (RTX_4080, GROUP, ("fp8", "model")),
        (RTX_3090, GROUP, GROUP),
        (RTX_4090, GROUP, ("fp8", "text")),
        (RTX_5090, TURNS, ("fp8", "none")),
        (A100_40, WHOLE, WHOLE),
        (L40S, WHOLE, ("fp8", "none")),
        (A100_80, WHOLE, WHOLE),
        (H100, WHOLE, ("fp8", "none")),
        (H200, WHOLE, ("fp8", "none")),
        (B200, WHOLE, ("fp8", "none")),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else "",
)
@pytest.mark.parametrize("model", MODELS)
def test_every_card_runs_flux_by_default(settings, model, card, exact, fast):
    for quality, expected in (("", exact), ("exact", exact), ("high", exact), ("fast", fast)):
        made = settings(card, model=model, quality=quality)
        assert choice(made) == expected
        assert isinstance(made.fit, Plan) and made.fit.need.gib <= 0.98 * card.memory_gib
        assert made.optimizations.stepcache.is_plain == (quality in ("", "exact"))
        compiles = made.optimizations.compile
        assert compiles.on == (expected[1] != "group")
        assert compiles.if_it_pays == (compiles.on and quality != "fast"), "the number of rows is not known yet"


def test_the_free_memory_decides(settings):
    assert choice(settings(H100, free_gib=30.0)) == TURNS
    assert choice(settings(H100, gpu("H100 80GB HBM3", 79.6, "9.0", 1), free_gib=20.0)) == GROUP
    assert choice(settings(RTX_4090, H100)) == GROUP  # all GPUs of a run do the same
    with pytest.raises(SettingsError, match=r"6\.0 GiB free.*other programs hold 72\.0 GiB of this GPU"):
        settings(H100, free_gib=6.0)


def test_larger_images_need_more(settings):
    assert choice(settings(A100_40, size="2048x2048")) == ("none", "text")
    assert choice(settings(A100_40, batch_size=16)) == ("none", "text")
    assert choice(settings(RTX_5090, dtype="float32")) == GROUP


def test_flags_win(settings):
    assert choice(settings(RTX_4090, offload="model", quantize="4bit")) == ("4bit", "model")
    assert choice(settings(H100, offload="group")) == GROUP
    assert choice(settings(RTX_4090, quantize="fp8", compile=True)) == ("fp8", "text")
    assert choice(settings(RTX_5090, quantize="nvfp4", compile=True)) == ("nvfp4", "none")
    with pytest.raises(SettingsError, match="nvfp4 arithmetic needs a Blackwell GPU"):
        settings(RTX_4090, quantize="nvfp4", compile=True)
    with pytest.raises(
        SettingsError, match=r"bfloat16 with everything on the GPU needs 36\.3 GiB.*Without --offload, "
    ):
        settings(RTX_4090, offload="none", quantize="none")
    with pytest.raises(SettingsError, match="--quantize fp8: without --compile torchao's layers are"):
        settings(H100, quantize="fp8", compile=False)
    with pytest.raises(SettingsError, match="--quantize fp8: quantized weights do not follow --offload group"):
        settings(H100, quantize="fp8", compile=True, offload="group")


def test_every_gpu_must_be_able(settings):
    with pytest.raises(SettingsError, match=r"fp8 arithmetic needs compute capability 8\.9; NVIDIA RTX 3090 has 8\.6"):
        settings(H100, RTX_3090, quality="fast")


def test_without_a_gpu_or_its_memory_there_is_no_plan(settings):
    assert settings(H100, gpus="cpu").fit is None
    unknown = settings(gpu("GB10", 0.0, "12.1"))
    assert unknown.fit is None and choice(unknown) == WHOLE


def test_an_engine_is_reused_whatever_is_free(settings):
    one, two = settings(H100, free_gib=60.0), settings(H100, free_gib=70.0)
    assert one.fit != two.fit and one.engine_key() == two.engine_key()


def begun(settings) -> None:
    """A run that has made something."""
    folder = RunFolder(settings)
    folder.write_run(state="finished")
    folder.close()
    (folder.path / JOURNAL).write_text("{}\n")


@pytest.fixture
def rows(rows_file):
    return rows_file([{"prompt": "a"}])


def test_a_run_folder_continues_on_another_card(settings, rows):
    """Placement may change, and precision stays: here with 24 GB of main memory, which is too little for streaming."""
    begun(settings(RTX_4090, input=rows, host_gib=24.0))
    here = settings(H100, input=rows)
    assert (
        choice(here) == ("8bit", "none")
        and "quantize 8bit (this run folder, which keeps its precision)" in here.optimizations.explain()
    )
    begun(here)
    assert choice(settings(RTX_4090, input=rows)) == ("8bit", "text")
    begun(settings(RTX_4090, input=rows))
    assert choice(settings(H100, input=rows, fresh=True)) == WHOLE
    with pytest.raises(SettingsError, match="quantize: '8bit' before, 'none' now"):
        begun(settings(H100, input=rows, quantize="none"))


def test_a_run_folder_that_cannot_continue_here_says_why(settings, rows):
    begun(settings(H100, input=rows))
    assert choice(settings(RTX_4090, input=rows)) == GROUP
    with pytest.raises(SettingsError, match=r"Without the precision of the images in .*out, --quantize 8bit.* fits"):
        settings(RTX_4090, input=rows, host_gib=24.0)


def test_what_the_user_chose_before_is_not_taken_over(settings, rows):
    """Another quality is another run, as ever."""
    begun(settings(H100, input=rows, quality="fast"))
    with pytest.raises(SettingsError, match="quantize: 'fp8' before, 'none' now"):
        begun(settings(H100, input=rows))


@pytest.mark.parametrize(
    "damage", ["[]", '{"settings": []}', '{"settings": {"quantize": "2bit", "quantize_text": ""}}', "{"]
)
def test_a_run_folder_of_another_kind_decides_nothing(settings, tmp_path, damage):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOURNAL).write_text("{}\n")
    (tmp_path / "out" / RUN).write_text(damage)
    assert choice(settings(RTX_4090)) == GROUP


def test_a_plan_goes_to_the_worker_with_the_settings(settings):
    made = settings(RTX_4090)
    assert pickle.loads(pickle.dumps(made)) == made and msgspec.json.encode(made.fit)


def test_run_json_has_the_plan(settings, rows):
    made = settings(RTX_4090, input=rows, batch_size=1)
    begun(made)
    run = json.loads(Path(made.run.out, RUN).read_text("utf-8"))
    assert run["memory"]["chosen"] == "bfloat16 with --offload group" and len(run["memory"]["not_chosen"]) == 3
    assert run["speed"]["offload"] == {"is": "group", "why": "to fit: bfloat16 with --offload model needs 24.0 GiB"}


@pytest.fixture
def machine(tmp_path, folder, monkeypatch):
    """machine(gpu, free_mib): a driver that reports it. Returns a function that runs fastgen."""

    def make(name: str, total_mib: int, capability: str, free_mib: int):
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir()
        tool.write_text(
            '#!/bin/sh\ncase "$*" in\n'
            f"  *memory.free*) echo {free_mib} ;;\n"
            f"  *) echo '0, GPU-aa1, {name}, {total_mib}, {capability}' ;;\nesac\n"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        resolved(folder, "FLUX.1-dev", H100)

        def run(*arguments) -> subprocess.CompletedProcess:
            command = [sys.executable, "-m", "fastgen", "t2i", *map(str, arguments), "--dry-run"]
            command += ["--model", str(folder / "flux-dev"), "-o", str(tmp_path / "out")]
            return subprocess.run(command, capture_output=True, text=True, timeout=120)

        return run

    return make


def test_a_dry_run_shows_the_plan(machine, rows):
    run = machine("NVIDIA GeForce RTX 5090", 32607, "12.0", 32050)
    ended = run(rows, "--batch-size", "1", "--quantize", "8bit")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert (
        "memory: --quantize 8bit with everything on the GPU needs 25.1 of the 31.3 GiB that are free on cuda:0 "
        "(NVIDIA GeForce RTX 5090) (calculated, while decoding: weights 20.4, activations 2.2, prompts 1.0, CUDA 1.1, "
        "margin 0.4)"
    ) in lines
    assert "speed: quantize 8bit (--quantize)" in lines
    ended = run(rows, "--json", "--quantize", "8bit")
    assert json.loads(ended.stdout.splitlines()[-1])["memory"]["chosen"] == "--quantize 8bit with everything on the GPU"
    ended = run(rows, "--offload", "none", "--quantize", "none")
    assert ended.returncode == 2 and not ended.stdout
    assert "bfloat16 with everything on the GPU needs 36.3 GiB. Without --" in ended.stderr


@pytest.mark.parametrize(
    ("card", "name"),
    [
        (RTX_3060, "flux-ampere-small"),
        (A100_40, "flux-ampere"),
        (RTX_4090, "flux-ada-small"),
        (L40S, "flux-ada"),
        (gpu("H100 MIG 1g.20gb", 19.5, "9.0"), "flux-hopper-small"),
        (H200, "flux-hopper"),
        (RTX_5090, "flux-blackwell-rtx-small"),
        (gpu("RTX PRO 6000", 95.6, "12.0"), "flux-blackwell-rtx"),
        (B200, "flux-blackwell"),
        (gpu("T4", 15.0, "7.5"), "default"),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else value,
)
def test_the_profile_of_each_card(settings, card, name):
    assert settings(card).placement.profile.name == name


@pytest.mark.parametrize(
    ("card", "name", "model", "quantization"),
    [
        (gpu("RTX 2070", 8.0, "7.5"), "vlm", "2B", ""),
        (RTX_4080, "vlm-16", "4B", ""),
        (RTX_4090, "vlm-24", "8B", "fp8"),
        (RTX_3090, "vlm-24", "8B", "fp8"),
        (RTX_5090, "vlm-24", "8B", "fp8"),
        (A100_40, "vlm-40", "8B", ""),
        (L40S, "vlm-40", "8B", ""),
        (A100_80, "vlm-80", "8B", ""),
        (H100, "vlm-fp8", "8B", "fp8"),
        (B200, "vlm-80", "8B", ""),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else value,
)
def test_captions_take_the_vlm_that_fits(monkeypatch, rows, tmp_path, card, name, model, quantization):
    monkeypatch.setattr("fastgen.config.hardware.find_gpus", lambda: [card])
    flags = {"vllm_command": sys.executable, "out": tmp_path / "out"}
    settings = resolve("caption", rows, **flags)
    serve = settings.placement.profile.serve
    assert settings.placement.profile.name == name and settings.model.name == f"Qwen/Qwen3-VL-{model}-Instruct"
    assert (serve.model, serve.quantization) == (settings.model.name, quantization)
    assert settings.endpoint.max_inflight == serve.max_inflight >= serve.max_num_seqs > 0 < serve.max_model_len
    assert settings.text.max_pixels == serve.max_pixels == 1048576 and settings.fit is None
    assert resolve("caption", rows, model="some/vlm", **flags).model.name == "some/vlm"
    assert resolve("caption", rows, model="auto", base_url="http://127.0.0.1:9/v1", out=tmp_path).model.name == "auto"


@pytest.mark.parametrize("path", sorted(profile.FOLDER.glob("flux-*.toml")), ids=lambda path: path.stem)
def test_profiles_of_gpus_are_complete(path):
    """They say something of every optimization, so that none is chosen by being forgotten."""
    match, found = profile.load(path)
    exact = msgspec.structs.asdict(found.opt.exact)
    assert all(value not in ("", None) for value in exact.values()), exact
    assert match.device == "cuda" and found.measured.status == "unmeasured"
    assert {found.batch_for(side * side) for side in (256, 512, 768, 1024)} in ({8, 4, 2, 1}, {16, 8, 4, 2})
