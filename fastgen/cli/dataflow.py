"""The commands of DataFlow-MM's face: a working folder, its pipelines as programs, and the command of its documents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fastgen.cli.flags import Version, path
from fastgen.cli.help import Group
from fastgen.cli.run_task import fail


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            parser=path, metavar="[DIR]", help="The folder to fill.  [default: the current folder]", show_default=False
        ),
    ] = Path("."),
) -> None:
    """Make a working folder for pipelines in DataFlow-MM's style: scripts, example rows, images."""
    from fastgen.dataflow import statics
    from fastgen.errors import FastgenError

    try:
        written = statics.init(folder)
    except FastgenError as error:
        fail(error, "human")
    place = "this folder" if folder == Path(".") else str(folder)
    print(f"{len(written)} new files in {place}; {folder / 'README.md'} says what to run")


programs = typer.Typer(
    name="dataflow",
    help="Run DataFlow-MM's pipelines as programs. They take its flags, and the environment variables DF_API_KEY and "
    "DF_BASE_URL.",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _program(name: str, help: str) -> None:
    """A pipeline that parses its own flags."""

    @programs.command(
        name,
        help=help,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def command(context: typer.Context) -> None:
        from fastgen.dataflow import statics

        raise typer.Exit(statics.run(name, context.args))


_program("t2i-api", "Make images from prompts with a service.")
_program("edit-api", "Edit images with a service.")
_program("t2i-gpu", "Make images from prompts with FLUX on this machine.")
_program("edit-gpu", "Edit images with FLUX on this machine.")
_program("caption-api", "Caption images with a server in OpenAI's chat format.")
_program("caption-gpu", "Caption images with a VLM on this machine.")
_program("vqa-api", "Answer questions about images with a server in OpenAI's chat format.")
_program("vqa-gpu", "Answer questions about images with a VLM on this machine.")


dataflowmm_app = typer.Typer(
    name="dataflowmm",
    help="The command of DataFlow-MM's documents, with fastgen behind it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@dataflowmm_app.callback()
def root(version: Version = False) -> None: ...


@dataflowmm_app.command("init")
def dataflowmm_init(
    what: Annotated[str, typer.Argument(metavar="[base|all]", help="Accepted; everything is written.")] = "base",
) -> None:
    """Make the current folder a working folder: scripts, example rows, pictures."""
    if what not in ("base", "all"):
        print(
            f"error: dataflowmm init {what}: base or all; another folder is made by fastgen init DIR", file=sys.stderr
        )
        raise typer.Exit(2)
    init(Path("."))


def dataflowmm() -> None:
    """The `dataflowmm` command."""
    dataflowmm_app()
