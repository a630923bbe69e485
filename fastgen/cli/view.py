"""`fastgen view`: look at what runs have made, in a browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fastgen.cli.flags import path, run_folder

Runs = Annotated[
    list[Path],
    typer.Argument(parser=run_folder, metavar="RUN", help="Run folders; several are compared row by row."),
]


def view(
    runs: Runs,
    export: Annotated[
        Path | None,
        typer.Option(
            parser=path, metavar="DIR", help="Write the page into this folder, to be opened without a server, and end."
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address to listen at. By default only this machine reaches the page."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=65535, help="Port.  [default: 8765, or the next one that is free]"),
    ] = None,
    open: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
) -> None:
    """Look at the images, edits and captions of a run, also while it is at work. Changes nothing in the run folder."""
    from fastgen.errors import FastgenError

    try:
        if export is not None:
            from fastgen.view.export import export as write

            count = write(runs, export.expanduser())
            print(f"{export}/index.html: {count} rows")
            return
        _serve(runs, host, port, open)
    except FastgenError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _serve(runs: list[Path], host: str, port: int | None, open: bool) -> None:
    from fastgen.view.guard import is_loopback
    from fastgen.view.server import Server, View

    os.nice(5)  # a run on this machine comes first
    view = View(runs)
    server = Server(view, host, port)
    if not is_loopback(host):
        print(
            f"warning: --host {host}: other machines can reach this page; whoever has its address sees the images and "
            "rows of these runs",
            file=sys.stderr,
        )
    print(f"{server.url}  (Ctrl-C ends it)", flush=True)
    if open:
        import webbrowser

        webbrowser.open(server.url)
    view.thumbnails.prune()
    server.run()
