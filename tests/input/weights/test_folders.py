"""Shapes from the headers of a model folder."""

from __future__ import annotations

import json

import pytest

from fastgen.errors import ModelError
from fastgen.input.weights.folders import read_shapes
from tests.input.weights.conftest import write


def test_one_file_several_and_none(tmp_path):
    with pytest.raises(ModelError, match=r"no \.safetensors files in"):
        read_shapes(tmp_path)
    write(tmp_path / "a.safetensors", {"a": (2, 3)})
    assert read_shapes(tmp_path) == {"a": (2, 3)}
    write(tmp_path / "b.safetensors", {"b": (4,)})
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_shapes(tmp_path) == {"a": (2, 3), "b": (4,)}


def test_other_variants_do_not_count(tmp_path):
    write(tmp_path / "diffusion_pytorch_model.safetensors", {"a": (2, 3)})
    write(tmp_path / "diffusion_pytorch_model.fp16.safetensors", {"a": (2, 3), "b": (1,)})
    assert read_shapes(tmp_path) == {"a": (2, 3)}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match=r"model\.safetensors is not a \.safetensors file"):
        read_shapes(tmp_path)
