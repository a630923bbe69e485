"""`fastgen submit`: prints the file that starts a run on a cluster, from the flags of the run. Submits nothing."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fastgen.cli import complete, job_files
from fastgen.cli.job_files import Job

TASKS = ("t2i", "edit", "caption")
SET_HERE = {"slurm": ("shard", "engine", "ray_address", "min_workers", "max_workers"), "ray": ("shard", "engine")}
SET_HERE["kuberay"] = (*SET_HERE["ray"], "ray_address")
"""Flags of the run that this command sets, or that mean nothing there."""


def submit(
    ctx: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="TASK [FLAGS]", help="The run, as it would be typed after `fastgen`.")
    ],
    to: Annotated[
        str,
        typer.Option(
            autocompletion=complete.clusters,
            metavar="CLUSTER",
            help="slurm: an array of parts for sbatch. ray: a script for `ray job submit`. kuberay: a RayJob.",
        ),
    ],
    parts: Annotated[int, typer.Option(min=1, max=100_000, help="slurm: tasks of the array, each with a part.")] = 8,
    image: Annotated[str, typer.Option(help="kuberay: container image with fastgen and Ray.")] = "",
    claim: Annotated[str, typer.Option(help="kuberay: PersistentVolumeClaim that all pods share.")] = "",
    mount: Annotated[
        str, typer.Option(metavar="<path>", help="kuberay: where it is mounted.  [default: the current folder]")
    ] = "",
) -> None:
    """Print the file that starts a run on a cluster. What stands before the task is for this command, the rest for the
    run.

    The current folder, INPUT and the run folder must be the same on all machines.
    """
    from fastgen.errors import FastgenError, SettingsError

    try:
        if to not in SET_HERE:
            raise SettingsError(f"--to {to}: give slurm, ray or kuberay")
        flags = _read(ctx.parent, command, to, parts)
        job = _job(command, flags)
        if to == "slurm":
            text = job_files.slurm(job, (sys.executable, "-m", "fastgen"), parts)
        elif to == "ray":
            text = job_files.ray(job, ("python", "-m", "fastgen"))
        else:
            text = _kuberay(job, flags, image, claim, mount)
    except FastgenError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    print(text, end="")
    if sys.stdout.isatty():
        print(f"This went to the terminal. Add > {job.name}.{_suffix(to)} to keep it.", file=sys.stderr)


def _read(parent: Any, command: list[str], to: str, parts: int) -> dict[str, Any]:
    """The flags of the run, checked as the run itself would read them.

    Args: parent: the context of `fastgen` itself. Raises SettingsError.
    """
    from fastgen.errors import SettingsError
    from fastgen.input import storage
    from fastgen.providers.addresses import has_key
    from fastgen.providers.endpoints import keys_here

    task = command[0]
    if task not in TASKS:
        raise SettingsError(f"{task}: a run begins with {', '.join(TASKS)}; flags of `submit` stand before that")
    context = parent.command.commands[task].make_context(task, list(command[1:]), parent=parent)
    flags = context.params
    for name in ("fresh", "dry_run"):
        if flags.get(name):
            raise SettingsError(f"--{name.replace('_', '-')}: leave it out, since a job may be started more than once")
    for name in SET_HERE[to]:
        if flags.get(name):
            flag = f"--{name.replace('_', '-')}"
            raise SettingsError(f"{flag}: leave it out, since a file for {to} sets what it needs")
    if flags["input"] in (None, "-"):
        raise SettingsError("INPUT: give the file of rows, which all machines can read")
    if to == "slurm" and flags["out"] is not None and storage.is_address(flags["out"]):
        raise SettingsError("-o: the parts of an array share a run folder on a disk; give a folder")
    if has_key(" ".join(command), keys_here()):
        raise SettingsError("a flag of the run has a key in it, which would be in the file; set it in the environment")
    _check(task, {**flags, "shard": f"1/{parts}"} if to == "slurm" else {**flags, "engine": "ray"})
    if to != "slurm" and flags["gpus"] and not str(flags["gpus"]).startswith("cpu"):
        raise SettingsError(f"--gpus {flags['gpus']}: Ray chooses the GPUs; leave it out, and give --max-workers")
    return flags


def _check(task: Any, flags: dict[str, Any]) -> None:
    """Refuse what the run would refuse on any machine. Raises SettingsError."""
    from fastgen import resolver

    shown = ("json", "quiet", "dry_run", "metrics_port")
    more = {name: value for name, value in flags.items() if name not in shown and not name.startswith("_")}
    if "lora" in more:
        more["lora"] = tuple(more["lora"] or ())
    resolver.check(task, **more)


def _job(command: list[str], flags: dict[str, Any]) -> Job:
    from fastgen.config import backends

    out = Path(flags["out"] or f"fastgen-runs/{command[0]}")
    name = re.sub(r"[^a-z0-9]+", "-", f"fastgen-{out.name}".lower()).strip("-")[:40].strip("-")
    keys, own = [], str(flags["backend"] or "")
    for named in (own, *str(flags["fallback"] or "").split(",")):
        spec = backends.get(re.split(r"[:@]", named)[0])
        if spec and spec.service and spec.service.keys:
            keys.append(next((key for key in spec.service.keys if os.environ.get(key)), spec.service.keys[0]))
    first = backends.get(own)
    needs_none = str(flags["gpus"]).startswith("cpu") or flags["base_url"] or (first and first.service)
    gpus = 0 if needs_none else int(flags["gpus_per_replica"] or 1)
    return Job(name, os.getcwd(), tuple(command), gpus, tuple(dict.fromkeys(keys)))


def _kuberay(job: Job, flags: dict[str, Any], image: str, claim: str, mount: str) -> str:
    from fastgen.errors import SettingsError

    for flag, given in (("--image", image), ("--claim", claim)):
        if not given:
            raise SettingsError(f"{flag}: a file for kuberay needs it; see fastgen submit --help")
    mount = mount or job.folder
    if not Path(job.folder).is_relative_to(mount):
        raise SettingsError(f"--mount {mount}: the current folder {job.folder} is not in it, so pods would not find it")
    most = int(flags["max_workers"] or 1)
    least = min(most, int(flags["min_workers"] or 1))
    return job_files.kuberay(job, image, claim, mount, least, most, _ray_version())


def _ray_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return ""


def _suffix(to: str) -> str:
    return {"slurm": "sbatch", "ray": "sh", "kuberay": "yaml"}[to]
