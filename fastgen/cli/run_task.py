"""A task from flags to exit code: resolve, run, report. Imports nothing heavy before a command runs."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from fastgen.config.settings import Settings
    from fastgen.errors import FastgenError
    from fastgen.types import Task


def run_task(task: Task, flags: dict) -> None:
    """What `t2i`, `edit` and `caption` do with their flags: run the rows, or say what a run would do."""
    from fastgen import examples
    from fastgen.cli import input_given
    from fastgen.config import downloads
    from fastgen.errors import FastgenError
    from fastgen.resolver import resolve

    voice = "json" if flags.pop("json") else "quiet" if flags.pop("quiet") else "human"
    flags.pop("quiet", None)
    dry_run, metrics_port = flags.pop("dry_run"), flags.pop("metrics_port", "")
    if "lora" in flags:
        flags["lora"] = tuple(flags["lora"] or ())
    with TemporaryDirectory(prefix="fastgen-plan-") if dry_run else nullcontext("") as scratch:
        try:
            prompt = input_given.as_file(task, flags, scratch)
            if flags["input"] is None:
                flags["input"] = examples.find(task, flags)
            with downloads.none() if dry_run else nullcontext():
                settings = resolve(task, **flags)
        except FastgenError as error:
            fail(error, voice)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        if dry_run:
            _explain(settings, voice)
        else:
            _generate(settings, voice, prompt, metrics_port)


def _generate(settings: Settings, voice: str, prompt: str, metrics_port: str = "") -> None:
    """`prompt`: what INPUT was, if its pictures belong into the current folder."""
    from fastgen.cli import input_given, metrics, ray_metrics
    from fastgen.cli.reporter import Report
    from fastgen.errors import FastgenError
    from fastgen.scheduler.run import Run

    report = Report(voice, settings)
    runs: list[Run] = []
    try:
        served = metrics.serve(metrics_port, lambda: runs[0].overview() if runs else None) if metrics_port else ""
        run = Run(settings, report.emit)
    except FastgenError as error:
        fail(error, voice)
    runs.append(run)
    if settings.placement.place == "ray":
        ray_metrics.report(run.overview)

    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def on_signal(signum: int, frame: object) -> None:
        if signum == signal.SIGHUP:  # the terminal is gone: from now on output goes nowhere, and that is not an error
            for stream in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        if run.state == "running":
            run.interrupt()
        else:
            run.abort()
            os._exit(130)

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if name != signal.SIGHUP or signal.getsignal(name) != signal.SIG_IGN:  # under nohup the run continues
            signal.signal(name, on_signal)
    report.on_lost = lambda: run.interrupt() if run.state == "running" else None
    report.begin()
    if served and voice == "human":
        print(f"metrics: {served}", file=sys.stderr)
    message = ""
    try:
        for result in run.results():
            report.result(result, run.counts)
        code = 130 if run.state == "interrupted" else 3 if run.counts["failed"] else 0
        state = run.state
    except FastgenError as error:
        code, state, message = error.exit_code, "stopped", f"error: {error}"
        if run.counts["new"]:
            code = 1
            message += (
                f"\n{run.counts['new']} rows were done in this run and are safe; run the same command to continue"
            )
    report.end(state, code, run.summary(), message)
    if prompt and code == 0:
        made = input_given.copy_here(prompt, settings)
        if voice == "human":
            print(f"here: {', '.join(made)}", file=sys.stderr)
    raise typer.Exit(code)


def _explain(settings: Settings, voice: str) -> None:
    from fastgen.api import explain
    from fastgen.cli.reporter import say_plan
    from fastgen.errors import FastgenError

    try:
        plan = explain(settings)
    except FastgenError as error:
        fail(error, voice)
    say_plan(plan, settings, voice)
    if plan["bad"]:
        raise typer.Exit(3)


def fail(error: FastgenError, voice: str) -> NoReturn:
    """Say why nothing was done, and leave with the error's exit code."""
    if voice == "json":
        import json

        print(json.dumps({"event": "summary", "state": "refused", "exit_code": error.exit_code, "message": str(error)}))
    print(f"error: {error}", file=sys.stderr)
    raise typer.Exit(error.exit_code)
