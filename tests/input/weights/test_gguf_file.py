"""GGUF files are read by their header, or refused with the fix. Whole ones are read in
`tests/backends/diffusion/families/test_weights.py`."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fastgen.errors import SettingsError
from fastgen.input.weights.gguf_file import is_gguf, read_gguf
from fastgen.input.weights.safetensors import BadFile
from fastgen.resolver import resolve


@pytest.fixture
def file(tmp_path):
    """file(type, shape in bytes) -> path of a file with one tensor."""
    import gguf

    def write(kind, shape):
        writer = gguf.GGUFWriter(tmp_path / "a.gguf", "flux")
        writer.add_tensor("double_blocks.0.img_attn.proj.weight", np.zeros(shape, np.uint8), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / "a.gguf"

    write.types = gguf.GGMLQuantizationType
    return write


def test_names_types_and_shapes(file, tmp_path):
    path = file(file.types.Q8_0, (4, 68))  # two blocks of 34 bytes for 32 values each
    ((name, tensor),) = read_gguf(path).tensors.items()
    assert (name, tensor.dtype, tensor.shape) == ("double_blocks.0.img_attn.proj.weight", "GGUF Q8_0", (4, 64))
    assert is_gguf(path) and not is_gguf(tmp_path) and not is_gguf(tmp_path / "none")


def test_what_is_refused_and_why(file, tmp_path, monkeypatch):
    path = file(file.types.IQ2_XXS, (4, 66))
    with pytest.raises(BadFile, match=r"img_attn\.proj\.weight as IQ2_XXS; types that are read are F32, .* Q6_K"):
        read_gguf(path)
    (tmp_path / "b.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(SettingsError, match=r"--transformer .*b\.gguf: is a damaged GGUF file .* download it again"):
        resolve("t2i", model="tiny", gpus="cpu", transformer=str(tmp_path / "b.gguf"))
    with pytest.raises(SettingsError, match=r"--transformer .*a\.gguf: has double_blocks"):
        resolve("t2i", model="tiny", gpus="cpu", transformer=str(path))
    with pytest.raises(SettingsError, match=r"--lora .*a\.gguf: is a GGUF file, which is read for --transformer only"):
        resolve("t2i", model="tiny", gpus="cpu", lora=[str(path)])
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(SettingsError, match=r"is a GGUF file; to read it: pip install 'fastgen\[gguf\]'"):
        resolve("t2i", model="tiny", gpus="cpu", transformer=str(path))
