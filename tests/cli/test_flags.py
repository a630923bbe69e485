"""The flags that the commands offer: named as the arguments of Python are, said once, explained."""

from __future__ import annotations

import inspect
import re
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

from fastgen.cli import flags, main
from fastgen.resolver import resolve

COMMANDS = typer.main.get_command(main.app).commands
TASKS = ("t2i", "edit", "caption")


def test_flags_and_arguments_of_resolve_have_the_same_names():
    from fastgen.cli import main

    only_shown = {"json", "quiet", "dry_run", "metrics_port"}
    offered = [
        set(inspect.signature(command).parameters) - only_shown for command in (main.t2i, main.edit, main.caption)
    ]
    assert set.union(*offered) == set(inspect.signature(resolve).parameters) - {"task"}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_has_two_flags_of_one_name(command):
    named = [name for parameter in COMMANDS[command].params for name in (*parameter.opts, *parameter.secondary_opts)]
    assert len(named) == len(set(named))


def test_every_flag_is_explained_and_given_to_a_command():
    described = {name: get_args(value) for name, value in vars(flags).items() if get_args(value)}
    described = {name: args for name, args in described.items() if hasattr(args[-1], "help")}
    assert len(described) > 40
    assert [name for name, args in described.items() if not args[-1].help] == []
    used = inspect.getsource(main)
    assert [name for name in described if not re.search(rf"\b{name}\b", used)] == []


@pytest.mark.parametrize("task", TASKS)
def test_defaults_are_those_of_python(task):
    """Where a command says another one, it means the same: no flag, or the backend of the task."""
    shown = {parameter.name: parameter.default for parameter in COMMANDS[task].params}
    for name, parameter in inspect.signature(resolve).parameters.items():
        if name in shown and name not in ("backend", "input"):
            assert shown[name] in (parameter.default, None, [], str(parameter.default)), name


def test_the_version_ends_the_command(capsys):
    with pytest.raises(typer.Exit):
        flags._print_version(True)
    assert capsys.readouterr().out.startswith("fastgen ")
    flags._print_version(False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "line",
    [
        ("t2i", ""),
        ("t2i", "-o", ""),
        ("edit", "--image-root", ""),
        ("t2i", "--profile", ""),
        ("t2i", "--transformer", ""),
        ("caption", ""),
        ("caption", "--schema", ""),
        ("bench", "-o", ""),
        ("demo", "-o", ""),
        ("check", ""),
        ("init", ""),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_the_current_folder(line, tmp_path, monkeypatch):
    """As from a variable of the shell that is not set."""
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(main.app, line)
    assert told.exit_code == 2 and "is empty; give a path" in told.output and not list(tmp_path.iterdir())
