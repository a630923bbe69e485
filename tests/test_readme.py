"""What the README says is what is there."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fastgen.cli import main, tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def marked(name: str) -> str:
    """The command in the code block after <!-- name -->."""
    return re.search(rf"<!-- {name} -->\n```sh\n(.+?)\n```", README, re.DOTALL)[1]


def test_the_two_commands_are_one_line_each_and_ci_runs_the_second():
    assert marked("run").endswith("fastgen t2i")
    assert marked("test").endswith("-m pytest")
    assert "\n" not in marked("run") + marked("test")
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text()


def test_every_flag_named_in_the_readme_exists():
    import inspect

    source = inspect.getsource(main)
    flags = set(re.findall(r"--[a-z][a-z0-9-]+", README)) - {"--help"}
    known = set(re.findall(r'"(--[a-z0-9-]+)"', source)) | {
        "--" + name.replace("_", "-")
        for command in (main.t2i, main.caption, main.bench, tables.table, tables.export)
        for name in inspect.signature(command).parameters
    }
    assert flags <= known, flags - known


def test_links_lead_somewhere():
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_modules_are_where_the_changelog_says():
    moved = re.findall(
        r"^  \| `(fastgen\.[\w.]+)` \| `(fastgen\.[\w.]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert len(moved) > 40
    for _, name in moved:
        place = ROOT.joinpath(*name.split("."))
        assert place.is_dir() or place.with_suffix(".py").exists(), name


@pytest.mark.slow
def test_the_wheel_carries_profiles_model_and_examples(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT)],
        check=True,
        timeout=300,
    )
    (wheel,) = tmp_path.glob("fastgen_mm-*.whl")
    assert wheel.stat().st_size < 40e6
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "fastgen/kernels_cfg/default.toml",
        "fastgen/embedded/tiny-flux/fastgen.json",
        "fastgen/cli/main.py",
        "fastgen/embedded/tiny-flux/transformer/diffusion_pytorch_model.safetensors",
        "fastgen/examples/small/edit.jsonl",
        "fastgen/examples/full/pictures/house.png",
    } <= names
    assert not any(name.startswith(("tests/", "bench/")) for name in names)
