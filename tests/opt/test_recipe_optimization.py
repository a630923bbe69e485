"""The recipe "an optimization" of docs/design.md, followed to the letter in a copy of the package, and used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastgen

PACKAGE = Path(fastgen.__file__).parent

KIND = """class Tint(Optimization, frozen=True):
    flag: ClassVar[str] = "tint"
    amount: float = 0.0

    @classmethod
    def parse(cls, word: str | bool) -> Self:
        if not 0 <= (amount := float(word)) <= 1:
            raise ValueError("a number from 0 to 1")
        return cls(amount)

    def changes_pictures(self) -> dict[str, str | bool]:
        return {} if self.is_plain else self.words()


"""
FILE = '''"""Every picture a little brighter.

What: adds to the VAE's last bias. How much: nothing. Quality: that is the point. When not: always.
"""

from fastgen.config.hardware import Gpu
from fastgen.config.optimizations import Optimizations, Tint
from fastgen.opt.base import Modules


def refuse(gpu: Gpu | None, choice: Tint, others: Optimizations) -> str | None:
    return "does not go with fused projections" if others.layout.fuse_qkv else None


def apply(modules: Modules, choice: Tint) -> dict:
    modules.vae.decoder.conv_out.bias.data += choice.amount
    return {"amount": choice.amount}
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A folder with the package in which the recipe was followed."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, root / "fastgen", ignore=shutil.ignore_patterns("embedded", "__pycache__"))
    (root / "fastgen" / "embedded").symlink_to(PACKAGE / "embedded")
    shutil.copytree(PACKAGE.parent / "kernels_cfg", root / "kernels_cfg")

    def add(file: str, before: str, new: str) -> None:
        path = root / "fastgen" / file
        text = path.read_text("utf-8")
        assert text.count(before) == 1, f"{file} has no such place any more: {before}"
        path.write_text(text.replace(before, new + before), "utf-8")

    add("config/optimizations.py", "class Optimizations(", KIND)
    add("config/optimizations.py", '    quality: str = "exact"\n', "    tint: Tint = Tint()\n")
    add("config/optimizations.py", '    attention: str = ""\n', '    tint: str = ""\n')
    (root / "fastgen" / "opt" / "tint.py").write_text(FILE, "utf-8")
    add("resolver/__init__.py", '    attention: str = "",\n', '    tint: str = "",\n')
    add("resolver/flags.py", "    attention: str\n", "    tint: str\n")
    add("cli/flags.py", "Attention = Annotated[", 'Tint = Annotated[str, typer.Option(help="A little brighter.")]\n')
    add("cli/main.py", '        attention: Attention = "",\n', '        tint: Tint = "",\n')
    add("cli/main.py", "    Attention,\n", "    Tint,\n")
    return root


def t2i(copy: Path, folder: Path, options: str, *flags: str) -> subprocess.CompletedProcess:
    """A row with the embedded model, with these lines of a profile and these flags."""
    (folder / "rows.jsonl").write_text('{"id": "a", "prompt": "a red circle on a blue background"}\n')
    profile = (copy / "kernels_cfg" / "cpu-tiny.toml").read_text("utf-8")
    (folder / "mine.toml").write_text(f"{profile}\n[opt.exact]\n{options}\n")
    usual = ["--model", "tiny", "--gpus", "cpu", "--size", "64x64", "--steps", "2", "--profile", "mine.toml"]
    return subprocess.run(
        [sys.executable, "-m", "fastgen", "t2i", "rows.jsonl", "-o", "out", *usual, *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_new_optimization_is_chosen_applied_and_told(copy, tmp_path):
    done = t2i(copy, tmp_path, 'tint = "0.25"')
    assert done.returncode == 0, done.stderr
    assert "tint 0.25 (profile 'mine', quality exact)" in done.stderr
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["engines"]["cpu"]["opt"]["tint"] == {"amount": 0.25} and about["settings"]["tint"] == 0.25
    other = t2i(copy, tmp_path, 'tint = "0.25"', "--tint", "0")
    assert other.returncode == 2 and "tint: 0.25 before, None now" in other.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('tint = "3"', "--tint 3: a number from 0 to 1 (chosen by profile 'mine', quality exact)"),
        ('tint = "0.5"\nfuse_qkv = true', "--tint 0.5: does not go with fused projections (chosen by"),
    ],
)
def test_it_is_refused_before_any_work(copy, tmp_path, options, words):
    done = t2i(copy, tmp_path, options)
    assert done.returncode == 2 and words in done.stderr and not (tmp_path / "out").exists()
