"""Weights that visit the device: how often they are copied, and that what is computed with them stays the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastgen.config.families import FLUX1
from fastgen.config.optimizations import Offload
from fastgen.opt import offload, parked
from tests.opt.conftest import draw

META = torch.device("meta")
"""A device that is not main memory: copies to it can be counted."""


class Copies(TorchDispatchMode):
    """Bytes that go to the device, and back."""

    def __init__(self):
        super().__init__()
        self.there = self.back = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            self.there += args[0].nbytes if made.device == META != args[0].device else 0
            self.back += made.nbytes if args[0].device == META != made.device else 0
        return made


@pytest.fixture
def modules(tiny):
    """A copy that offload may take apart, whose device is not main memory."""
    made = copy.deepcopy(tiny().modules)
    made.device = META
    return made


def size(module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def where(modules) -> dict[str, str]:
    return {name: next(getattr(modules, name).parameters()).device.type for name in (*FLUX1.text, "transformer", "vae")}


def test_parts_take_turns_and_are_never_copied_back(modules):
    offload.apply(modules, Offload("model"))
    assert modules.away == (*FLUX1.text, "transformer", "vae") and set(where(modules).values()) == {"cpu"}
    weights = {name: parameter.clone() for name, parameter in modules.transformer.named_parameters()}
    with Copies() as copies:
        for _ in range(3):  # batches
            for _ in range(5):  # what needs the transformer is done together
                with offload.onload(modules, "transformer"):
                    assert where(modules)["transformer"] == "meta"
            assert where(modules)["transformer"] == "meta", "it stays until another part needs the place"
            with offload.onload(modules, "vae"):
                assert where(modules) == dict.fromkeys((*FLUX1.text, "transformer", "vae"), "cpu") | {"vae": "meta"}
            with offload.onload(modules):
                assert where(modules)["vae"] == "meta", "nothing is needed, so nothing moves"
    assert copies.there == 3 * (size(modules.transformer) + size(modules.vae)) and copies.back == 0
    with offload.onload(modules, *FLUX1.text):
        pass
    for name, parameter in modules.transformer.named_parameters():
        assert (parameter == weights[name]).all()


def test_text_encoders_leave_when_something_else_computes(modules):
    modules.vae.to("cpu")
    offload.apply(modules, Offload("text"))
    assert modules.away == FLUX1.text
    assert where(modules) == {"text_encoder": "cpu", "text_encoder_2": "cpu", "transformer": "meta", "vae": "meta"}
    with offload.onload(modules, *FLUX1.text):
        assert set(where(modules).values()) == {"meta"}
    with pytest.raises(ZeroDivisionError), offload.onload(modules, "vae"):
        assert where(modules)["text_encoder_2"] == "cpu"
        1 / 0  # noqa: B018


def test_tied_weights_stay_tied(modules):
    offload.apply(modules, Offload("text"))
    t5 = modules.text_encoder_2
    for names in (FLUX1.text, ("transformer",)):
        with offload.onload(modules, *names):
            assert t5.shared.weight is t5.encoder.embed_tokens.weight


@pytest.mark.parametrize("kind", ["4bit", "int8", "fp8", "mxfp8", "nvfp4"])
def test_quantized_weights_follow(tiny, kind):
    """Their scales too."""
    made = tiny(quantize=kind)
    want = draw(made)
    part = parked.Parked(made.modules.transformer, torch.device("cpu"), pinned=False)
    layer = made.modules.transformer.transformer_blocks[0].attn.to_q

    def tensors() -> set[int]:
        weight = layer.weight
        found = [weight.data, weight.quant_state.absmax] if kind == "4bit" else [weight.qdata, weight.scale]
        found += [weight.outer] if kind == "nvfp4" else []
        return {tensor.data_ptr() for tensor in found}

    home = tensors()
    part.come()
    assert not home & tensors() and (draw(made) == want).all()
    part.leave()
    assert home == tensors() and (draw(made) == want).all()


@pytest.mark.parametrize("options", [{}, {"cache": "first-block:0.4"}], ids=str)
@pytest.mark.parametrize("ring", [1, 2, 3])
def test_blocks_come_before_they_are_called(tiny, monkeypatch, options, ring):
    """On a CPU the ring is main memory too; a block that computed with another one's weights would be seen."""
    want = draw(tiny(**options), steps=8)
    monkeypatch.setattr(parked, "RING", ring)
    made = tiny(**options)
    modules = made.modules
    offload.apply(modules, Offload("group"))
    stream, blocks = modules.block_stream, 6
    assert (draw(made, steps=8) == want).all()
    calls = sum(blocks if full == "1" else 1 for full in made.samples[0].pattern or "1" * 8)
    if not options and ring == 2:
        assert stream.in_time == calls - 1, "all but the very first were on their way"
        assert stream.copies == calls + 1, "each once per step, and the one that comes next"
    assert stream.in_time >= (calls - 8 if ring > 1 else 0)
    used = {parameter.untyped_storage().data_ptr() for parameter in modules.transformer.transformer_blocks.parameters()}
    homes = {home.untyped_storage().data_ptr() for home in stream._home}
    assert used <= homes | {room.untyped_storage().data_ptr() for room in stream._ring}


def test_the_ring_makes_room_for_the_text_encoders(tiny):
    """Two blocks of FLUX.1 are 1.3 GiB, which a GPU of 12 GB does not have besides T5."""
    want = draw(tiny())
    made = tiny()
    modules = made.modules
    offload.apply(modules, Offload("group"))
    stream = modules.block_stream
    homes = {home.untyped_storage().data_ptr() for home in stream._home}

    def used() -> set[int]:
        blocks = (*modules.transformer.transformer_blocks, *modules.transformer.single_transformer_blocks)
        return {tensor.untyped_storage().data_ptr() for block in blocks for tensor in block.parameters()}

    assert not stream._ring and used() == homes
    for _ in range(2):
        assert (draw(made) == want).all() and len(stream._ring) == 2 and used() != homes
        with offload.onload(modules, "vae"):
            assert len(stream._ring) == 2, "the VAE has room beside it"
        with offload.onload(modules, *FLUX1.text):
            assert not stream._ring and used() == homes


def test_the_order_on_the_device(tiny, monkeypatch):
    """A block waits for its copy, and the next copy is enqueued before it computes."""
    made = tiny()
    said = []

    class Recorder(parked.Streams):
        def copying(self, place):
            said.append(f"copy into {place}")
            return super().copying(place)

        def wait_for_copy(self, place):
            said.append(f"wait for {place}")

        def computed(self, place):
            said.append(f"computed {place}")

    monkeypatch.setattr(parked, "Streams", Recorder)
    offload.apply(made.modules, Offload("group"))
    said.clear()
    draw(made, steps=1)
    assert said[:2] == ["computed 0", "computed 1"], "the ring's memory may have been something else's"
    assert said[2:10] == [
        *("copy into 0", "wait for 0", "copy into 1", "computed 0"),
        *("wait for 1", "copy into 0", "computed 1", "wait for 0"),
    ]
    assert said[-2:] == ["copy into 0", "computed 1"], "the first block of the next step"


def test_the_loop_brings_the_transformer(tiny):
    """Not only its blocks: what embeds and what ends too."""
    made = tiny()
    offload.apply(made.modules, Offload("model"))
    draw(made)
    transformer = made.modules.parked["transformer"]
    assert transformer._is_there


@pytest.mark.parametrize(
    ("sizes", "engines", "may"), [(1.3, 1, True), (1.2, 1, False), (5.1, 4, True), (4.9, 4, False)]
)
def test_little_main_memory_is_not_pinned(tiny, monkeypatch, sizes, engines, may):
    """A transformer of 22 GiB can be pinned on a machine with 32 GB, and eight of them with 256 GB."""
    transformer = tiny().modules.transformer
    monkeypatch.setattr(parked, "free_memory", lambda: sizes * size(transformer))
    assert parked.may_pin(transformer, engines) == may


def test_free_memory_is_known_here():
    assert 1 << 20 < parked.free_memory() < 1 << 50
