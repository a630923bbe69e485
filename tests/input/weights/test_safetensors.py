"""What is not a .safetensors file, or a damaged one, is said before anything opens it."""

from __future__ import annotations

import struct

import pytest

from fastgen.input.weights.safetensors import BadFile, Tensor, read_header
from tests.input.weights.conftest import write


def test_names_types_and_shapes(file):
    header = read_header(file({"a": (2, 3), "b": ("BF16", ()), "c": ("F8_E4M3", (0,))}, {"format": "pt"}))
    assert header.tensors == {
        "a": Tensor("F32", (2, 3)),
        "b": Tensor("BF16", ()),
        "c": Tensor("F8_E4M3", (0,)),
    }
    assert header.metadata == {"format": "pt"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a .safetensors file"),
        (b"a few", "is not a .safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is not a .safetensors file"),
        (struct.pack("<Q", 2**62) + b"{}", "is not a .safetensors file"),
        (struct.pack("<Q", 9) + b"not JSON!", "is not a .safetensors file, or is damaged"),
        (struct.pack("<Q", 4) + b"null", "its header is damaged"),
        (struct.pack("<Q", 9) + b'{"a": {}}', "its header is damaged"),
        (b"GGUF" + bytes(99), "is a GGUF file, which is read for --transformer only"),
        (b"PK\x03\x04" + bytes(99), "is a pickle"),
        (b"\x80\x02}q\x00." + bytes(99), "is a pickle"),
    ],
)
def test_what_is_none(tmp_path, content, words):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(BadFile, match=words):
        read_header(tmp_path / "a.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt"])
def test_a_pickle_is_refused_by_its_name_and_never_opened(tmp_path, suffix):
    path = write(tmp_path / f"lora{suffix}", {"a": (1,)})
    with pytest.raises(BadFile, match=r"can run any code.*Use the \.safetensors version, or convert .* save_file"):
        read_header(path)


def test_a_tensor_that_is_cut_off(file):
    path = file({"a": (2, 2), "b": (8, 8)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadFile, match="b is cut off"):
        read_header(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BadFile, match="No such file"):
        read_header(tmp_path / "none.safetensors")
