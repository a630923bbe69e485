"""Every pair of optimizations works or is refused with the reason, never ignored. The table in docs/optimizations.md is
this.

python -m tests.opt.test_pairs     writes the table anew
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from fastgen import opt
from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Compile
from fastgen.errors import SettingsError
from fastgen.opt import blackwell, compiler, norm_rope
from tests.opt.conftest import choices, draw

OPTIONS = {
    "attention math": {"attention": "math"},
    "attention flex": {"attention": "flex"},
    "compile": {"compile": True},
    "fuse_qkv": {"fuse_qkv": True},
    "norm_rope": {"norm_rope": True},
    "cuda-graphs": {"cuda_graphs": True},
    "quantize 8bit": {"quantize": "8bit"},
    "quantize 4bit": {"quantize": "4bit"},
    "quantize fp8": {"quantize": "fp8"},
    "quantize int8": {"quantize": "int8"},
    "quantize mxfp8": {"quantize": "mxfp8"},
    "quantize nvfp4": {"quantize": "nvfp4"},
    "quantize text:8bit": {"quantize": "text:8bit"},
    "cache first-block": {"cache": "first-block:0.4"},
    "cache taylorseer": {"cache": "taylorseer:0.4"},
    "progressive": {"progressive": "0.5:0.25"},
    "parallel shard": {"parallel": "shard"},
    "parallel context": {"parallel": "context"},
    "offload model": {"offload": "model"},
    "offload group": {"offload": "group"},
}
H100 = Gpu(0, "GPU-a", "NVIDIA H100", 79.6, "9.0")
B200 = Gpu(0, "GPU-b", "NVIDIA B200", 179.0, "10.0")
PAGE = Path(__file__).parents[2] / "docs" / "optimizations.md"
BEGIN, END = "<!-- pairs -->\n", "<!-- /pairs -->\n"


def joined(a: str, b: str) -> dict | None:
    """Both as one choice; None where they are two words of one flag. Two kinds for two models are one word."""
    one, two = OPTIONS[a], OPTIONS[b]
    if not one.keys() & two.keys():
        return one | two
    if "quantize" in one and ("text:" in two["quantize"]) != ("text:" in one["quantize"]):
        return {"quantize": f"{one['quantize']},{two['quantize']}"}
    return None


def refusal(options: dict, gpu: Gpu | None) -> str:
    """On a machine with that GPU, Triton comes with PyTorch."""
    with ExitStack() as stack:
        for module in (norm_rope, compiler) if gpu else ():
            stack.enter_context(patch.object(module, "find_spec", lambda name: name))
        return opt.refuse(choices(**options), gpu).partition(" (chosen by")[0]


PAIRS = [(a, b) for a, b in combinations(OPTIONS, 2) if joined(a, b)]
CASES = [pytest.param(*p, marks=pytest.mark.slow if {"compile", "attention flex"} & {*p} else ()) for p in PAIRS]


def table() -> str:
    """Pairs that are refused, on a CPU and on an H100 (where each alone is not); all others work."""
    lines = ["| | on a CPU | on an H100 |", "|---|---|---|"]
    alone = {(name, gpu): refusal(OPTIONS[name], gpu) for name in OPTIONS for gpu in (None, H100)}
    for name in OPTIONS:
        cells = [f"refused: {alone[name, gpu]}" if alone[name, gpu] else "works" for gpu in (None, H100)]
        lines.append(f"| {name} | {cells[0]} | {cells[1].replace('works', 'not refused')} |")
    for a, b in PAIRS:
        cells = []
        for gpu in (None, H100):
            reason = refusal(joined(a, b), gpu)
            own = bool(alone[a, gpu] or alone[b, gpu])
            cells.append(
                "as alone"
                if own and reason in (alone[a, gpu], alone[b, gpu])
                else f"refused: {reason}"
                if reason
                else "works"
            )
        if any(cell.startswith("refused") for cell in cells):
            lines.append(f"| {a} + {b} | {cells[0]} | {cells[1].replace('works', 'not refused')} |")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def plain(tiny):
    return draw(tiny())


@pytest.fixture(autouse=True)
def traced_only(monkeypatch):
    """Graphs are traced and guarded as ever, but no code is generated for them: seconds instead of half a minute."""
    monkeypatch.setattr(Compile, "parse", classmethod(lambda cls, word: cls(word, "eager")))


def far(found, plain) -> float:
    return ((found - plain).abs().mean() / plain.abs().mean()).item()


LOSS = {"quantize": 0.3, "cache": 0.1, "progressive": 0.3}
"""The most that one may change latents after these steps, relative; others change them by rounding."""


@pytest.mark.parametrize("name", OPTIONS)
def test_each_alone_works_or_is_refused(tiny, plain, name):
    options = OPTIONS[name]
    if refusal(options, None):
        return
    made = tiny(**options)
    found = far(draw(made), plain)
    if name.startswith("quantize text"):
        made.encode = True
        found = far(draw(made), plain)
    lossy = sum(LOSS.get(key, 0) for key in options)
    assert (1e-4 if lossy else 0) <= found <= (lossy or 2e-5) or name == "fuse_qkv", found


@pytest.mark.parametrize(("a", "b"), CASES)
def test_every_pair_works_or_is_refused(tiny, plain, a, b):
    options = joined(a, b)
    if reason := refusal(options, None):
        assert any(word in reason for word in (a.split()[0], b.split()[0])), reason
        return
    made = tiny(**options)
    made.encode = "text:" in options.get("quantize", "")
    found = draw(made)
    if "compile" in options:
        torch._dynamo.reset()
    names = {
        key: name
        for key, name in (
            ("compile", "compile"),
            ("quantize", "quantize"),
            ("cache", "stepcache"),
            ("attention", "attention"),
            ("progressive", "progressive"),
        )
    }
    assert {names[key] for key in options if key in names} <= made.facts.keys(), "one of them was left out"
    assert made.facts["layout"]["fused_qkv"] == ("fuse_qkv" in options)
    assert ("0" in made.samples[0].pattern) == ("cache" in options)
    lossy = sum(LOSS.get(key, 0) for key in options)
    assert (1e-4 if lossy else 0) <= far(found, plain) <= (lossy or 2e-5)


def test_the_table_is_what_is_in_the_docs():
    text = PAGE.read_text("utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == table(), "python -m tests.opt.test_pairs writes it"


@pytest.mark.parametrize(
    ("gpu", "options", "words"),
    [
        (None, {"attention": "flash3"}, "--attention flash3: needs a CUDA GPU; on a CPU there are native, math, flex"),
        (None, {"offload": "text"}, "--offload text: there is nothing to offload on a CPU"),
        (H100, {"quantize": "8bit", "compile": True}, ""),
        (H100, {"quantize": "fp8"}, "--quantize fp8: without --compile"),
        (H100, {"quantize": "8bit", "offload": "model"}, "--quantize 8bit: quantized weights do not follow"),
        (
            H100,
            {"quantize": "text:8bit", "offload": "text"},
            "--quantize text:8bit: quantized weights do not follow --offload text",
        ),
        (H100, {"compile": True, "offload": "group"}, "--compile: blocks that come and go"),
        (H100, {"attention": "flash"}, "flash_attn is not installed"),
        (
            Gpu(0, "a", "NVIDIA A100", 79.6, "8.0"),
            {"attention": "flash3"},
            "needs compute capability 9.0; NVIDIA A100 has 8.0",
        ),
        (B200, {"attention": "flash3"}, "is for Hopper"),
        (Gpu(0, "a", "NVIDIA A100", 79.6, "8.0"), {"quantize": "fp8", "compile": True}, "needs compute capability 8.9"),
        (H100, {"quantize": "fp8,text:8bit", "compile": True, "cache": "first-block"}, ""),
        (
            H100,
            {"quantize": "mxfp8", "compile": True},
            "--quantize mxfp8: mxfp8 arithmetic needs a Blackwell GPU (compute capability 10.x or 12.x); NVIDIA H100 "
            "has 9.0; use fp8",
        ),
        (H100, {"quantize": "text:nvfp4"}, "nvfp4 arithmetic needs a Blackwell GPU"),
        (Gpu(0, "a", "NVIDIA A100", 79.6, "8.0"), {"quantize": "mxfp8", "compile": True}, "has 8.0; use int8"),
        (Gpu(0, "a", "NVIDIA A100", 79.6, "8.0"), {"quantize": "nvfp4", "compile": True}, "has 8.0; use 4bit"),
        (Gpu(0, "t", "NVIDIA Thor", 122.0, "11.0"), {"quantize": "nvfp4", "compile": True}, "has 11.0; use fp8"),
        (B200, {"quantize": "nvfp4"}, "--quantize nvfp4: without --compile torchao's layers are many times slower"),
        (B200, {"quantize": "nvfp4,text:mxfp8", "compile": True, "offload": "model"}, ""),
        (B200, {"quantize": "mxfp8", "compile": True, "offload": "group"}, "do not follow --offload group"),
        (Gpu(0, "b", "NVIDIA B300", 270.0, "10.3"), {"quantize": "mxfp8", "compile": True}, ""),
        (Gpu(0, "r", "NVIDIA RTX 5090", 31.8, "12.0"), {"quantize": "nvfp4,text:8bit", "compile": True}, ""),
        (H100, {"offload": "model", "quantize": "4bit"}, ""),
    ],
)
def test_what_a_gpu_refuses(gpu, options, words):
    reason = opt.refuse(choices(**options), gpu)
    assert words in reason if words else not reason


@pytest.mark.parametrize(("cuda", "refused"), [("12.6", True), ("12.8", False), ("13.0", False), ("", False)])
def test_block_formats_need_a_cublas_that_has_them(monkeypatch, cuda, refused):
    monkeypatch.setattr(blackwell, "cuda_version", lambda: cuda)
    reason = opt.refuse(choices(quantize="mxfp8", compile=True), B200)
    assert reason == (
        f"--quantize mxfp8: mxfp8 arithmetic needs a PyTorch for CUDA 12.8 or newer, and this one is for {cuda}; use "
        "fp8 (chosen by profile 'test', quality exact)"
        if refused
        else ""
    )
    assert not opt.refuse(choices(quantize="fp8", compile=True), B200)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attention": "fast"}, "--attention fast: one of auto, best, native"),
        ({"quantize": "2bit"}, "--quantize 2bit"),
        ({"quantize": "vae:8bit"}, "--quantize vae:8bit"),
        ({"cache": "magic"}, "--cache magic: one of none, first-block"),
        ({"cache": "first-block:"}, "threshold"),
        ({"cache": "first-block:nan"}, "threshold"),
        ({"cache": "taylorseer:-1"}, "threshold"),
        ({"offload": "disk"}, "--offload disk: one of none, text"),
    ],
)
def test_words_that_mean_nothing(options, words):
    with pytest.raises(SettingsError, match=words):
        choices(**options)


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    PAGE.write_text(text[: text.index(BEGIN) + len(BEGIN)] + table() + text[text.index(END) :], "utf-8")
