"""The files that bad inputs name: damaged images, weights, tables, profiles. Written once into a folder."""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
import zlib
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from tests.input.weights.conftest import write as write_weights

TEXTS = {
    "rows.jsonl": '{"prompt": "a fox"}\n',
    "empty.jsonl": "",
    "blank.jsonl": "\n \n\n",
    "rows.docx": "a fox\n",
    "rows.xlsx": "prompt\na fox\n",
    "none.csv": "\n\n",
    "none.parquet": "PAR1",
    "object.json": '{"prompt": "a"}',
    "text.json": '"a fox"',
    "cut.json": '[{"prompt": "a"',
    "two.json": '[{"prompt": "a"}]\n[{"prompt": "b"}]',
    "lines.json": '{"prompt": "a"}\n{"prompt": "b"}\n',
    "none.json": "[]",
    "brackets.json": "[" * 100_000,
    "file": "",
    "text.png": "no picture",
    "page.png": "<!doctype html><title>404</title>",
    "drawing.svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
    "program.png": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(x) run\n",
    "pointer.png": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    "broken.toml": "x =",
}
PROFILE = '[match]\nfamily = "flux"\n[measured]\nstatus = "unmeasured"\n'
BATCH = '[batch]\n"512x512" = 1\n'
PROFILES = {
    "empty": "",
    "no-batch": PROFILE,
    "size": PROFILE + "[batch]\n512 = 1\n",
    "zero": PROFILE + '[batch]\n"512x512" = 0\n',
    "word": PROFILE + '[batch]\n"512x512" = "many"\n',
    "status": PROFILE.replace("unmeasured", "maybe") + BATCH,
    "proof": PROFILE.replace("unmeasured", "measured") + BATCH,
    "option": PROFILE + BATCH + "[opt.exact]\nnonesuch = 1\n",
    "cache": PROFILE + BATCH + '[opt.exact]\ncache = "nonesuch"\n',
    "section": PROFILE + BATCH + "[extra]\na = 1\n",
}
SERVICES = {
    "service": "[nonesuch]\n",
    "field": "[openai.models.m]\nnonesuch = 1\n",
    "type": '[openai.models.m]\nprice = "cheap"\n',
    "table": "[openai]\nmodels = 1\n",
    "date": "as_of = 1\n",
}
SCHEMAS = {
    "type": '{"type": "nonesuch"}',
    "list": "[]",
    "required": '{"type": "object", "required": "a"}',
    "elsewhere": '{"$ref": "http://127.0.0.1:9/schema.json"}',
    "nowhere": '{"properties": {"a": {"$ref": "#/$defs/nonesuch"}}}',
    "pattern": '{"pattern": "("}',
    "more": '{"type": "object"} and more',
    "deep": "[" * 100_000,
}


def write_files(folder: Path) -> None:
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    for prefix, suffix, texts in (("profile", "toml", PROFILES), ("services", "toml", SERVICES)):
        for name, text in texts.items():
            (folder / f"{prefix}-{name}.{suffix}").write_text(text)
    for name, text in SCHEMAS.items():
        (folder / f"schema-{name}.json").write_text(text)
    for name in ("latin.toml", "latin.json"):
        (folder / name).write_bytes(b"# caf\xe9\n")
    _write_pictures(folder)
    _write_damaged(folder)
    _write_odd_files(folder)
    _write_masks(folder)
    _write_weights(folder)
    (folder / "model").mkdir()
    (folder / "model" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "half-model").mkdir()
    (folder / "half-model" / "model_index.json").write_text('{"_class_name": "FluxPipeline"')


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def promising(width: int, height: int, more: bytes = b"") -> bytes:
    """A PNG that promises that many pixels and has none."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _write_pictures(folder: Path) -> None:
    noise = Image.effect_noise((128, 128), 60).convert("RGB")
    noise.save(folder / "good.png")
    for name in ("png", "jpg", "webp", "gif", "bmp", "tiff"):
        noise.save(folder / f"whole.{name}")
        data = (folder / f"whole.{name}").read_bytes()
        (folder / f"cut.{name}").write_bytes(data[: len(data) // 3])
    Image.effect_noise((640, 16), 60).convert("RGB").save(folder / "strip.png")
    noise.save(folder / "profile.png", icc_profile=b"junk")
    Image.new("F", (64, 64)).save(folder / "float.tiff")
    Image.new("I", (64, 64), 1 << 20).save(folder / "deep.tiff")


def _write_damaged(folder: Path) -> None:
    data = bytearray((folder / "good.png").read_bytes())
    (folder / "header.png").write_bytes(data[:20])
    (folder / "signature.png").write_bytes(data[:8])
    (folder / "zeros.png").write_bytes(bytes(1000))
    (folder / "swapped.png").write_bytes(data[:100] + bytes(200) + data[300:])
    data[16:20] = (64).to_bytes(4, "big")  # another width, the old checksum
    (folder / "checksum.png").write_bytes(data)
    (folder / "no-pixels.png").write_bytes(promising(0, 0))
    (folder / "empty.png").touch()
    (folder / "archive.png").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    (folder / "film.png").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    (folder / "bomb.png").write_bytes(promising(60_000, 60_000))
    (folder / "large.png").write_bytes(promising(10_001, 10_000))
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * (1 << 27)))
    (folder / "text-bomb.png").write_bytes(promising(64, 64, text))
    (folder / "loop.tiff").write_bytes(b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\xff\xff\xff\xff\x08\0\0\0\x08\0\0\0")


def _write_odd_files(folder: Path) -> None:
    (folder / "folder.png").mkdir()
    Image.new("RGB", (64, 64)).save(folder / "sparse.png")
    os.truncate(folder / "sparse.png", (1 << 30) + 1)
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.jsonl")
    os.mkfifo(folder / "pipe.safetensors")
    for name, target in {
        "link-to-pipe.png": "pipe.png",
        "link-to-device.png": "/dev/zero",
        "dangling.png": "nowhere.png",
        "circle.png": "circle.png",
    }.items():
        (folder / name).symlink_to(target)
    here = os.getcwd()
    os.chdir(folder)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
    os.chdir(here)


def _write_masks(folder: Path) -> None:
    Image.new("L", (128, 128), 0).save(folder / "black.png")
    Image.new("L", (128, 128), 255).save(folder / "white.png")
    Image.new("L", (256, 128), 255).save(folder / "wide-mask.png")
    Image.new("L", (128, 128), 100).save(folder / "grey.png")
    Image.new("RGBA", (128, 128), (0, 0, 0, 0)).save(folder / "clear.png")
    hole = Image.new("RGBA", (128, 128), "black")
    hole.paste((0, 0, 0, 0), (30, 30, 60, 60))
    hole.save(folder / "hole.png")
    soft = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(soft).ellipse((40, 40, 90, 90), 255)
    soft.filter(ImageFilter.GaussianBlur(9)).save(folder / "soft.png")


Q = "transformer.transformer_blocks.0.attn.to_q"


def _pair(name: str, rank: int = 4, inputs: int = 128, outputs: int = 128) -> dict[str, tuple]:
    return {f"{name}.lora_A.weight": (rank, inputs), f"{name}.lora_B.weight": (outputs, rank)}


WEIGHTS: dict[str, tuple[dict[str, tuple], dict[str, str] | None]] = {
    "nothing": ({}, None),
    "lokr": ({"lora_unet_double_blocks_0_img_attn_qkv.lokr_w1": (8, 8)}, None),
    "loha": ({"lora_unet_double_blocks_0_img_attn_qkv.hada_w1_a": (8, 8)}, None),
    "oft": ({f"{Q}.oft_blocks": (4, 8, 8)}, None),
    "sdxl": (_pair("lora_unet_down_blocks_1_attentions_0_proj_in"), None),
    "wide": (_pair(Q, inputs=3072, outputs=3072), None),
    "rank": ({f"{Q}.lora_A.weight": (4, 128), f"{Q}.lora_B.weight": (128, 8)}, None),
    "half": ({f"{Q}.lora_A.weight": (4, 128)}, None),
    "block": (_pair("transformer.transformer_blocks.99.attn.to_q"), None),
    "extra": (_pair(Q) | {"nonesuch.weight": (3, 3)}, None),
    "whole": ({"transformer_blocks.0.attn.to_q.weight": (128, 128)}, None),
    "metadata": (_pair(Q), {"lora_adapter_metadata": "{"}),
    "good": (_pair(Q), None),
}


def _write_weights(folder: Path) -> None:
    for name, (tensors, metadata) in WEIGHTS.items():
        write_weights(folder / f"{name}.safetensors", tensors, metadata)
    data = (folder / "good.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(data[:-100])
    (folder / "cut-header.safetensors").write_bytes(data[:40])
    (folder / "short.safetensors").write_bytes(data[:5])
    (folder / "huge-header.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + data[8:])
    (folder / "page.safetensors").write_text("<!doctype html><title>404</title>" * 10)
    (folder / "pickle.pt").write_bytes(pickle.dumps({}))
    (folder / "pickle.safetensors").write_bytes(pickle.dumps({}))
    (folder / "archive.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    for name, header in {
        "list": b"[1]",
        "types": json.dumps({"a": {"dtype": "F32", "shape": "wide", "data_offsets": [0, 4]}}).encode(),
        "outside": json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**9]}}).encode(),
        "deep": b"[" * 100_000,
        "negative": json.dumps({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode(),
    }.items():
        (folder / f"header-{name}.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
