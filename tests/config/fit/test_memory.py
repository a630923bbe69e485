"""The memory model is the sum of its terms, and its constants are what full-size modules were counted to need."""

from __future__ import annotations

import weakref

import pytest
from msgspec.structs import replace

from fastgen.bench import synthetic
from fastgen.config.fit import memory
from fastgen.config.fit.memory import GIB, Work, need
from fastgen.config.fit.published import SIZES
from fastgen.config.optimizations import Compile, Offload, Optimizations, Quantize, StepCache
from fastgen.resolver.sizes import of_flux

DEV = of_flux(synthetic.TRANSFORMER, synthetic.CLIP, synthetic.T5, synthetic.VAE)
ONE = Work(batch=1, image_tokens=4096, reference_tokens=0, text_tokens=512, pixels=1024 * 1024)
EDIT = replace(ONE, reference_tokens=4096)


def choices(quantize: str = "none", offload: str = "none", **others) -> Optimizations:
    return Optimizations(quantize=Quantize.parse(quantize), offload=Offload(offload), **others)


@pytest.mark.parametrize(
    ("quantize", "offload", "phase", "weights", "host"),
    [
        ("none", "none", "decoding", 31.4, 0.0),
        ("none", "text", "encoding prompts", 31.4, 0.0),
        ("none", "model", "denoising", 22.2, 22.2),
        ("none", "group", "encoding prompts", 9.4, 22.2),
        ("fp8", "none", "decoding", 20.4, 0.0),
        ("fp8", "model", "denoising", 11.1, 11.1),
        ("4bit", "model", "encoding prompts", 9.1, 6.3),
        ("4bit,text:4bit", "text", "encoding prompts", 10.7, 4.2),
    ],
)
def test_the_phase_that_needs_most(quantize, offload, phase, weights, host):
    found = need(DEV, ONE, choices(quantize, offload), 2)
    assert (found.phase, round(found.terms["weights"], 1), round(found.host_gib, 1)) == (phase, weights, host)
    assert found.gib == pytest.approx(sum(found.terms.values()))
    assert found.gib - found.least_gib == pytest.approx(found.terms["margin"])
    assert f"while {phase}: weights {weights}" in found.explain()


def test_each_term():
    plain = need(DEV, ONE, choices(), 2)
    assert plain.terms["activations"] == pytest.approx(2.2, abs=0.02)  # as rehearsed for 1024x1024
    assert plain.terms["CUDA"] == pytest.approx(0.8) and plain.terms["prompts"] == 1.0
    assert plain.terms["margin"] == pytest.approx(0.01 * plain.terms["weights"] + 0.1 * plain.terms["activations"])
    assert need(DEV, ONE, choices(compile=Compile(True)), 2).terms["CUDA"] == pytest.approx(1.1)
    assert need(DEV, ONE, choices("none", "text"), 2).terms["prompts"] == 0.0
    wide = need(DEV, ONE, choices(), 4)
    assert wide.terms["weights"] == pytest.approx(2 * plain.terms["weights"])
    # a large batch makes denoising the widest phase: 4608 tokens of 18 widths each
    many = need(DEV, replace(ONE, batch=8), choices(), 2)
    assert many.phase == "denoising" and many.terms["activations"] == pytest.approx(8 * 4608 * 18 * 3072 * 2 / GIB)
    edits = need(DEV, replace(EDIT, batch=8), choices(), 2)
    assert edits.terms["activations"] == pytest.approx(8 * 8704 * 18 * 3072 * 2 / GIB)
    cached = need(DEV, replace(ONE, batch=8), choices(stepcache=StepCache.parse("taylorseer")), 2)
    states = (2 * 2 * 8 * 2 + 8) * 4096 * 3072 / GIB
    assert cached.terms["activations"] - many.terms["activations"] == pytest.approx(states)


def test_4_bits_are_unpacked_a_layer_at_a_time():
    """As bitsandbytes does: 6144 x 55296 weights of FLUX.2-dev's widest layer are 0.63 GiB in bfloat16."""
    sizes = SIZES["black-forest-labs/FLUX.2-dev"]
    found = need(sizes, ONE, choices("4bit,text:4bit", "model"), 2)
    assert found.phase == "denoising"
    assert found.terms["activations"] == pytest.approx((4608 * 18 * 6144 + 6144 * 55296) * 2 / GIB)
    text = [need(sizes, replace(ONE, pixels=1), choices(f"4bit,text:{kind}", "none"), 2) for kind in ("4bit", "8bit")]
    assert {one.phase for one in text} == {"encoding prompts"}
    assert text[0].terms["activations"] - text[1].terms["activations"] == pytest.approx(5120 * 32768 * 2 / GIB)


def test_kept_references_take_room_in_every_block():
    """Keys and values, of 4096 tokens of 4096 in 32 blocks of FLUX.2-klein-9B; twice while they are joined anew."""
    sizes, four = SIZES["black-forest-labs/FLUX.2-klein-9B"], replace(EDIT, batch=4)
    plain, kept = (need(sizes, replace(four, kept_tokens=count), choices(), 2) for count in (0, 4096))
    assert plain.phase == kept.phase == "denoising"
    more = kept.terms["activations"] - plain.terms["activations"]
    assert more == pytest.approx(4 * 2 * 2 * 4096 * 4096 * 32 * 2 / GIB)


def test_the_rehearsed_peak_is_covered():
    """34.3 GiB for FLUX.1-dev in bfloat16 and 23.2 in fp8, with a context of 0.6, no workspaces and one prompt."""
    for quantize, peak in (("none", 34.3), ("fp8", 23.2)):
        found = need(DEV, ONE, choices(quantize), 2)
        assert found.least_gib - found.terms["prompts"] - memory.WORKSPACES_GIB + 0.1 == pytest.approx(peak, abs=0.15)


def test_the_prompts_that_are_encoded_together():
    from fastgen.backends.diffusion import prompts

    assert prompts.CHUNK == memory.PROMPTS_TOGETHER


@pytest.fixture(scope="module")
def counted():
    """counted(module, run): bytes that a run of a module without data has alive at its peak, besides the weights."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Count(TorchDispatchMode):
        def __init__(self, module):
            super().__init__()
            self.now = self.peak = 0
            self.known = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if not isinstance(tensor, torch.Tensor) or tensor.untyped_storage()._cdata in self.known:
                    continue
                storage = tensor.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
            return out

        def gone(self, key, size):
            self.known.discard(key)
            self.now -= size

    def counted(module, run) -> int:
        count = Count(module)
        with torch.no_grad(), count:
            run()
        return count.peak

    return counted


@pytest.fixture
def no_data():
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with FakeTensorMode():
        yield torch
    torch.set_default_dtype(before)


@pytest.mark.parametrize(("batch", "reference"), [(1, 0), (4, 0), (1, 4096)])
def test_what_a_step_needs(counted, no_data, batch, reference):
    from diffusers import FluxTransformer2DModel

    torch = no_data
    config = synthetic.TRANSFORMER | {"num_layers": 2, "num_single_layers": 2}
    model = FluxTransformer2DModel.from_config(config).eval()
    image, text = 4096 + reference, 512

    def run() -> None:
        hidden, prompt = torch.empty(batch, image, 3072), torch.empty(batch, text, 3072)
        rope = tuple(torch.empty(image + text, 128, dtype=torch.float32) for _ in range(2))
        for block in (*model.transformer_blocks, *model.single_transformer_blocks):
            prompt, hidden = block(
                hidden_states=hidden,
                encoder_hidden_states=prompt,
                temb=torch.empty(batch, 3072),
                image_rotary_emb=rope,
            )

    reckoned = batch * (image + text) * memory.STEP_VALUES * 3072 * 2
    assert 0.85 * reckoned < counted(model, run) <= reckoned


def test_what_prompts_need(counted, no_data):
    from transformers import T5Config, T5EncoderModel

    torch = no_data
    model = T5EncoderModel(T5Config(**synthetic.T5 | {"num_layers": 2})).eval()
    ids = torch.empty(memory.PROMPTS_TOGETHER, 512, dtype=torch.long)
    reckoned = memory.PROMPTS_TOGETHER * 512 * memory.TEXT_VALUES * 10240 * 2
    assert 0.85 * reckoned < counted(model, lambda: model(ids)) <= reckoned


def test_what_pixels_need(counted, no_data):
    from diffusers import AutoencoderKL

    torch = no_data
    model = AutoencoderKL.from_config(synthetic.VAE).eval()
    reckoned = 1024 * 1024 * memory.PIXEL_VALUES * 2
    decoded = counted(model, lambda: model.decode(torch.empty(1, 16, 128, 128), return_dict=False)[0].float())
    encoded = counted(model, lambda: model.encode(torch.empty(1, 3, 1024, 1024)).latent_dist.mode())
    # Here attention keeps no scores. Where it does, they are at most two matrices of 16384 x 16384.
    assert encoded < decoded < reckoned <= decoded + 2 * 16384**2 * 2
