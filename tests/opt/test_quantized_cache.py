"""Quantized weights of an earlier start: the same pictures without the full weights, and whatever happens to the
files."""

from __future__ import annotations

import errno
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fastgen import opt
from fastgen.backends.diffusion.families.flux1.family import Flux1
from fastgen.backends.diffusion.families.flux1.load import load
from fastgen.backends.diffusion.families.parts import _sources
from fastgen.backends.diffusion.prompts import PromptEncoder
from fastgen.config import profile
from fastgen.config.model_cards import TINY
from fastgen.config.optimizations import Optimizations, Quantize
from fastgen.errors import ModelError, SettingsError
from fastgen.input import weights
from fastgen.opt import quantize, quantized_cache, quantized_state
from fastgen.resolver import resolve
from tests.opt.conftest import draw

CPU = torch.device("cpu")
KINDS = (
    "8bit,text:8bit",
    "4bit",
    "int8,text:fp8",
    "fp8,text:int8",
    "text:8bit",
    "mxfp8,text:nvfp4",
    "nvfp4,text:mxfp8",
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty FASTGEN_HOME."""
    monkeypatch.setenv("FASTGEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(quantized_cache.KEEP, "1")
    torch.set_num_threads(1)
    return tmp_path / "home" / "quantized"


class Start:
    """The engine's model as a run would have it."""

    def __init__(self, **flags):
        settings = resolve("t2i", model="tiny", gpus="cpu", **flags)
        self.modules = load(settings, CPU)
        self.facts = opt.apply_all(self.modules, settings.optimizations)["quantize"]
        self.notes = [note for one in self.modules.quantized_cache.values() for note in one.notes]
        self.prompts = PromptEncoder(Flux1(self.modules, 64)).encode(
            ["a red circle on a blue background", "a small star"]
        )

    def came_from(self) -> set[str]:
        return {fact["from"] for fact in self.facts.values()}


@pytest.mark.parametrize(
    ("words", "dtype"),
    [*((words, "float32") for words in KINDS), ("8bit", "bfloat16"), ("4bit", "bfloat16"), ("nvfp4", "bfloat16")],
)
def test_the_next_start_reads_them_and_draws_the_same(home, monkeypatch, words, dtype):
    first = Start(quantize=words, dtype=dtype)
    want = draw(first)
    assert first.came_from() == {"made"} and all("kept for the next start" in note for note in first.notes)
    assert len(list(home.iterdir())) == len(first.facts) == words.count(",") + 1
    read = []
    _from_pretrained(monkeypatch, read)
    second = Start(quantize=words, dtype=dtype)
    assert second.came_from() == {"cache"} and not second.notes
    classes = {"transformer": "FluxTransformer2DModel", "text": "T5EncoderModel"}
    assert not {classes[name] for name in first.facts} & {*read} and "AutoencoderKL" in read
    assert (draw(second) == want).all()
    for a, b in zip(first.prompts, second.prompts, strict=True):
        assert (a.embeds == b.embeds).all()
    for name in first.facts:
        same = ("kind", "bytes", "of_bfloat16")
        assert [first.facts[name][key] for key in same] == [second.facts[name][key] for key in same]


def _from_pretrained(monkeypatch, read: list[str]) -> None:
    """Note down whose weights are read."""
    from diffusers import ModelMixin
    from transformers import PreTrainedModel

    for cls in (ModelMixin, PreTrainedModel):
        whole = cls.from_pretrained.__func__

        def noted(cls, *args, whole=whole, **named):
            read.append(cls.__name__)
            return whole(cls, *args, **named)

        monkeypatch.setattr(cls, "from_pretrained", classmethod(noted))


def test_fused_projections_are_kept_as_they_are(home, tmp_path):
    path = tmp_path / "fused.toml"
    text = (profile.FOLDER / "cpu-tiny.toml").read_text()
    assert "[opt.exact]" not in text
    path.write_text(text + "\n[opt.exact]\nfuse_qkv = true\n")
    want = draw(Start(quantize="int8", profile=path))
    plain = Start(quantize="int8")
    assert plain.came_from() == {"made"}, "other weights, another file"
    again = Start(quantize="int8", profile=path)
    assert again.came_from() == {"cache"} and (draw(again) == want).all()
    assert hasattr(again.modules.transformer.transformer_blocks[0].attn, "to_qkv")


@pytest.mark.parametrize("harm", ["cut", "empty", "bit", "zeros", "index", "foreign"])
def test_a_damaged_file_is_made_again(home, harm):
    want = draw(Start(quantize="8bit"))
    (path,) = home.iterdir()
    good = path.read_bytes()
    middle = len(good) // 2
    path.write_bytes(
        {
            "cut": good[:middle],
            "empty": b"",
            "bit": good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :],
            "zeros": good[:-4096] + bytes(4096),
            "index": good[:-3000] + bytes([good[-3000] ^ 1]) + good[-2999:],
            "foreign": b"version https://git-lfs.github.com/spec/v1\n" * 9,
        }[harm]
    )
    start = Start(quantize="8bit")
    assert (
        start.came_from() == {"made"} and "is damaged" in start.notes[0] and "kept for the next start" in start.notes[1]
    )
    assert path.read_bytes() == good and (draw(start) == want).all()
    assert Start(quantize="8bit").came_from() == {"cache"}


def test_a_full_disk_is_no_failure(home, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    start = Start(quantize="4bit")
    assert start.came_from() == {"made"} and "not kept" in start.notes[0] and "No space left" in start.notes[0]
    assert not list(home.iterdir())
    draw(start)
    monkeypatch.setattr(
        quantized_cache.shutil, "disk_usage", lambda place: quantized_cache.shutil._ntuple_diskusage(9, 9, 1 << 20)
    )
    assert "more than half of the" in Start(quantize="4bit").notes[0]


def test_too_little_memory_is_no_damage(home, monkeypatch):
    Start(quantize="4bit")

    def too_much(*arguments):
        raise MemoryError

    for place in ("read", "quantized_state.put_together"):
        with monkeypatch.context() as patch:
            patch.setattr(f"fastgen.opt.quantized_cache.{place}", too_much)
            with pytest.raises(MemoryError):
                Start(quantize="4bit")
    assert Start(quantize="4bit").came_from() == {"cache"}


def test_what_does_not_fit_is_removed(home, monkeypatch):
    Start(quantize="4bit")
    monkeypatch.setattr(quantized_state, "_named", lambda module: iter([("other", None)]))
    with pytest.raises(ModelError, match="it is removed, start again"):
        Start(quantize="4bit")
    assert not list(home.iterdir())


def test_a_home_that_cannot_be_written_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTGEN_HOME", str(tmp_path / "file"))
    assert "not kept" in Start(quantize="4bit").notes[0]


def test_how_much_is_kept(home, monkeypatch):
    monkeypatch.setenv(quantized_cache.KEEP, "0")
    assert Start(quantize="4bit").modules.quantized_cache == {} and not home.exists()
    monkeypatch.setenv(quantized_cache.KEEP, "much")
    with pytest.raises(SettingsError, match="FASTGEN_KEEP_QUANTIZED=much"):
        Start(quantize="4bit")
    monkeypatch.setenv(quantized_cache.KEEP, str(5.5e6 / 2**30))  # two of 8 bits, or one and others
    for words in ("int8", "fp8"):
        Start(quantize=words)
    for path in home.iterdir():
        os.utime(path, (time.time() - (100 if "int8" in path.name else 1000),) * 2)
    assert Start(quantize="fp8").came_from() == {"cache"}, "now it is the one used last"
    (home / "left-behind.weights.0badf00d").write_bytes(b"of a killed start")
    os.utime(home / "left-behind.weights.0badf00d", (0, 0))
    Start(quantize="8bit")
    assert sorted(path.name.split("-")[2] for path in home.iterdir()) == ["8bit", "fp8"]
    monkeypatch.setenv(quantized_cache.KEEP, "0.001")
    assert "allows 0.001 GiB" in Start(quantize="4bit").notes[0]


def test_what_a_file_belongs_to(home, lora_file, tmp_path):
    """All that decides what is in it is in its name."""

    def names(device=CPU, **flags):
        settings = resolve("t2i", model="tiny", gpus="cpu", **{"quantize": "8bit,text:8bit", **flags})
        engine = settings.engine
        plans = weights.plan(settings.model.path, engine.transformer, engine.loras)
        sources = _sources(settings, plans, {"transformer": "transformer", "text": "text_encoder_2"})
        return [quantized_cache._name(settings.optimizations, part, sources[part], "tiny", device) for part in sources]

    first, second = lora_file("transformer"), lora_file("transformer", seed=1)
    file = tmp_path / "transformer.safetensors"
    shutil.copy(TINY / "transformer" / "diffusion_pytorch_model.safetensors", file)
    plain = names()
    assert plain == names(size="64x64", cache="taylorseer", seed=3) == names(lora=[lora_file("text_encoder")])
    others = [
        names(dtype="bfloat16"),
        names(lora=[first]),
        names(lora=[f"{first}:0.5"]),
        names(lora=[second]),
        names(transformer=str(file)),
    ]
    assert len({tuple(one) for one in [plain, *others]}) == 6
    assert len({one[0] for one in [plain, *others]}) == 6 and {one[1] for one in others[1:]} == {plain[1]}
    assert names(torch.device("cuda:0"))[1] != plain[1]
    of_t5 = names(lora=[lora_file("text_encoder_2")])
    assert of_t5[0] == plain[0] and of_t5[1] != plain[1]


def test_two_that_start_together(home):
    """Each writes a file of its own and renames it: whichever comes last, it is whole."""
    start = Start(quantize="int8")
    (path,) = home.iterdir()
    path.unlink()
    tensors, about = quantized_state.take_apart(start.modules.transformer)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: quantized_cache.write(path, tensors, about), range(8)))
    assert [one.name for one in home.iterdir()] == [path.name] and Start(quantize="int8").came_from() == {"cache"}


def test_loras(home, lora_file):
    """Merged before quantization; what one changes besides is merged at every start."""
    want = draw(Start(quantize="int8", lora=[lora_file("transformer")]))
    again = Start(quantize="int8", lora=[lora_file("transformer")])
    assert again.came_from() == {"cache"} and (draw(again) == want).all()
    assert (draw(Start(quantize="int8")) != want).any()
    both = [Start(quantize="int8", lora=[lora_file("transformer", "text_encoder")]) for _ in range(2)]
    assert [one.came_from() for one in both] == [{"made"}, {"cache"}] and (draw(both[0]) == draw(both[1])).all()
    assert (both[1].prompts[0].pooled == both[0].prompts[0].pooled).all()
    assert (both[1].prompts[0].pooled != again.prompts[0].pooled).any()
    text = [Start(quantize="text:8bit", lora=[lora_file("text_encoder_2")]) for _ in range(2)]
    assert [one.came_from() for one in text] == [{"made"}, {"cache"}]
    assert (text[0].prompts[0].embeds == text[1].prompts[0].embeds).all()
    assert (text[0].prompts[0].embeds != Start(quantize="text:8bit").prompts[0].embeds).any()


@pytest.fixture
def lora_file(tmp_path):
    """lora_file(part, ..., seed) -> a LoRA that changes these parts of the embedded model."""
    from safetensors.torch import save_file

    places = {
        "transformer": ("transformer.transformer_blocks.0.attn.to_q", 128),
        "text_encoder": ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", 96),
        "text_encoder_2": ("text_encoder_2.encoder.block.0.layer.0.SelfAttention.q", 96),
    }

    def make(*parts, seed=0) -> str:
        torch.manual_seed(seed)
        tensors = {}
        for place, width in map(places.get, parts):
            tensors |= {
                f"{place}.lora_A.weight": torch.randn(4, width),
                f"{place}.lora_B.weight": torch.randn(width, 4),
            }
        path = tmp_path / f"{'-'.join(parts)}-{seed}.safetensors"
        save_file(tensors, path)
        return str(path)

    return make


def test_layers_before_and_after():
    """Taken apart and put together, every kind of layer computes the same to the bit, and shares what it shared."""
    torch.manual_seed(0)
    for kind in Quantize.kinds:
        whole = torch.nn.Sequential(
            torch.nn.Linear(128, 64), torch.nn.Linear(64, 128, bias=False), torch.nn.LayerNorm(128)
        )
        whole.eval().requires_grad_(False)
        with torch.device("meta"):
            empty = torch.nn.Sequential(
                torch.nn.Linear(128, 64), torch.nn.Linear(64, 128, bias=False), torch.nn.LayerNorm(128)
            )
        empty.eval().requires_grad_(False)
        quantize.replace(whole, kind, CPU, torch.float32)
        quantized_state.put_together(empty, *quantized_state.take_apart(whole), CPU)
        with torch.inference_mode():
            x = torch.randn(3, 128)
            assert (whole(x) == empty(x)).all() and type(whole[0]) is type(empty[0])
        assert not any(parameter.requires_grad for parameter in empty.parameters())
        with pytest.raises(ValueError, match="another model"):
            quantized_state.put_together(torch.nn.Linear(2, 2), {}, {"gain": ("plain",)}, CPU)


@pytest.mark.parametrize(
    ("away", "devices"),
    [((), ["meta", "meta"]), (["text"], ["meta", "cpu"]), (["transformer", "text"], ["cpu", "cpu"])],
)
def test_weights_that_are_not_needed_yet_are_read_into_main_memory(monkeypatch, away, devices):
    """Parts that take turns may not fit onto the device together."""
    found = []

    def read(path, device):
        found.append(device.type)
        return {}, {}

    monkeypatch.setattr(quantized_cache, "read", read)
    monkeypatch.setattr(quantized_cache.os, "utime", lambda path: None)
    chosen = Optimizations(quantize=Quantize.parse("4bit,text:4bit"))
    quantized_cache.find(chosen, {"transformer": {}, "text": {}}, "tiny", torch.device("meta"), away)
    assert found == devices
