"""What people read is plain English, with one word for one thing: documents, help, messages, docstrings, comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from fastgen.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "bench" / "LOG.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("fastgen/embedded/*/README.md"),
        *ROOT.glob("fastgen/dataflow/**/*.md"),
    ]
)
MODULES = sorted([*ROOT.glob("fastgen/**/*.py"), *ROOT.glob("bench/*.py")])

WORDS = {
    r"mend(s|ed|ing)?": "fix",
    r"whosever": "whoever owns it",
    r"an? (row|line|event|file) an? (row|line|event|file|batch|format)": "one ... per ...",
    r"in silence": "silently",
    r"lanes?": "worker",
    r"crews?": "worker pool",
    r"shelf|shelves": "idle pool",
    r"leash": "supervisor",
    r"opponents?": "baseline",
    r"turn_to": "reconfigure",
    r"let_go": "cancel_pending",
    r"Declined": "ProviderError",
}
"""Patterns that must not appear, and what to write instead."""
NEVER = re.compile(rf"(?<![\w`])({'|'.join(WORDS)})(?!\w)")


def found(text: str) -> list[str]:
    return [match[0] for match in NEVER.finditer(text)]


def texts(source: str) -> Iterator[str]:
    """Comments, docstrings and string literals. Literals without a space are names: of events, fields and files."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield re.sub(r"\{\w*\}", "", node.value)  # names of values, for str.format
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def helps(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """(command, its help) of a command and all below it."""
    yield name, command.get_help(click.Context(command, info_name=name))
    for child in getattr(command, "commands", {}).values():
        yield from helps(child, f"{name} {child.name}")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("text", ["mend the line", "the lane died", "one event a line, a row a line", "the crew"])
def test_such_words_are_seen(text):
    assert found(text)


@pytest.mark.parametrize("text", ["amend", "recommended", "the event `lane_ready`", "a line at a time", "planes"])
def test_others_are_not(text):
    assert not found(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages(page):
    assert not found(page.read_text("utf-8"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_in_code(module):
    assert not [(word, text[:100]) for text in texts(module.read_text("utf-8")) for word in found(text)]


def test_help():
    pages = dict(helps(typer.main.get_command(main.app), "fastgen"))
    assert {"fastgen", "fastgen t2i", "fastgen caption", "fastgen bench", "fastgen dataflow t2i-api"} <= pages.keys()
    assert not {name: words for name, text in pages.items() if (words := found(text))}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """To a file that is there, and to a heading of it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target
