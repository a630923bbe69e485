"""Who imports whom, read from the sources: edges between files, and between rooms."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TypeVar

import fastgen

T = TypeVar("T")

PACKAGE = Path(fastgen.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The folder or file directly under fastgen/ that a module is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[Path]:
    """The files of the package that a file names in its imports, at its top or inside functions. A package stands for
    its `__init__` only where something of that itself is named."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {_file(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            found |= {_file([*parts, alias.name]) or _file(parts) for alias in node.names}
    return {file for file in found if file is not None}


def _file(parts: list[str]) -> Path | None:
    if parts[0] != PACKAGE.name:
        return None
    place = PACKAGE.joinpath(*parts[1:])
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.exists()), None)


def between_files() -> dict[Path, set[Path]]:
    return {path: imported(path) for path in MODULES}


def between_rooms() -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {room_of(path): set() for path in MODULES}
    for path, wanted in between_files().items():
        edges[room_of(path)] |= {room_of(other) for other in wanted} - {room_of(path)}
    return edges


def circle(edges: dict[T, set[T]]) -> list[T]:
    """One way round in which each imports the next and the last the first; [] if there is none."""
    done: set[T] = set()

    def walk(node: T, way: list[T]) -> list[T]:
        if node in way:
            return way[way.index(node) :]
        if node not in done:
            for other in edges.get(node, ()):
                if found := walk(other, [*way, node]):
                    return found
            done.add(node)
        return []

    return next((found for node in edges if (found := walk(node, []))), [])


def floors(edges: dict[T, set[T]]) -> dict[T, int]:
    """How high each stands above what imports nothing, which is 1. There must be no circle."""
    heights: dict[T, int] = {}

    def height(node: T) -> int:
        if node not in heights:
            heights[node] = 1 + max(map(height, edges.get(node, ())), default=0)
        return heights[node]

    for node in edges:
        height(node)
    return heights
