"""Every flag and command has its panel; every example can be typed."""

from __future__ import annotations

import shlex

import pytest
import typer

from fastgen.cli import panels
from tests.cli.test_help import APP, said


@pytest.mark.parametrize("command", ["t2i", "edit", "caption", "bench"])
def test_every_flag_has_a_panel(command):
    placed = [name for names in panels.FLAGS.values() for name in names]
    assert len(placed) == len(set(placed))
    assert {parameter.name for parameter in APP.commands[command].params} <= set(placed)
    assert "Options ─" not in said(command, "--help")


def commands_of_examples() -> list[str]:
    return [typed for examples in panels.EXAMPLES.values() for typed, _ in examples]


@pytest.mark.parametrize("typed", commands_of_examples())
def test_the_examples_can_be_typed(typed):
    program, name, *rest = shlex.split(typed)
    assert program == "fastgen"
    APP.commands[name].make_context(name, rest, parent=typer.Context(APP, info_name="fastgen"))


def test_every_command_has_a_panel_and_an_example():
    placed = {name for names in panels.COMMANDS.values() for name in names}
    assert set(APP.commands) <= placed
    assert set(APP.commands) - {"setup", "dataflow"} <= set(panels.EXAMPLES)
