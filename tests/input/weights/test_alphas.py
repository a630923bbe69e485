"""Alphas that are beside a LoRA's tensors. Its metadata: test_lora.py; files that PEFT itself saved:
backends/diffusion/families/test_weights.py."""

from __future__ import annotations

import json

import pytest

from fastgen.config.settings import Engine, beside_lora
from fastgen.input import paths, weights
from fastgen.input.weights import alphas, lora
from fastgen.input.weights.safetensors import BadFile
from tests.input.weights.conftest import write

LAYERS = ("base_model.model.transformer_blocks.0.attn.to_q", "base_model.model.transformer_blocks.0.attn.to_k")
PAIRS = {f"{name}.lora_A.weight": (4, 128) for name in LAYERS} | {f"{name}.lora_B.weight": (128, 4) for name in LAYERS}
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "alpha_pattern": {"attn.to_k": 2}}
LOKR = {"peft_type": "LOKR", "r": 8, "alpha": 16, "rank_pattern": {"attn.to_k": 32}}


@pytest.fixture
def factors(tmp_path, model):
    """(config, tensors, name of the file) -> the factors of its layers, and the notes."""

    def run(config: str | None, tensors=PAIRS, name="adapter_model.safetensors"):
        path = write(tmp_path / name, tensors)
        if config is not None:
            (tmp_path / alphas.PEFT_CONFIG).write_text(config)
        found = lora.plan(alphas.read(path), model)
        assert weights.plan_lora(str(path), model) == found
        return [change.factor(None) for change in found.changes], found.notes

    return run


def test_those_of_peft_are_in_its_config(factors):
    for begun in (True, False, "gaussian"):
        assert factors(json.dumps(CONFIG | {"init_lora_weights": begun})) == ([4.0, 0.5], ())
    assert factors(json.dumps(CONFIG | {"use_rslora": True, "alpha_pattern": {}})) == ([8.0, 8.0], ())


def test_peft_divides_those_of_lokr_by_the_rank_in_the_config(factors):
    tensors = {f"{name}.lokr_w1": (4, 4) for name in LAYERS} | {f"{name}.lokr_w2": (32, 32) for name in LAYERS}
    assert factors(json.dumps(LOKR), tensors) == ([2.0, 0.5], ())


def test_a_file_of_peft_whose_config_is_missing_is_named(factors):
    found, notes = factors(None)
    assert (
        found == [1.0, 1.0] and "2 tensors such as base_model.model" in notes[0] and "adapter_config.json" in notes[0]
    )


def test_the_config_belongs_to_the_file_of_pefts_name_only(factors):
    assert factors(json.dumps(CONFIG), name="other.safetensors")[0] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"lora_alpha": "much"}', "cannot be read"),
        (json.dumps(CONFIG | {"fan_in_fan_out": True}), "fan_in_fan_out"),
        (json.dumps(CONFIG | {"init_lora_weights": "pissa_niter_4"}), "init_lora_weights pissa_niter_4, which changes"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused(factors, config, words):
    with pytest.raises(BadFile, match=words):
        factors(config)


def test_it_is_found_where_the_hubs_cache_links_to_both(tmp_path):
    for number, name in enumerate(("adapter_model.safetensors", alphas.PEFT_CONFIG)):
        (tmp_path / f"blob{number}").write_bytes(b"{}")
        (tmp_path / name).symlink_to(tmp_path / f"blob{number}")
    path = tmp_path / "adapter_model.safetensors"
    assert paths.lora(f"{path}:0.5") == (str(path), 0.5)
    assert beside_lora(path) == tmp_path / alphas.PEFT_CONFIG
    engine = Engine("float32", ((str(path), 0.5),), "", 64)
    before = engine.fingerprint(), engine.stamps()
    (tmp_path / "blob1").write_bytes(b'{"lora_alpha": 4}')
    assert engine.fingerprint() != before[0] and engine.stamps() != before[1], "other alphas make other images"
    (tmp_path / alphas.PEFT_CONFIG).unlink()
    assert paths.lora(str(path)) == (str(tmp_path / "blob0"), 1.0)
