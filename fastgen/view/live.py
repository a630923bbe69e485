"""How far a run is, as a person reads it while it goes on: a bar, rate and time left, and a line per worker. On a
terminal it stays below what is printed; in a notebook it is an output of the cell. Draws what the event "progress" says
(docs/events.md); knows no run."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

MOST_WORKERS = 12
"""More of them are counted in one line."""
GAP, MIN_BUCKET = 2, 6
"""Columns of the terminal between two columns of the table, and of a bucket where there is little room."""
LINES_EVERY_S = 10.0
"""Between two lines where nobody watches."""
NOTEBOOK_EVERY_S = 0.5
NOTEBOOK_COLUMNS = 100


def duration(seconds: float) -> str:
    """For example "40 s", "12 min" or "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 24 else f"{hours / 24:.1f} days"


def size(mib: int) -> str:
    """For example "23.4 GiB"; "" for 0."""
    return "" if not mib else f"{mib} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"


def made_by(facts: dict[str, Any]) -> str:
    """What the run makes: "images" or "captions"."""
    return "captions" if "captions" in facts else "images"


def rows(facts: dict[str, Any]) -> str:
    """For example "1,204 of 9,000 rows"."""
    return f"{facts['rows']:,} of {facts['total']:,} rows" if facts["total"] else f"{facts['rows']:,} rows"


def pace(facts: dict[str, Any], passed_s: float = 0.0) -> str:
    """Rate, time left, failures and cost. `passed_s`: seconds since the facts were told."""
    made = made_by(facts)
    rate, eta_s = facts.get(f"{made}_per_second"), facts.get("eta_seconds")
    parts = [f"{rate:.2f} {made}/s"] if rate else []
    if not rate and facts["workers"]:
        loading = all(worker["state"] == "loading" for worker in facts["workers"])
        parts = ["loading" if loading else "working"]
    if eta_s is not None:
        parts.append(f"{duration(max(0.0, eta_s - passed_s))} left")
    if facts["failed"]:
        parts.append(f"{facts['failed']:,} failed")
    if facts["cost_usd"]:
        parts.append(f"{facts['cost_usd']:.4f} USD")
    return " · ".join(parts)


def line(facts: dict[str, Any]) -> str:
    """All of it in one line, for a log."""
    share = f" ({facts['rows'] / facts['total']:.0%})" if facts["total"] else ""
    return ", ".join([f"{rows(facts)}{share}", *filter(None, pace(facts).split(" · "))])


def workers(facts: dict[str, Any], width: int) -> Table:
    """A line per worker, with what is known of any of them. Buckets get what is left of `width` columns."""
    from rich.table import Table
    from rich.text import Text

    made, all_workers = made_by(facts), facts["workers"]
    shown = all_workers[:MOST_WORKERS]
    columns: dict[str, list[str]] = {
        "worker": [worker["lane"] for worker in shown],
        "state": [worker["state"] for worker in shown],
        "bucket": [worker["bucket"] for worker in shown],
        f"{made}/s": [f"{rate:.2f}" if (rate := worker[f"{made}_per_second"]) else "" for worker in shown],
        "memory": [size(worker["memory_mib"]) for worker in shown],
        "restarts": [str(worker["restarts"] or "") for worker in shown],
    }
    if others := all_workers[MOST_WORKERS:]:
        working = sum(worker["state"] == "working" for worker in others)
        for name, cells in columns.items():
            cells.append({"worker": f"{len(others)} more", "state": f"{working} working"}.get(name, ""))
    known = {name: cells for name, cells in columns.items() if name in ("worker", "state") or any(cells)}
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim", pad_edge=False)
    widths = {name: max(map(len, (name, *cells))) for name, cells in known.items()}
    room = width - sum(widths.values()) - GAP * (len(widths) - 1)
    for name, wide in widths.items():
        if name == "bucket":
            wide = max(MIN_BUCKET, wide + min(0, room))
        right: Any = "left" if name in ("worker", "state", "bucket") else "right"
        table.add_column(name, justify=right, no_wrap=True, overflow="ellipsis", width=wide)
    for row in zip(*known.values(), strict=True):
        table.add_row(*map(Text, row))
    return table


class Live:
    """Args:
    console: where to draw.
    clock: seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self.console = console
        self._clock = clock
        self._facts: dict[str, Any] | None = None
        self._told = clock()
        self._live: Any = None

    def start(self) -> None:
        from rich.live import Live as RichLive

        self._live = RichLive(
            console=self.console,
            get_renderable=self.drawn,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file or a pipe stays there
        )
        self._live.start()

    def take(self, facts: dict[str, Any]) -> None:
        """The facts of an event "progress"."""
        self._facts, self._told = dict(facts), self._clock()

    def count(self, counts: dict[str, int]) -> None:
        """Rows that were settled since the last event."""
        if self._facts is not None:
            settled = sum(counts.get(name, 0) for name in ("done", "failed", "kept"))
            self._facts["rows"] = max(self._facts["rows"], settled)
            self._facts["total"] = max(self._facts["total"], self._facts["rows"]) if self._facts["total"] else 0
            self._facts["failed"] = counts.get("failed", 0)

    def drawn(self) -> RenderableType:
        """The bar, a line about the run, and the workers."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        facts = self._facts
        if facts is None:
            return Text("loading")
        head = Table.grid(padding=(0, 2, 0, 0), expand=True)
        head.add_column(ratio=1)
        head.add_column(no_wrap=True, justify="right")
        share = f"{facts['rows'] / facts['total']:.0%}" if facts["total"] else ""
        bar = ProgressBar(total=facts["total"] or None, completed=facts["rows"], pulse=not facts["total"])
        head.add_row(bar, Text(f"{rows(facts)}  {share}".rstrip()))
        below = Text(pace(facts, self._clock() - self._told), overflow="ellipsis")
        return Group(head, below, *([workers(facts, self.console.width)] if facts["workers"] else []))

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class Notebook(Live):
    """The same as an output of a notebook's cell, which is drawn again in place. Needs IPython and no widgets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        from rich.console import Console

        # Colors and lines as HTML. In a notebook rich would show each drawing as an output of its own.
        console = Console(
            record=True, width=NOTEBOOK_COLUMNS, file=io.StringIO(), force_terminal=True, force_jupyter=False
        )
        super().__init__(console, clock)
        self._handle: Any = None
        self._drawn = float("-inf")

    def start(self) -> None:
        from IPython.display import HTML, display

        self._handle = display(HTML(self._html()), display_id=True)

    def take(self, facts: dict[str, Any]) -> None:
        super().take(facts)
        self._update()

    def count(self, counts: dict[str, int]) -> None:
        super().count(counts)
        if self._clock() - self._drawn >= NOTEBOOK_EVERY_S:
            self._update()

    def stop(self) -> None:
        self._update()

    def _update(self) -> None:
        from IPython.display import HTML

        self._drawn = self._clock()
        if self._handle is not None:
            self._handle.update(HTML(self._html()))

    def _html(self) -> str:
        self.console.print(self.drawn())
        form = "<pre style='line-height:1.3'>{code}</pre>"
        return self.console.export_html(inline_styles=True, code_format=form)


class Lines:
    """The same as lines on stderr, now and then, where nobody watches. Args: what: the first word of each line."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic):
        self._what, self._clock = what, clock
        self._said, self._line = clock(), ""

    def start(self) -> None: ...

    def take(self, facts: dict[str, Any]) -> None:
        now = self._clock()
        if now - self._said >= LINES_EVERY_S and (said := line(facts)) != self._line:
            self._said, self._line = now, said
            print(f"{self._what}: {said}", file=sys.stderr, flush=True)

    def count(self, counts: dict[str, int]) -> None: ...

    def stop(self) -> None: ...


def display() -> Live | None:
    """Where a person can watch: a notebook, or stderr if that is a terminal; else None."""
    if is_notebook():
        return Notebook()
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    return Live(Console(stderr=True))


def is_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and shell.__class__.__name__ == "ZMQInteractiveShell"
