"""What the README says is what is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer

from fastgen.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "rehearsal.md")]
OF_OTHERS = {"--api-server-count", "--device", "--enable-prefix-caching", "--index-url", "--start"}
"""Flags of programs other than `fastgen`."""


def marked(name: str) -> str:
    """The command in the code block after <!-- name -->."""
    return re.search(rf"<!-- {name} -->\n```sh\n(.+?)\n```", README, re.DOTALL)[1]


def test_the_two_commands_are_one_line_each_and_ci_runs_the_second():
    assert marked("run").endswith("fastgen t2i")
    assert marked("test").endswith("-m pytest")
    assert "\n" not in marked("run") + marked("test")
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text()


def typed(page: Path) -> list[str]:
    """The commands of fastgen in a page: in its blocks of code, and in backticks."""
    text = re.sub(r"\\\n\s*", "", page.read_text("utf-8"))
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    blocks = [block for language, block in fenced if language in ("", "sh", "bash", "console")]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"^    (\S.*)$", prose, re.M)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    parts = [part.strip() for line in lines for part in re.split(r"&&|\||;", re.sub(r"(^|\s)#.*", "", line))]
    return [re.sub(r"^(\S*/)?fastgen", "fastgen", part) for part in parts if re.match(r"(\S*/)?fastgen( |$)", part)]


COMMANDS = sorted({(page.name, command) for page in PAGES for command in typed(page)})
APP = typer.main.get_command(main.app)


def test_pages_have_commands():
    assert len(COMMANDS) > 60
    assert ("README.md", "fastgen t2i prompts.jsonl -o run") in COMMANDS


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_in_the_pages_can_be_typed(page, command):
    """It parses with the command line's own parser; what it does is tested elsewhere."""
    words = [word for word in shlex.split(command)[1:] if word != "..."]
    about = typer.Context(APP, info_name="fastgen")
    if not words or words[0].startswith("-"):
        assert {"--help", *(flag for p in APP.params for flag in p.opts)} >= set(words)
        return
    name, given, rest = APP.resolve_command(about, words)
    if {"-h", "--help"} & set(rest):
        rest = []
    given.make_context(name, rest, parent=about, resilient_parsing=not rest)


def test_every_flag_named_in_the_pages_exists():
    known = {flag for command in APP.commands.values() for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    known |= {flag for p in APP.params for flag in p.opts} | {"--help"}
    for page in PAGES:
        flags = set(re.findall(r"`(--[a-z][a-z0-9-]+)", page.read_text("utf-8"))) - OF_OTHERS
        assert flags <= known, (page.name, flags - known)


def test_links_lead_somewhere():
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_site_has_every_page_once():
    listed = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


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
