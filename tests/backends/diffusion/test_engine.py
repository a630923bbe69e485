"""Memory, masks, turns, references and loading: what the engine adds to the step loop."""

from __future__ import annotations

import json
import shutil
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from fastgen.backends.diffusion import backend as backend_module
from fastgen.backends.diffusion import render as render_module
from fastgen.backends.diffusion.family import Sample
from fastgen.backends.diffusion.group import Group
from fastgen.config.model_cards import TINY
from fastgen.config.optimizations import Compile
from fastgen.config.stamps import digest
from fastgen.errors import ModelError
from fastgen.input.readers.rows import Row
from fastgen.input.requests import Intake
from fastgen.types import Batch, Bucket, Done, Failed
from tests.backends.diffusion.conftest import open_backend, picture


def requests(backend, rows: list[dict]) -> list:
    intake = Intake(backend.settings)
    made = []
    for number, row in enumerate(rows, 1):
        line = Row(number, json.dumps(row).encode())
        made.append(intake.read(line, intake.identify(line)))
    return made


def run(backend, rows: list[dict]):
    asked = requests(backend, rows)
    return backend.run(Batch(Bucket.of(asked[0]), tuple(asked)))


def pixels(backend, path: str) -> np.ndarray:
    with Image.open(f"{backend.settings.run.out}/{path}") as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_png_carries_how_it_was_made(t2i):
    (done,) = run(t2i, [{"id": "a", "prompt": "a fox 🦊", "seed": 5, "n": 2}])
    assert isinstance(done, Done) and done.paths == ("images/a_0.png", "images/a_1.png")
    with Image.open(f"{t2i.settings.run.out}/{done.paths[1]}") as image:
        assert image.size == (128, 128)
        assert (image.text["prompt"], image.text["model"], image.text["seed"]) == ("a fox 🦊", "tiny", "6")
        assert json.loads(image.text["settings"])["steps"] == t2i.settings.image.steps


def test_every_copy_takes_its_own_seed(t2i):
    """Picture j of a row with seed s is the picture of a row with seed s + j."""
    (two,) = run(t2i, [{"id": "two", "prompt": "a fox", "seed": 10, "n": 2}])
    (one,) = run(t2i, [{"id": "one", "prompt": "a fox", "seed": 11}])
    assert abs(pixels(t2i, two.paths[1]) - pixels(t2i, one.paths[0])).max() <= 1
    assert abs(pixels(t2i, two.paths[0]) - pixels(t2i, one.paths[0])).mean() > 2


def test_a_cut_prompt_is_said(t2i):
    short, long = run(t2i, [{"id": "s", "prompt": "a fox"}, {"id": "l", "prompt": "fox " * 100}])
    assert not short.warnings
    assert "the model reads the first 64" in long.warnings[0]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_out_of_memory_goes_on_in_smaller_batches(t2i, monkeypatch, error):
    rows = [{"id": f"oom{i}", "prompt": f"fox {i}", "seed": i} for i in range(5)]
    want = [pixels(t2i, result.paths[0]) for result in run(t2i, rows)]
    real, seen = Group.step, []

    def fits_two(group):
        seen.append(len(group.members))
        if len(group.members) > 2:
            raise error
        real(group)

    monkeypatch.setattr(Group, "step", fits_two)
    monkeypatch.setattr(t2i.room, "_fits", {})
    got = [pixels(t2i, result.paths[0]) for result in run(t2i, rows)]
    assert max(seen) > 2 and seen.count(2), "halves of what was too much"
    first = len(seen)
    assert max(abs(a - b).max() for a, b in zip(want, got, strict=True)) <= 2
    run(t2i, rows)
    assert max(seen[first:]) == 2, "the size that fits is remembered"


def test_a_sample_that_does_not_fit_fails_with_the_mend(t2i, monkeypatch):
    def never(group):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Group, "step", never)
    monkeypatch.setattr(t2i.room, "_fits", {})
    (failed,) = run(t2i, [{"prompt": "a fox"}])
    assert isinstance(failed, Failed) and failed.kind == "oom" and "smaller size" in failed.message


def test_memory_is_freed_once_the_failed_pass_is_gone(t2i, monkeypatch):
    """Its tensors live as long as its error does, and what they hold cannot be given back."""
    alive, held, one = [], [], threading.Lock()
    real_step, real_decode = Group.step, render_module.decode

    def fails_first(real):
        def run(*arguments):
            with one:  # decoding has threads of its own
                is_first = all(seen is not real for seen, _ in held)
                if is_first:
                    activations = torch.zeros(8)
                    held.append((real, weakref.ref(activations)))
            if is_first:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(*arguments)

        return run

    monkeypatch.setattr(Group, "step", fails_first(real_step))
    monkeypatch.setattr(render_module, "decode", fails_first(real_decode))
    monkeypatch.setattr(t2i.room, "empty_cache", lambda: alive.append(held[-1][1]()))
    monkeypatch.setattr(t2i.room, "_fits", {})
    assert all(isinstance(result, Done) for result in run(t2i, [{"id": f"w{i}", "prompt": "a fox"} for i in range(4)]))
    assert len(held) == 2 and alive == [None, None]


def test_a_library_that_says_it_in_its_own_words_is_out_of_memory_too(t2i, monkeypatch):
    def encode(prompts):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(t2i.prompts, "encode", encode)
    (failed,) = run(t2i, [{"prompt": "a fox"}])
    assert failed.kind == "oom" and "ALLOC_FAILED" in failed.message and "smaller size" in failed.message


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), backend_module.OutOfMemory("out of memory while denoising")]
)
def test_a_model_that_fits_and_leaves_no_room_is_refused_with_what_helps(t2i, monkeypatch, error):
    def no_room(self):
        raise error

    monkeypatch.setattr(backend_module.DiffusionBackend, "_warm_up", no_room)
    with pytest.raises(ModelError, match=r"tiny does not fit into the memory of cpu; try, in this order: .*out of mem"):
        backend_module.DiffusionBackend(t2i.settings, t2i.device).open()


def test_code_for_a_gpu_is_tuned_for_the_images_of_the_run(t2i):
    """The first size that a graph sees decides; on a CPU small images are enough."""
    compiled = replace(t2i.settings.optimizations, compile=Compile(True))
    own = replace(t2i.settings, optimizations=compiled, image=replace(t2i.settings.image, size=(512, 768)))
    own = replace(own, run=replace(own.run, batch_size=4))

    def first(device: str) -> list[tuple[int, int, int]]:
        engine = SimpleNamespace(settings=own, modules=SimpleNamespace(device=torch.device(device)))
        return backend_module.DiffusionBackend._first_sizes(engine)[:2]

    assert first("cuda") == [(512, 768, 2), (512, 768, 1)] and first("cpu") == [(64, 64, 2), (64, 64, 1)]


def test_decoding_falls_back_to_tiles(t2i, monkeypatch):
    real = render_module.decode

    def tiles_only(family, *rest):
        if not family.modules.vae.use_tiling:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(family, *rest)

    monkeypatch.setattr(render_module, "decode", tiles_only)
    monkeypatch.setattr(t2i.room, "_fits", {})
    try:
        (done,) = run(t2i, [{"id": "tiles", "prompt": "a fox"}])
        assert isinstance(done, Done)
    finally:
        t2i.modules.vae.disable_tiling()


def test_references_of_different_sizes_and_one_bad_picture(edit, tmp_path):
    """Rows of one bucket whose inputs differ in size; one of them is cut short and fails alone."""
    picture(1, 128, 128).save(tmp_path / "a.png")
    picture(2, 300, 300).save(tmp_path / "b.png")
    whole = tmp_path / "b.png"
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    rows = [{"id": name, "image": str(tmp_path / f"{name}.png"), "prompt": "night"} for name in ("a", "cut", "b")]
    a, cut, b = run(edit, rows)
    assert isinstance(a, Done) and isinstance(b, Done)
    assert cut.kind == "input" and cut.field == "image" and "cut short" in cut.message


def test_results_say_what_was_written_whatever_fails_beside_them(edit, tmp_path):
    picture(1, 128, 128).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:100])
    rows = [{"id": f"f{i}", "image": str(tmp_path / "a.png"), "prompt": f"night {i}", "n": 2} for i in range(3)]
    rows.insert(1, {"id": "cut", "image": str(tmp_path / "cut.png"), "prompt": "night", "n": 2})
    for result in run(edit, rows):
        if result.id != "cut":
            written = [Path(edit.settings.run.out, path).read_bytes() for path in result.paths]
            assert len(written) == 2 and result.files == tuple((len(data), digest(data)) for data in written)


def test_a_picture_that_fails_late_is_named_with_its_row(tmp_path):
    from fastgen.api import generate
    from fastgen.resolver import resolve

    picture(2, 300, 300).save(tmp_path / "b.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "b.png").read_bytes()[:-200])
    rows = [{"image": str(tmp_path / f"{name}.png"), "prompt": "night", "steps": 1} for name in ("b", "cut")]
    results = generate(resolve("edit", out=tmp_path / "out", model="tiny", gpus="cpu"), rows)
    (failed,) = [result for result in results if isinstance(result, Failed)]
    assert failed.message.startswith("row 2, field image: ") and "save it again" in failed.message


def test_mask_leaves_every_other_pixel_as_it_was(edit, tmp_path):
    before = picture(3, 200, 150)
    before.save(tmp_path / "in.png")
    mask = Image.new("L", before.size)
    mask.paste(255, (50, 40, 120, 100))
    mask.save(tmp_path / "mask.png")
    (done,) = run(
        edit,
        [
            {
                "id": "m",
                "image": str(tmp_path / "in.png"),
                "mask": str(tmp_path / "mask.png"),
                "conversations": [{"role": "user", "content": "a star"}, {"role": "user", "content": "red"}],
            }
        ],
    )
    after, original = pixels(edit, done.paths[0]), np.asarray(before).astype(int)
    inside = np.asarray(mask) > 0
    assert after.shape == original.shape, "a masked edit keeps the size of its picture"
    assert (after[~inside] == original[~inside]).all()
    assert abs(after[inside] - original[inside]).mean() > 5


def test_turns_are_applied_one_after_the_other(edit, tmp_path):
    """Two turns of one row equal two rows, the second on the first one's picture, with the seed of its turn."""
    picture(4, 128, 128).save(tmp_path / "in.png")
    turns = [{"role": "user", "content": "make it night"}, {"role": "user", "content": "add a moon"}]
    (both,) = run(edit, [{"id": "both", "image": str(tmp_path / "in.png"), "conversations": turns, "seed": 3}])
    (first,) = run(edit, [{"id": "first", "image": str(tmp_path / "in.png"), "prompt": "make it night", "seed": 3}])
    between = f"{edit.settings.run.out}/{first.paths[0]}"
    (second,) = run(edit, [{"id": "second", "image": between, "prompt": "add a moon", "seed": 4}])
    assert abs(pixels(edit, both.paths[0]) - pixels(edit, second.paths[0])).max() <= 1
    assert abs(pixels(edit, both.paths[0]) - pixels(edit, first.paths[0])).mean() > 2


def test_every_reference_counts(edit, tmp_path):
    for name in (5, 6, 7):
        picture(name, 128, 128).save(tmp_path / f"{name}.png")

    def with_second(name):
        row = {"id": f"r{name}", "images": [str(tmp_path / "5.png"), str(tmp_path / f"{name}.png")], "prompt": "join"}
        (done,) = run(edit, [{**row, "seed": 1}])
        return pixels(edit, done.paths[0])

    assert abs(with_second(6) - with_second(6)).max() == 0
    assert abs(with_second(6) - with_second(7)).mean() > 0.1


def test_loras_change_the_picture_by_their_scale(t2i, tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    weights = {}
    for block in range(2):
        key = f"transformer.transformer_blocks.{block}.attn.to_q"
        weights |= {
            f"{key}.lora_A.weight": torch.randn(4, 128) * 0.6,
            f"{key}.lora_B.weight": torch.randn(128, 4) * 0.6,
        }
    save_file(weights, tmp_path / "style.safetensors")
    row = [{"id": "lora", "prompt": "a red circle on a blue background", "seed": 1}]
    plain = pixels(t2i, run(t2i, row)[0].paths[0])

    def with_scale(scale):
        backend = open_backend("t2i", tmp_path / f"run{scale}", lora=(f"{tmp_path / 'style.safetensors'}:{scale}",))
        try:
            return pixels(backend, run(backend, row)[0].paths[0])
        finally:
            backend.close()

    assert abs(with_scale(0.0) - plain).max() <= 1
    assert abs(with_scale(1.0) - plain).mean() > abs(with_scale(0.5) - plain).mean() > 0.1


def test_a_lora_for_another_model_is_refused(tmp_path):
    from safetensors.torch import save_file

    key = "transformer.transformer_blocks.0.attn.to_q"
    save_file(
        {f"{key}.lora_A.weight": torch.ones(4, 3072), f"{key}.lora_B.weight": torch.ones(3072, 4)},
        tmp_path / "big.safetensors",
    )
    with pytest.raises(ModelError, match=r"--lora .*big\.safetensors"):
        open_backend("t2i", tmp_path, lora=(str(tmp_path / "big.safetensors"),))
    save_file({"something.else": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"--lora .*other\.safetensors"):
        open_backend("t2i", tmp_path, lora=(str(tmp_path / "other.safetensors"),))


def test_transformer_from_a_single_file(t2i, tmp_path):
    source = TINY / "transformer" / "diffusion_pytorch_model.safetensors"
    row = [{"id": "single", "prompt": "a fox", "seed": 1}]
    backend = open_backend("t2i", tmp_path, transformer=str(source))
    assert (pixels(backend, run(backend, row)[0].paths[0]) == pixels(t2i, run(t2i, row)[0].paths[0])).all()
    backend.close()
    with pytest.raises(ModelError, match="--transformer"):
        open_backend("t2i", tmp_path, transformer=str(TINY / "vae" / "diffusion_pytorch_model.safetensors"))


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "text_encoder_2"])
def test_a_missing_weight_is_an_error_not_a_random_number(tmp_path, part):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    (file,) = (folder / part).glob("*.safetensors")
    weights = load_file(file)
    weights.pop(sorted(weights)[3])
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{part} lacks 1 weights"):
        open_backend("t2i", tmp_path, model=str(folder))


def test_a_damaged_file_is_named(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(ModelError, match="cannot load transformer"):
        open_backend("t2i", tmp_path, model=str(folder))


def test_bfloat16_is_nearly_the_same_alone_and_in_a_batch(tmp_path):
    """Some CPUs' kernels round otherwise for another number of rows, which shows along the edges of shapes."""
    backend = open_backend("t2i", tmp_path, dtype="bf16")
    rows = [{"id": f"b{i}", "prompt": f"fox {i}", "seed": i} for i in range(3)]
    together = [pixels(backend, result.paths[0]) for result in run(backend, rows)]
    for row, image in zip(rows, together, strict=True):
        off = abs(pixels(backend, run(backend, [row])[0].paths[0]) - image)
        assert off.max() <= 16 and off.mean() < 0.5
    backend.close()


def test_another_run_begins_without_the_shortages_of_the_one_before(tmp_path):
    backend = open_backend("t2i", tmp_path)
    try:
        sample = Sample(None, 128, 128, 1, 1.0, torch.zeros(64, 64))
        most = backend.room.most(sample)
        assert backend.room.shrink(sample, 4, "denoising") == backend.room.most(sample) == 2 < most
        backend.modules.vae.enable_tiling()
        run = replace(backend.settings.run, out=str(tmp_path / "next"), batch_size=1)
        backend.reconfigure(replace(backend.settings, run=run))
        assert backend.room.most(sample) == 1 and not backend.modules.vae.use_tiling
    finally:
        backend.close()
