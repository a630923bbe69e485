"""`fastgen check`: whether a run folder still has everything that its run made."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastgen.cli.flags import path, run_folder

if TYPE_CHECKING:
    from fastgen.output.mirror.place import Place

Run = Annotated[
    Path, typer.Argument(parser=path, metavar="RUN", help="The run folder or the address, as given with -o.")
]
OnDisk = Annotated[Path, typer.Argument(parser=run_folder, metavar="RUN", help="The run folder, as given with -o.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON event per line: each problem, then a summary.")]


def check(run: Run, json: Json = False) -> None:
    """Check every image of a run: its size, its hash, and whether it can be decoded. Changes nothing.

    Exit code 0 if all is well, 3 if something is wrong.
    """
    from fastgen.errors import FastgenError
    from fastgen.output.mirror.pulled import opened

    try:
        with opened(run) as (folder, place):
            counts = _checked(folder, place, json)
    except FastgenError as error:
        if json:
            _event("summary", state="refused", exit_code=error.exit_code, message=str(error))
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    code = 3 if counts["damaged"] else 0
    if json:
        _event("summary", state="checked", exit_code=code, out=str(run), **counts)
    else:
        print(_summary(counts))
    raise typer.Exit(code)


def _checked(folder: Path, place: Place | None, json: bool) -> dict[str, int]:
    """Print what is wrong, and return the counts. Raises FastgenError."""
    from fastgen.output.check import Check

    found = Check(folder, place)
    try:
        for finding in found:
            if json:
                _event("damaged", id=finding.id, path=finding.path, problem=finding.problem)
                continue
            row = f"row {finding.id}: " if finding.id else ""
            print(f"{row}{finding.path} {finding.problem}", flush=True)
    finally:
        found.close()
    return {"rows": found.rows, "files": found.files, "damaged": found.wrong, "without_hash": found.without_hash}


def _event(name: str, **facts: Any) -> None:
    print(json_format.dumps({"event": name, **facts}, ensure_ascii=False), flush=True)


def _summary(counts: dict[str, int]) -> str:
    problems = {0: "all is well", 1: "1 problem"}.get(counts["damaged"], f"{counts['damaged']} problems")
    text = f"{counts['rows']} done rows with {counts['files']} files checked: {problems}"
    if counts["without_hash"]:
        text += f"; {counts['without_hash']} files are from a version that stored no hashes, so they were only decoded"
    if counts["damaged"]:
        text += ". Delete the images named above and run the same command again; it makes their rows again"
    return text
