"""How a command explains itself: `--help` in panels, with examples, and what was probably meant by a mistyped name.

Knows how help looks, not what the flags mean. Typer's own panels give the description of a flag a quarter of a terminal
of 80 columns; here it has the rest of the line, or a line of its own where there is little room.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from fastgen.cli import panels
from fastgen.cli.meant import COMMANDS, FLAGS

MOST_COLUMNS = 100
NAMES_COLUMNS = 24
"""Longer names have a line of their own."""
FEW_FLAGS = 10
"""So many are shown in one panel."""


TOO_MANY = "Got unexpected extra argument"
ONE_INPUT = "INPUT is one file, a folder, or a pattern of files in quotes, such as '*.csv'"


class Command(TyperCommand):
    """A command whose help is in panels and says what its own task takes."""

    def __init__(self, name: str | None, **about: Any):
        super().__init__(name, **about)
        words, left_out = panels.WORDS.get(name or "", {}), panels.NOT_TAKEN.get(name or "", ())
        for parameter in self.params:
            text = words.get(parameter.name or "", getattr(parameter, "help", None) or "")
            parameter.help = text.replace("<task>", name or "")  # type: ignore[attr-defined]
            if parameter.name in left_out:
                parameter.hidden = True  # type: ignore[attr-defined]

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "possibilities"):  # no such option
                error.message, error.possibilities = _no_such_flag(ctx, error.option_name), None  # type: ignore[attr-defined]
            elif str(getattr(error, "message", "")).startswith(TOO_MANY) and any(
                p.name == "input" for p in self.params
            ):
                error.message += f". {ONE_INPUT}"  # type: ignore[attr-defined]
            raise

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        records = {p.name or "": found for p in self.get_params(ctx) if (found := p.get_help_record(ctx))}
        few = len(records) <= FEW_FLAGS
        shown = {"Options": list(records.values())} if few else dict(_by_panel(records))
        _show(ctx, self.help or "", shown, panels.EXAMPLES.get(self.name or "", ()), self.epilog or "")


class Group(TyperGroup):
    """The commands in panels; a name that is none of them is answered with what was probably meant."""

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        given = args[0] if args else ""
        if given in COMMANDS and COMMANDS[given] in self.commands:
            ctx.fail(f"No such command '{given}'. Did you mean '{COMMANDS[given]}'?")
        if ctx.parent is None and given not in self.commands and os.path.exists(given):
            task = "caption" if os.path.isdir(given) else "t2i"
            ctx.fail(f"No such command '{given}'. Name a task first, such as 'fastgen {task} {given}'")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "possibilities"):
                error.message, error.possibilities = _no_such_flag(ctx, error.option_name), None  # type: ignore[attr-defined]
            raise

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        left, shown = dict(self.commands), dict[str, list[tuple[str, str]]]()
        for title, names in panels.COMMANDS.items():
            shown[title] = [(name, _first_sentence(left.pop(name).help)) for name in names if name in left]
        shown["Commands" if not any(shown.values()) else "More"] = [
            (name, _first_sentence(command.help)) for name, command in left.items() if not command.hidden
        ]
        shown["Options"] = [found for p in self.get_params(ctx) if (found := p.get_help_record(ctx))]
        examples = panels.EXAMPLES.get("" if ctx.parent is None else self.name or "", ())
        _show(ctx, self.help or "", shown, examples, self.epilog or "")


def _by_panel(records: dict[str, tuple[str, str]]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    left = dict(records)
    for title, names in panels.FLAGS.items():
        yield title, [left.pop(name) for name in names if name in left]
    yield "Options", list(left.values())


def _first_sentence(text: str | None) -> str:
    return re.split(r"(?<=\.)\s", " ".join((text or "").split()))[0].removesuffix(".")


def _no_such_flag(ctx: typer.Context, given: str) -> str:
    """That there is no such flag, with the one that was probably meant."""
    own = [name for p in ctx.command.params if not getattr(p, "hidden", False) for name in (*p.opts, *p.secondary_opts)]
    siblings = getattr(ctx.parent.command, "commands", {}) if ctx.parent else {}
    having = [name for name, other in siblings.items() if any(given in p.opts for p in other.params)]
    said = f"No such option: {given}"
    if meant := [flag for flag in FLAGS.get(given.lower(), ()) if flag.split()[0] in own]:
        return f"{said}. Did you mean {meant[0]}?"
    if having:
        *most, last = having
        return f"{said}; {', '.join(most)} and {last} have it" if most else f"{said}; {last} has it"
    close = get_close_matches(given, [name for name in own if name.startswith("--")], 1)
    return f"{said}. Did you mean {close[0]}?" if close else said


def _show(
    ctx: typer.Context,
    about: str,
    shown: dict[str, list[tuple[str, str]]],
    examples: Iterable[tuple[str, str]],
    epilog: str,
) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=False)
    console.width = min(console.width, MOST_COLUMNS)
    usage = " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])
    console.print(Padding(Text.assemble(("Usage: ", "yellow"), (usage, "bold")), (0, 1)))
    for paragraph in about.split("\n\n"):
        console.print(Padding(Text(" ".join(paragraph.split())), (1, 1, 0, 1)))
    console.print()
    for title, records in shown.items():
        if records:
            console.print(_panel(title, records, console.width))
    if examples := list(examples):
        console.print(_examples(examples, console.width))
    if epilog:
        console.print(Padding(Text(epilog, style="dim"), (0, 1)))


def _panel(title: str, records: list[tuple[str, str]], width: int) -> Any:
    """Names on the left and what they mean on the right, or below where there is little room."""
    from rich.console import Group as Lines
    from rich.padding import Padding
    from rich.text import Text

    beside = width >= 72
    indent = NAMES_COLUMNS if beside else 4
    lines: list[Any] = []
    for names, text in records:
        help = _help(text)
        if beside and len(names) < indent:
            row = _columns(indent)
            row.add_row(_names(names), help)
            lines.append(row)
        else:
            lines += [_names(names), Padding(help, (0, 0, 0, indent))]
    return _box(title, Lines(*lines), width, Text)


def _columns(indent: int) -> Any:
    from rich.table import Table

    row = Table.grid(padding=0)
    row.add_column(width=indent, no_wrap=True)
    row.add_column()
    return row


def _examples(examples: list[tuple[str, str]], width: int) -> Any:
    from rich.console import Group as Lines
    from rich.text import Text

    lines = [Text.assemble((typed, "bold"), f"\n    {does}") for typed, does in examples]
    return _box("Examples", Lines(*lines), width, Text)


def _box(title: str, content: Any, width: int, text: Any) -> Any:
    from rich.panel import Panel

    return Panel(content, title=text(title), title_align="left", border_style="dim", width=width, padding=(0, 1))


def _names(names: str) -> Any:
    from rich.text import Text

    text = Text(names, style="cyan")
    text.highlight_regex(r"(?<=[\s])(<\w+>|[A-Z][\w:|\[\]/]*|WxH|\w+\|\S+)$", "yellow")
    return text


def _help(text: str) -> Any:
    from rich.text import Text

    found = Text(re.sub(r"\s*\[x>=\d+\]", "", text))
    found.highlight_regex(r"\[default: [^\]]*\]", "dim")
    return found
