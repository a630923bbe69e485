"""The data on the APIs: sound, overridden by a file of one's own, and safe to look at from many threads at once."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

import fastgen
from fastgen import providers
from fastgen.config import backends
from fastgen.errors import SettingsError
from tests.providers.conftest import request_for

PACKAGE = Path(fastgen.__file__).parent
PROCESSES = int(os.environ.get("FASTGEN_TEST_PROCESSES", "40"))
AT_ONCE = """
import sys, threading
from fastgen import providers
sys.setswitchinterval(1e-6)
together = threading.Barrier(64)
found = []
def look():
    together.wait()
    found.append(providers.find("openai", "gpt-image-2").price)
threads = [threading.Thread(target=look) for _ in range(64)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(found) == 64 and all(found), found
"""


@pytest.mark.slow
def test_threads_that_look_at_the_same_time_do_not_end_the_process():
    """Of 100 fresh processes nine died of SIGSEGV where msgspec prepared a type in several threads."""
    codes = []
    for _ in range(0, PROCESSES, 2):
        pair = [subprocess.Popen([sys.executable, "-c", AT_ONCE]) for _ in range(2)]
        codes += [process.wait(60) for process in pair]
    assert not any(codes), f"{sum(map(bool, codes))} of {len(codes)} processes ended with {set(codes)}"


def _decoded(path: Path) -> set[str]:
    """Names of the types that a file has msgspec decode, but for those of builtins."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("msgspec."):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        places = {"convert": node.args[1:2], "decode": node.args[1:2], "Decoder": node.args[:1]}.get(name, [])
        places = [*places, *(word.value for word in node.keywords if word.arg == "type")]
        found |= {inner.id for place in places for inner in ast.walk(place) if isinstance(inner, ast.Name)}
    return found


def test_what_is_decoded_is_prepared_where_it_is_defined():
    """By `types.warm` or by a decoder that a module makes when it is imported; a new type must not be forgotten."""
    tree = {path: ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    ready: set[str] = set()
    defined: dict[str, Path] = {}
    for path, module in tree.items():
        defined |= {node.name: path for node in module.body if isinstance(node, ast.ClassDef)}
        for node in module.body:  # what runs when it is imported
            calls = [node.value] if isinstance(node, ast.Expr | ast.Assign) else []
            for call in (inner for value in calls for inner in ast.walk(value) if isinstance(inner, ast.Call)):
                if ast.unparse(call.func).endswith(("warm", "Decoder")):
                    ready |= {
                        inner.id for place in call.args for inner in ast.walk(place) if isinstance(inner, ast.Name)
                    }
    wanted = {name for path in tree for name in _decoded(path)} & defined.keys()
    assert {"Section", "Model", "Settings", "_File", "Defaults"} <= wanted, "the search itself"
    assert not wanted - ready, "call fastgen.types.warm below the class"


@pytest.mark.usefixtures("environment")
def test_the_data_is_sound():
    date.fromisoformat(providers.as_of())
    for backend in backends.services():
        known = providers.data()[backend]
        for task, name in known["auto"].items():
            model = providers.find(backend, name)
            assert task in model.tasks and model.status == "live" and not model.until
        for name in known["models"]:
            model = providers.find(backend, name)
            assert model.tasks and model.until == (model.until and date.fromisoformat(model.until).isoformat())
            if model.successor:
                assert providers.find(backend, model.successor).status == "live"
            assert not (model.status == "retired" and not model.until)
            assert all(0.1 <= providers.capabilities._ratio(ratio) <= 10 for ratio in model.aspect_ratios)
            assert set(model.resolutions) <= set(providers.PIXELS)
            if model.price:
                words = model.qualities if backend == "openai" else model.resolutions
                assert set(words) == set(model.price.effort or model.price.picture_tokens)


def test_ones_own_file_goes_over_it(made, environment, tmp_path):
    own = tmp_path / "own.toml"
    environment(providers.OVERRIDE, str(own))
    own.write_text(
        '[openai]\nauto = { t2i = "mine" }\n[openai.models.mine]\nlike = "gpt-image-2"\nqualities = ["odd"]\n'
        "price = { image_out = 1.0 }\n[openai.models.gpt-image-2]\nmost_pictures = 2\n"
    )
    settings = made("openai")
    assert settings.model.name == "mine" and not providers.refuse(settings, request_for(quality="odd"))
    assert "takes 2 at most" in providers.refuse(settings, request_for("edit", images=3))
    assert providers.price(settings).image_out == 1.0 and providers.price(settings).effort["high"] == 96
    assert providers.find("openai", "gpt-image-2").qualities == ("low", "medium", "high")
    for text, said in {
        "[openai.models.mine]\nprize = 1": "openai.models.mine: .*prize",
        "[openai]\nmodel = 1": "model",
        "[azure]": "azure",
        "[openai.models.mine]\nmost_n = 'ten'": "openai.models.mine.*most_n",
        "no toml": "own.toml",
    }.items():
        own.write_text(text)
        with pytest.raises(SettingsError, match=said) as caught:
            providers.find("openai", "mine")
        assert str(own) in str(caught.value) and providers.OVERRIDE in str(caught.value)
    environment(providers.OVERRIDE, str(tmp_path / "none.toml"))
    with pytest.raises(SettingsError, match=r"none\.toml"):
        providers.find("openai", "mine")
