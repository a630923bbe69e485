"""Calls from Python that cannot be meant, and rows with values that JSON does not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import fastgen
from tests.scenarios.bad_inputs.case import Call, Row

FAKE = {"input": "rows.jsonl", "out": "out", "backend": "fake", "gpus": "cpu"}


def flag(kind: str, name: str, value: object, words: str, task: str = "t2i", called: str = "") -> Call:
    return Call(
        f"`{name}`: {kind}",
        lambda: fastgen.resolve(task, **{**FAKE, name: value}),
        called or f"--{name.replace('_', '-')}",
        words,
    )


def rows(kind: str, make: Callable[[], object], words: str) -> Call:
    return Call(
        f"rows: {kind}",
        lambda: list(fastgen.generate(fastgen.resolve("t2i", **FAKE | {"input": None}), make())),
        "row",
        words,
    )


FLAGS = [
    Call("task: unknown", lambda: fastgen.resolve("paint", **FAKE), "task paint", "one of t2i"),
    Call("task: None", lambda: fastgen.resolve(None, **FAKE), "task None", "one of t2i"),
    Call("task: a list", lambda: fastgen.resolve(["t2i"], **FAKE), "task", "one of t2i"),
    flag("a number", "input", 7, "string, or a Path", called="INPUT"),
    flag("a list of rows", "input", [{"prompt": "a"}], "string, or a Path", called="INPUT"),
    flag("bytes", "input", b"rows.jsonl", "string, or a Path", called="INPUT"),
    flag("a NUL", "input", "rows\0.jsonl", "NUL", called="INPUT"),
    flag("half of a character", "out", "a\ud83d", "is not UTF-8", called="-o"),
    flag("a number", "out", 7, "string, or a Path", called="-o"),
    flag("a number", "gpus", 0, "must be a string"),
    flag("a list", "gpus", [0, 1], "must be a string"),
    flag("a pair", "size", (64, 64), "must be a string"),
    flag("a text", "steps", "4", "whole number"),
    flag("a fraction", "steps", 4.5, "whole number"),
    flag("true", "steps", True, "whole number"),
    flag("a text", "guidance", "3.5", "must be a number"),
    flag("401 digits", "guidance", 10**400, "from 0 to 100"),
    flag("5,001 digits", "seed", 10**5000, "from 0 to"),
    flag("a type", "dtype", np.float32, "must be a string"),
    flag("a list", "batch_size", [4], "or auto"),
    flag("a number", "format", 7, "must be a string"),
    flag("a list", "output_key", ["images"], "must be a string"),
    flag("a list", "image_root", ["."], "string, or a Path"),
    flag("a dict", "lora", {"a.safetensors": 1.0}, "list of strings"),
    flag("pairs", "lora", [("a.safetensors", 1.0)], "list of strings"),
    flag("a text", "fresh", "no", "True or False"),
    flag("one", "retry_failed", 1, "True or False"),
    flag("a text", "compile", "yes", "True or False"),
    flag("a number", "prompt", 7, "must be a string", "caption"),
    flag("a text", "temperature", "0", "must be a number", "caption"),
    flag("a list", "schema", [], "string, or a Path", "caption"),
    flag("the schema as text", "schema", '{"type": "object"}', "give the path", "caption"),
    flag("a list", "vllm_command", ["vllm"], "must be a string", "caption"),
    flag("bytes", "base_url", b"http://host", "must be a string"),
    flag("a text", "max_inflight", "4", "whole number"),
    flag("a text", "timeout", "60", "must be a number"),
    flag("true", "timeout", True, "must be a number"),
    flag("a list", "fallback", ["openai"], "must be a string"),
    flag("a text", "max_cost", "5", "must be a number"),
    flag("a number", "cache", 0.1, "must be a string"),
    flag("a dict", "profile", {"batch": {}}, "string, or a Path"),
]
CALLS = [
    rows("none", lambda: None, "give an input file"),
    rows("an empty list", list, "holds no rows"),
    rows("one dict", lambda: {"prompt": "a"}, "iterable of dicts"),
    rows("the name of a file", lambda: "rows.jsonl", "iterable of dicts"),
    rows("a path", lambda: Path("rows.jsonl"), "iterable of dicts"),
    rows("a number", lambda: 7, "iterable of dicts"),
    rows("texts", lambda: ["a fox"], "must be a dict"),
    rows("pairs", lambda: [("prompt", "a fox")], "must be a dict"),
    rows("None among them", lambda: [{"prompt": "a"}, None], "row 2"),
    Call(
        "a file and rows",
        lambda: list(fastgen.generate(fastgen.resolve("t2i", **FAKE), [{"prompt": "a"}])),
        "rows",
        "give one of them",
    ),
    Call("settings: a text", lambda: list(fastgen.generate("rows.jsonl", [])), "settings", "resolve()"),
    Call("explain: a text", lambda: fastgen.explain("rows.jsonl"), "settings", "resolve()"),
    Call(
        "explain: no file",
        lambda: fastgen.explain(fastgen.resolve("t2i", **FAKE | {"input": None})),
        "explain()",
        "`input`",
    ),
    Call(
        "a session that is closed",
        lambda: list(_closed().generate(fastgen.resolve("t2i", **FAKE))),
        "session",
        "closed",
    ),
]


def _closed() -> fastgen.Session:
    session = fastgen.Session()
    session.close()
    return session


class Own:
    """A type of the user's."""


def _deep() -> list:
    value: list = []
    for _ in range(100_000):
        value = [value]
    return value


def _circle() -> dict:
    value: dict = {}
    value["itself"] = value
    return value


def _damaged(folder: Path) -> Image.Image:
    """An image whose file is empty by now."""
    Image.effect_noise((64, 64), 50).save(folder / "gone.png")
    image = Image.open(folder / "gone.png")
    (folder / "gone.png").write_bytes(b"")
    return image


def made(folder: Path) -> list[Row]:
    """Rows of edits, as Python has them."""
    good = {"image": str(folder / "good.png"), "prompt": "make it blue"}
    return [
        Row("an object", good | {"note": Own()}, "note", "JSON does not have"),
        Row("a function", good | {"note": len}, "note", "JSON does not have"),
        Row("a complex number", good | {"note": 1j}, "note", "JSON does not have"),
        Row("a generator", good | {"note": (i for i in "ab")}, "note", "JSON does not have"),
        Row("an exception", good | {"note": ValueError("x")}, "note", "JSON does not have"),
        Row("an array of 40,000 numbers", good | {"note": np.zeros((200, 200))}, "note", "an array of 200x200"),
        Row("an image as an array", good | {"image": np.zeros((64, 64, 3), np.uint8)}, "image", "PIL image"),
        Row("an image as bytes", good | {"image": (folder / "good.png").read_bytes()}, "image", "bytes"),
        Row("a PIL image of a damaged file", good | {"image": _damaged(folder)}, "image", "cannot be read"),
        Row("100,000 lists in each other", good | {"note": _deep()}, "note", "nested too deep"),
        Row("a dict that contains itself", good | {"note": _circle()}, "note", "nested too deep"),
        Row("a whole number of 5,001 digits", good | {"note": 10**5000}, "note", "4,300 digits"),
        Row("bytes as prompt", good | {"prompt": b"make it blue"}, "prompt", "bytes"),
        Row("an array as prompt", good | {"prompt": np.array(["a", "b"])}, "prompt", "must be a string"),
        Row(
            "half of a character beside a PIL image",
            {"image": Image.new("RGB", (64, 64)), "prompt": "\ud83d"},
            "prompt",
            "half of a character",
        ),
        Row("NaN of numpy as size", good | {"size": [np.float32("nan"), 64]}, "size", "1024x768"),
        Row("64 bits as seed", good | {"seed": np.uint64(2**63)}, "seed", "out of range"),
        Row("a set as id", good | {"id": {"a"}}, "id", "string or a whole number"),
    ]
