"""`--attention best`: the first kernel of the GPU's list that really works."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Attention, Optimizations
from fastgen.errors import SettingsError
from fastgen.opt import attention
from tests.opt.conftest import draw

H100 = Gpu(0, "GPU-a", "NVIDIA H100", 79.6, "9.0")
BEST = Attention("best")


@pytest.fixture
def hopper(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    for name in ("KERNELS_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return tmp_path


def test_it_passes_over_what_does_not_work_and_says_why(tiny, hopper):
    made = tiny()
    want = draw(made)
    facts = attention.apply(made.modules, BEST)
    assert facts["kernel"] == "native" and facts["note"] == "attention by native"
    assert list(facts["passed_over"]) == ["flash3", "flash3_hub", "cudnn", "flash"]
    assert facts["passed_over"]["flash3"] == "the package flash_attn_3 is not installed"
    assert "Error: " in facts["passed_over"]["cudnn"]
    assert (draw(made) == want).all()


def test_a_kernel_that_computes_something_else_is_passed_over(tiny, hopper, monkeypatch):
    made = tiny()
    monkeypatch.setitem(attention.BEST, "9.", ("cudnn", "math", "native"))
    # Under cudnn's name a kernel that runs, but is wrong.
    monkeypatch.setitem(attention.NAMES, "cudnn", "flex")
    import diffusers.models.attention_dispatch as dispatch

    whole = dispatch.dispatch_attention_fn

    def wrong(query, key, value, *rest, backend=None, **more):
        found = whole(query, key, value, *rest, backend=None if "flex" in str(backend).lower() else backend, **more)
        return found * 1.1 if "flex" in str(backend).lower() else found

    monkeypatch.setattr(dispatch, "dispatch_attention_fn", wrong)
    facts = attention.apply(made.modules, BEST)
    assert facts["kernel"] == "math" and "away from PyTorch's own" in facts["passed_over"]["cudnn"]
    with pytest.raises(SettingsError, match="--attention cudnn: does not work here: RuntimeError: its result is up to"):
        attention.apply(made.modules, Attention("cudnn"))


@pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9", "9.0", "10.0", "12.0"])
def test_every_list_ends_with_pytorchs_own(capability):
    names = next(names for beginning, names in attention.BEST.items() if capability.startswith(beginning))
    assert names[-1] == "native" and {*names} <= {*Attention.kernels}
    gpu = Gpu(0, "a", "a GPU", 80.0, capability)
    own = [attention.refuse(gpu, Attention(name), Optimizations()) for name in names]
    assert not any(reason and "compute capability" in reason for reason in own)


def test_kernels_of_the_hub_must_be_there_before(hopper, monkeypatch):
    monkeypatch.setattr(attention, "find_spec", lambda name: ModuleType(name))
    reason = attention.refuse(H100, Attention("flash3_hub"), Optimizations())
    assert "get_kernel('kernels-community/flash-attn3', version=1)" in reason
    (hopper / "hub" / "models--kernels-community--flash-attn3" / "snapshots").mkdir(parents=True)
    assert attention.refuse(H100, Attention("flash3_hub"), Optimizations()) is None
    assert attention.refuse(H100, BEST, Optimizations()) is None
    assert "needs a CUDA GPU" in attention.refuse(None, BEST, Optimizations())


def test_the_hub_is_asked_for_what_diffusers_asks_for():
    from diffusers.models.attention_dispatch import _HUB_KERNELS_REGISTRY, AttentionBackendName

    for name, (repository, version) in attention.HUB.items():
        config = _HUB_KERNELS_REGISTRY[AttentionBackendName(attention.NAMES[name])]
        assert (config.repo_id, config.version) == (repository, version)


def test_names_are_diffusers_names():
    from diffusers.models.attention_dispatch import AttentionBackendName

    assert {*attention.NAMES.values()} <= {backend.value for backend in AttentionBackendName}
    assert {*attention.NAMES} == {*Attention.kernels}
