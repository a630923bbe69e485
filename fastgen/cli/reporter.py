"""What the user sees while a run goes on. Knows events by name, nothing of how they come about.

Three voices: a person's terminal (stderr, with a progress bar where it is one), JSON events (stdout, one a line, the
summary last), and quiet (errors only).
"""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO

import msgspec

from fastgen.config.settings import Settings
from fastgen.output.writers.tables import describe, output
from fastgen.types import Done, Result

MOST_FAILURES_SHOWN = 20
PLAIN_EVERY_S = 10.0
"""Between progress lines where stderr is not a terminal."""


class Report:
    """Args: voice: "human", "json" or "quiet"."""

    def __init__(self, voice: str, settings: Settings):
        self.voice = voice
        self.settings = settings
        self.total = 0
        self.failures = 0
        self.rows = 0
        self.images = 0
        self.started = self._said = time.monotonic()
        self._bar = None

    def begin(self) -> None:
        settings = self.settings
        profile = settings.placement.profile
        where = ", ".join(f"{d.name} ({d.gpu.name})" if d.gpu else d.name for d in settings.placement.devices)
        if self.voice == "json":
            self._json(
                "start",
                task=settings.task,
                input=settings.run.input,
                out=settings.run.out,
                model=settings.model.name,
                devices=[d.name for d in settings.placement.devices],
                settings=settings.fingerprint(),
                profile=profile.name,
                speed=settings.optimizations.as_table(),
                notes=list(settings.run.notes),
            )
        if self.voice != "human":
            return
        for note in settings.run.notes:
            self._say(f"note: {note}")
        unmeasured = "" if profile.measured.status == "measured" else ", unmeasured: conservative batch sizes"
        chosen = f"profile '{profile.name}' (matches {profile.why}{unmeasured})"
        if settings.backend.is_remote:
            how = f"up to {settings.endpoint.max_inflight} requests at once"
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
        for line in settings.optimizations.explain():
            self._say(f"speed: {line}")
        for link in settings.fallbacks:
            self._say(f"then, for rows that it cannot do: {link.backend}, model {link.model.name}")
        if settings.task != "t2i":
            self._say(f"relative picture paths start at {settings.rows.image_root}")
        self._say(f"out: {settings.run.out}")
        if sys.stderr.isatty():
            self._open_bar()

    def emit(self, event: str, **facts) -> None:
        """Something besides a result happened."""
        if self.voice == "json":
            self._json(event, **facts)
        elif event == "row_failed":
            self.failures += 1
            if self.voice == "human" and self.failures <= MOST_FAILURES_SHOWN:
                self._say(f"failed: {facts['message']} [{facts['kind']}, id {facts['id']}]")
            elif self.voice == "human" and self.failures == MOST_FAILURES_SHOWN + 1:
                self._say("more rows failed; failures.jsonl will name them all")
        elif self.voice == "human" and event == "lane_ready":
            self._say(f"{facts['lane']} ready after {facts.get('load_seconds', 0)} s of loading")
            for note in facts.get("notes", ()):
                self._say(f"{facts['lane']}: {note}")
        elif self.voice == "human" and event in ("lane_died", "lane_restarted"):
            self._say(f"{facts['lane']}: {facts['reason'].splitlines()[0]}; starting it again")
        elif event == "warning":
            self._say(f"warning: {facts['message']}")

    def result(self, result: Result, counts: dict[str, int], total: int) -> None:
        """A result was committed. `total`: about how many rows there are, 0 if not known."""
        self.total = total
        self.rows = counts.get("done", 0) + counts.get("failed", 0) + counts.get("kept", 0)
        self.images = counts.get("images", 0) + counts.get("captions", 0)
        if self.voice == "json":
            if isinstance(result, Done):
                key = self.settings.rows.output_key if result.text else "paths"
                self._json("row_done", **{key: output(result, self.settings)}, **describe(result))
        elif self._bar is not None:
            self._bar.update(0, completed=self.rows, total=max(self.total, self.rows) or None, rate=self._rate())
        elif self.voice == "human" and time.monotonic() - self._said > PLAIN_EVERY_S:
            self._said = time.monotonic()
            self._say(f"{self.rows}{f' of {self.total}' if self.total else ''} rows, {self._rate()}")

    def end(self, state: str, exit_code: int, summary: dict, message: str = "") -> None:
        """The last word: the summary, or why there is none."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        counts = summary.get("counts", {})
        if self.voice == "json":
            self._json(
                "summary", state=state, exit_code=exit_code, message=message, out=self.settings.run.out, **summary
            )
            return
        if self.voice == "human" and state in ("finished", "interrupted"):
            made = "captions" if self.settings.task == "caption" else "images"
            rate = summary.get(f"{made}_per_second")
            text = (
                f"{counts.get('done', 0)} done, {counts.get('failed', 0)} failed, {counts.get('kept', 0)} kept "
                "as they were"
            )
            text += f"; {counts.get(made, 0)} {made} made in {time.monotonic() - self.started:.1f} s"
            text += f" ({rate:.2f} a second once loaded)" if rate else ""
            if len(served := summary.get("served_by", {})) > 1:
                text += "; served by " + ", ".join(f"{name}: {rows}" for name, rows in served.items())
            if cost := summary.get("cost_usd"):
                text += f"; {cost:.4f} USD so far, as far as known"
            self._say(text)
            if state == "finished":
                self._say(f"table: {self.settings.run.out}/results.jsonl")
                if counts.get("failed"):
                    self._say(
                        f"failed rows: {self.settings.run.out}/failures.jsonl (mend and feed in with another -o; or "
                        "--retry-failed here)"
                    )
            else:
                self._say("interrupted; nothing is lost: the same command goes on from here")
        if message:
            self._say(message, error=True)

    def _rate(self) -> str:
        seconds = max(1e-9, time.monotonic() - self.started)
        return f"{self.images / seconds:.2f} {'captions' if self.settings.task == 'caption' else 'images'}/s"

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("rows"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            refresh_per_second=4,
        )
        self._bar.add_task("rows", total=self.total or None, rate="loading")
        self._bar.start()

    def _say(self, text: str, error: bool = False) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _json(self, event: str, **facts) -> None:
        _print_json(sys.stdout, {"event": event, **facts})


def _print_json(stream: TextIO, value: dict) -> None:
    stream.write(json.dumps(value, ensure_ascii=False) + "\n")
    stream.flush()


def say_plan(plan: dict, settings: Settings, voice: str) -> None:
    """What --dry-run shows of `fastgen.explain`."""
    if voice == "json":
        _print_json(sys.stdout, {"event": "plan", **msgspec.to_builtins(plan)})
        return
    for note in settings.run.notes:
        print(f"note: {note}")
    print(
        f"{plan['rows']} rows: {plan['done']} done and {plan['failed']} failed in earlier runs, {plan['kept']} kept as "
        f"they are, {len(plan['bad'])} bad"
    )
    for failed in plan["bad"][:MOST_FAILURES_SHOWN]:
        print(f"  bad: {failed.message}")
    if len(plan["bad"]) > MOST_FAILURES_SHOWN:
        print(f"  and {len(plan['bad']) - MOST_FAILURES_SHOWN} more")
    profile = settings.placement.profile
    why = "--batch-size" if settings.run.batch_size else f"profile '{profile.name}', which matches {profile.why}"
    if settings.backend.is_remote:
        where = settings.endpoint.base_url or (
            "a server of its own" if settings.endpoint.command else "the vendor's service"
        )
        print(
            f"{settings.backend}, model {settings.model.name} at {where}: a row a request, up to "
            f"{settings.endpoint.max_inflight} at once"
        )
        return
    print(
        f"model {settings.model.name} on {', '.join(d.name for d in settings.placement.devices)}, "
        f"{settings.engine.dtype}"
    )
    for line in settings.optimizations.explain():
        print(f"speed: {line}")
    print(f"batch sizes from {why}; rows share a batch when task, size, reference size and number of turns are equal:")
    for bucket in plan["buckets"]:
        print(
            f"  {bucket['bucket']}: {bucket['requests']} rows, {bucket['samples']} samples, "
            f"batch {bucket['batch_size']} -> {bucket['batches']} batches"
        )
