"""What the user sees during a run. Knows the events by name, but not where they come from.

There are three voices: "human" (stderr, with a progress bar on a terminal), "json" (one event per line on stdout, the
summary last) and "quiet" (errors, failed rows and warnings).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TextIO

import msgspec

from fastgen.cli import advice, worker_lines
from fastgen.config.settings import Settings
from fastgen.errors import quoted
from fastgen.output.writers.tables import describe, output
from fastgen.types import Done, Result
from fastgen.view import live

MOST_FAILURES_SHOWN = 20
PLAIN_EVERY_S = 10.0
"""Between two progress lines when stderr is not a terminal."""


class Report:
    """Args: voice: "human", "json" or "quiet"."""

    def __init__(self, voice: str, settings: Settings):
        self.voice = voice
        self.settings = settings
        self._out = settings.run.store or settings.run.out
        self.failures = 0
        self._kinds: Counter[str] = Counter()
        self.rows = 0
        self.started = self._said = time.monotonic()
        self._live: live.Live | None = None
        self._line = ""
        """Of the progress, said last."""
        self.on_lost: Callable[[], None] = lambda: None
        """Called when stdout or stderr is closed."""

    def begin(self) -> None:
        settings = self.settings
        profile = settings.placement.profile
        where = ", ".join(f"{d.name} ({d.gpu.name})" if d.gpu else d.name for d in settings.placement.devices)
        if self.voice == "json":
            self._json(
                "start",
                task=settings.task,
                input=settings.run.input,
                out=self._out,
                model=settings.model.name,
                devices=[d.name for d in settings.placement.devices],
                settings=settings.fingerprint(),
                profile=profile.name,
                speed=settings.optimizations.as_table(),
                **({"memory": settings.fit.as_table()} if settings.fit else {}),
                notes=list(settings.run.notes),
            )
        if self.voice != "human":
            return
        for note in settings.run.notes:
            self._say(f"note: {note}")
        unmeasured = "" if profile.measured.status == "measured" else "; not measured, so batch sizes are conservative"
        chosen = f"profile '{profile.name}' (matches {profile.why}{unmeasured})"
        if settings.backend.is_remote:
            how = _at_once(settings)
            how += f", {chosen}" if settings.endpoint.command else ""
            where = settings.endpoint.base_url or (
                where if settings.endpoint.command else f"{settings.backend}'s own service"
            )
        else:
            how = f"{settings.engine.dtype}, batch {settings.run.batch_size or f'by {chosen}'}"
        self._say(
            f"{settings.task}: {settings.run.input}\nbackend {settings.backend}, model {settings.model.name} on "
            f"{where}, {how}"
        )
        for line in _choices(settings):
            self._say(line)
        for link in settings.fallbacks:
            self._say(f"fallback for rows that it cannot do: {link.backend}, model {link.model.name}")
        if settings.task != "t2i":
            self._say(f"relative image paths start at {settings.rows.image_root}")
        state = f" (on the way there: {settings.run.out})" if settings.run.store else ""
        self._say(f"out: {self._out}{state}")
        self._live = live.display()
        if self._live is not None:
            self._live.start()

    def emit(self, event: str, **facts: Any) -> None:
        """Show an event other than a result."""
        if event == "progress":
            self._progress(facts)
        elif self.voice == "json":
            self._json(event, **facts)
        elif event == "row_failed":
            self.failures += 1
            self._kinds[facts["kind"]] += 1
            if self.failures <= MOST_FAILURES_SHOWN:
                self._say(f"failed: {facts['message']} [{facts['kind']}, id {quoted(facts['id'])}]")
            elif self.failures == MOST_FAILURES_SHOWN + 1:
                self._say("more rows failed; failures.jsonl will list all of them")
        elif self.voice == "human" and event == "lane_ready":
            self._say(f"{facts['lane']} is ready after {facts.get('load_seconds', 0)} s of loading")
            for note in facts.get("notes", ()):
                self._say(f"{facts['lane']}: {note}")
        elif self.voice == "human" and event in ("lane_died", "lane_restarted"):
            then = "; restarting it" if facts.get("restarting", True) else ""
            self._say(f"{facts['lane']}: {facts['reason'].splitlines()[0]}{then}")
        elif self.voice == "human" and event == "batches":
            said = f"{plural(facts['batches'], 'batch', 'es')} with {plural(facts['requests'], 'request')}"
            self._say(
                f"at the service: {said}, {facts['done']} done" if facts["batches"] else "at the service: nothing"
            )
        elif event == "warning":
            self._say(f"warning: {facts['message']}")

    def result(self, result: Result, counts: dict[str, int]) -> None:
        """Show a result that was committed."""
        self.rows = counts.get("done", 0) + counts.get("failed", 0) + counts.get("kept", 0)
        if self.voice == "json":
            if isinstance(result, Done):
                key = self.settings.rows.output_key if result.text else "paths"
                self._json("row_done", **{key: output(result, self.settings)}, **describe(result))
        elif self._live is not None:
            self._live.count(counts)

    def end(self, state: str, exit_code: int, summary: dict, message: str = "") -> None:
        """Show the summary, or why there is none."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        counts = summary.get("counts", {})
        if self.voice == "json":
            self._json("summary", state=state, exit_code=exit_code, message=message, out=self._out, **summary)
            return
        if self.voice == "human" and state in ("finished", "interrupted"):
            made = "captions" if self.settings.task == "caption" else "images"
            rate = summary.get(f"{made}_per_second")
            text = (
                f"{counts.get('done', 0)} done, {counts.get('failed', 0)} failed, {counts.get('kept', 0)} kept "
                f"(already filled); {plural(counts.get(made, 0), made[:-1])} made in "
                f"{time.monotonic() - self.started:.1f} s"
            )
            text += f" ({rate:.2f} per second after loading)" if rate else ""
            if group := summary.get("mean_group"):
                text += f"; {group:.1f} samples per forward pass, {summary['work']['joins']} joined a group on its way"
            if len(served := summary.get("served_by", {})) > 1:
                text += "; served by " + ", ".join(f"{name}: {rows}" for name, rows in served.items())
            if cost := summary.get("cost_usd"):
                text += f"; cost so far {cost:.4f} USD, as far as known"
            if unknown := summary.get("possibly_paid_usd"):
                text += f" ({unknown:.4f} USD of it for requests without an answer, possibly not billed)"
            self._say(text)
            for line in worker_lines.lines(summary.get("workers", {})):
                self._say(line)
            if counts.get("kept"):
                key = self.settings.rows.output_key
                self._say(f"kept rows have `{key}` already; --output-key NAME makes them anew, into another field")
            if state == "finished":
                self._say(f"table: {self._out}/results.jsonl")
                if counts.get("failed"):
                    self._say(f"failed rows: {self._out}/failures.jsonl ({advice.about(self._kinds)})")
            else:
                self._say("interrupted; nothing is lost: run the same command to continue")
                if os.path.exists(f"{self.settings.run.out}/results.jsonl"):
                    self._say(f"table of what is done so far: {self._out}/results.jsonl")
        if message:
            self._say(message, error=True)

    def _progress(self, facts: dict[str, Any]) -> None:
        """Show how far the run is: all the time on a terminal, else now and then."""
        if self._live is not None:
            self._live.take(facts)
        elif self.voice == "json" and self._is_time():
            self._json("progress", **facts)
        elif self.voice == "human" and (line := live.line(facts)) != self._line and self._is_time():
            self._line = line
            self._say(line)

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now - self._said <= PLAIN_EVERY_S:
            return False
        self._said = now
        return True

    def _say(self, text: str, error: bool = False) -> None:
        try:
            if self._live is not None:
                self._live.console.print(text, markup=False, highlight=False)
            else:
                print(text, file=sys.stderr, flush=True)
        except OSError:
            self._lose(2)

    def _json(self, event: str, **facts: Any) -> None:
        try:
            _print_json(sys.stdout, {"event": event, **facts})
        except OSError as error:
            self._lose(1)
            self.voice = "human"
            self._say(f"stdout accepts no more events ({error.strerror}), so the run ends")

    def _lose(self, stream: int) -> None:
        """The reader has gone, as after `--json | head -1`: further output goes nowhere, and that is not an error."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        self.on_lost()


def _print_json(stream: TextIO, value: dict) -> None:
    stream.write(json.dumps(value, ensure_ascii=False) + "\n")
    stream.flush()


def plural(number: int, noun: str, ending: str = "s") -> str:
    """For example "1 row" or "2 rows"."""
    return f"{number} {noun}{'' if number == 1 else ending}"


def _at_once(settings: Settings) -> str:
    """How many requests a service gets."""
    most = settings.endpoint.max_inflight
    if settings.durable:
        return f"by the Batch API, up to {plural(settings.batch_for(0), 'row')} in a batch and {most} batches at once"
    return f"up to {plural(most, 'request')} at once"


def _choices(settings: Settings) -> list[str]:
    """What the engine does, and why: how the model fits into memory, and the optimizations."""
    memory = [f"memory: {line}" for line in settings.fit.explain()] if settings.fit else []
    return [*memory, *(f"speed: {line}" for line in settings.optimizations.explain())]


def _costs(plan: dict, settings: Settings) -> list[str]:
    """Time and money of what is left to do."""
    lines = []
    if urls := plan.get("on_servers"):
        lines.append(
            f"{plural(urls, 'row')} with images on servers, which only a run fetches, so they are not in the plan"
        )
    if plan.get("usd") is not None:
        lines.append(f"cost: at most {plan['usd']:.4f} USD")
    elif settings.backend.service:
        lines.append("cost: not known, because this model has no price here (docs/apis.md)")
    if plan.get("seconds") is not None:
        profile = settings.placement.profile
        whose = f"profile '{profile.name}', measured on {profile.measured.hardware}"
        rate = "of the last run in this folder" if plan["seconds_by"] == "run" else f"of {whose}, without loading"
        how_long = f"about {_duration(plan['seconds'])}" if plan["seconds"] >= 1 else "less than a second"
        lines.append(f"time: {how_long}, at the rate {rate}")
    elif not settings.backend.hidden:
        lines.append("time: not known before the first run here; `fastgen bench` measures this machine")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def say_plan(plan: dict, settings: Settings, voice: str) -> None:
    """Show the plan of `fastgen.explain`, for --dry-run."""
    if voice == "json":
        memory = {"memory": settings.fit.as_table()} if settings.fit else {}
        _print_json(sys.stdout, {"event": "plan", **msgspec.to_builtins(plan), **memory})
        return
    for note in (*settings.run.notes, *plan["unread"]):
        print(f"note: {note}")
    for warning in plan.get("warnings", ()):
        print(f"warning: {warning}")
    print(
        f"{plural(plan['rows'], 'row')}: {plan['done']} done and {plan['failed']} failed in earlier runs, "
        f"{plan['kept']} kept (already filled), {len(plan['bad'])} bad"
    )
    for failed in plan["bad"][:MOST_FAILURES_SHOWN]:
        print(f"  bad: {failed.message}")
    if len(plan["bad"]) > MOST_FAILURES_SHOWN:
        print(f"  and {len(plan['bad']) - MOST_FAILURES_SHOWN} more")
    for line in _costs(plan, settings):
        print(line)
    profile = settings.placement.profile
    why = "--batch-size" if settings.run.batch_size else f"profile '{profile.name}', which matches {profile.why}"
    if settings.backend.is_remote:
        where = settings.endpoint.base_url or (
            "a server of its own" if settings.endpoint.command else "the vendor's service"
        )
        per_row = "" if settings.durable else "one request per row, "
        print(f"{settings.backend}, model {settings.model.name} at {where}: {per_row}{_at_once(settings)}")
        return
    print(
        f"model {settings.model.name} on {', '.join(d.name for d in settings.placement.devices)}, "
        f"{settings.engine.dtype}"
    )
    for line in _choices(settings):
        print(line)
    print(
        f"batch sizes from {why}; rows share a batch if their task, size, reference size, LoRAs and number of turns "
        "are equal:"
    )
    for bucket in plan["buckets"]:
        spread = bucket["batches"] > -(-bucket["samples"] // bucket["batch_size"])
        print(
            f"  {bucket['bucket']}: {plural(bucket['requests'], 'row')}, {plural(bucket['samples'], 'image')}, "
            f"batch size {bucket['batch_size']} -> {plural(bucket['batches'], 'batch', 'es')}"
            f"{', so that nothing idles at the end' if spread else ''}"
        )
