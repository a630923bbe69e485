"""Layout, offload, attention, compilation: each leaves the pictures as they were."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from fastgen.config import profile
from fastgen.config.optimizations import Attention, Compile
from fastgen.errors import SettingsError
from fastgen.opt import attention
from tests.opt.conftest import draw


def test_fused_projections_take_no_more_memory_and_agree(tiny):
    plain, fused = tiny(), tiny(fuse_qkv=True)
    count = [sum(p.numel() for p in made.modules.transformer.parameters()) for made in (plain, fused)]
    assert count[0] == count[1]
    attn = fused.modules.transformer.transformer_blocks[0].attn
    assert hasattr(attn, "to_qkv") and not hasattr(attn, "to_q") and not hasattr(attn, "add_k_proj")
    assert (draw(plain) - draw(fused)).abs().max() < 1e-5


def test_a_kernel_that_fails_is_undone(tiny):
    """diffusers accepts it and keeps it for every later pipeline of the process."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

    made = tiny()
    before = Registry._active_backend
    want = draw(made)
    with pytest.raises(SettingsError, match="--attention cudnn: does not work here"):
        attention.apply(made.modules, Attention("cudnn"))
    assert Registry._active_backend == before
    assert all(
        module.processor._attention_backend is None
        for module in made.modules.transformer.modules()
        if hasattr(module, "processor")
    )
    assert (draw(made) == want).all()
    attention.apply(made.modules, Attention("math"))
    assert Registry._active_backend == before, "other pipelines keep theirs"


SIZES = (
    ("64x64", 3),
    ("96x64", 1),
    ("128x128", 5),
    ("64x96", 2),
    ("192x128", 4),
    ("128x192", 1),
    ("144x112", 7),
    ("48x80", 1),
)
"""And how many rows of each."""


def recompiles(task: str, tmp_path, together: int = 1, **flags) -> list[int]:
    """Graphs made after the warm-up, by batch: sizes, ragged batches, single rows, for edits pictures of several
    shapes."""
    from tests.backends.diffusion.conftest import open_backend, picture
    from tests.backends.diffusion.test_engine import run

    torch._dynamo.reset()
    names = [str(tmp_path / f"{width}x{height}.png") for width, height in ((128, 96), (64, 64), (96, 160))]
    for name in names:
        picture(1, *map(int, name.rpartition("/")[2].removesuffix(".png").split("x"))).save(name)
    backend = open_backend(task, tmp_path / "run", compile=True, **flags)
    batches = []
    for number, (size, count) in enumerate(SIZES):
        rows = [
            {"id": f"{size}-{i}", "prompt": f"a circle {i}", "size": size, "steps": 5 + i % 2} for i in range(count)
        ]
        batches.append([row | ({"image": names[number % 3]} if task == "edit" else {}) for row in rows])
    with ThreadPoolExecutor(together) as pool:
        made = [result for results in pool.map(lambda rows: run(backend, rows), batches) for result in results]
    backend.close()
    torch._dynamo.reset()
    return [result.work["recompiles"] for result in made if result.work]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "flags"),
    [
        ("t2i", {}),
        ("edit", {"cache": "first-block:0.2"}),
        ("edit", {"cache": "taylorseer:0.2"}),
        ("t2i", {"quantize": "int8"}),
        ("edit", {"max_sequence_length": 16}),
        ("t2i", {"max_sequence_length": 24}),
        ("edit", {"fuse": True}),
    ],
    ids=str,
)
def test_no_graph_is_made_after_the_warm_up(request, tmp_path, monkeypatch, task, flags):
    """The graphs are traced and guarded, but not turned into code. Prompts of 16 and 24 tokens: as many as the pictures
    of the warm-up have."""
    monkeypatch.setattr(Compile, "parse", classmethod(lambda cls, word: cls(word, "eager")))
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-5)  # the engine's threads get in each other's way far more often
    if flags == {"fuse": True}:
        flags = {"profile": tmp_path / "fused.toml"}
        text = (profile.FOLDER / "cpu-tiny.toml").read_text("utf-8")
        flags["profile"].write_text(text + "\n[opt.exact]\nfuse_qkv = true\n")
    assert recompiles(task, tmp_path, **flags) == [0] * len(SIZES)


@pytest.mark.slow
def test_no_graph_is_made_after_the_warm_up_with_code(tmp_path, monkeypatch):
    """Generated code, which lays out its results in its own way, from an empty folder; several batches at the same
    time."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    found = recompiles("edit", tmp_path, together=3, quantize="4bit", cache="taylorseer:0.2")
    assert found == [0] * len(SIZES) and (tmp_path / "inductor").exists()


@pytest.mark.slow
def test_as_typed(cli, tmp_path):
    result = cli("edit", "--quantize", "8bit", "--quality", "fast", "-o", "out", "--gpus", "cpu")
    assert result.returncode == 0, result.stderr
    for words in (
        "speed: quantize 8bit (--quantize)",
        "speed: cache first-block:0.4 (profile 'cpu-tiny', quality fast)",
        "speed: quality fast (--quality fast)",
        "saves memory, not time",
    ):
        assert words in result.stderr
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["speed"]["cache"] == {"is": "first-block:0.4", "why": "profile 'cpu-tiny', quality fast"}
    assert about["engines"]["cpu"]["opt"]["quantize"]["transformer"]["kind"] == "8bit"
    assert (
        about["settings"]["quantize"] == "8bit" and about["work"]["blocks"] * 2 < about["work"]["blocks_without_cache"]
    )
    other = cli("edit", "--quantize", "8bit", "-o", "out", "--gpus", "cpu")
    assert other.returncode == 2 and "cache: 'first-block:0.4' before, 'none' now" in other.stderr
