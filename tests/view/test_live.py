"""The progress as a person reads it: on wide and narrow terminals, and in a notebook."""

from __future__ import annotations

import builtins
import html
import io
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from rich.console import Console

from bench import terminal_pictures
from fastgen.view import live
from fastgen.view.live import Live, Notebook, duration, line


def worker(lane, state="working", bucket="t2i 1024x1024", rate=1.16, memory=23962, restarts=0):
    about = {"lane": lane, "backend": "local", "state": state, "bucket": bucket, "batches": 1}
    return about | {"images_per_second": rate, "memory_mib": memory, "restarts": restarts}


def facts(*workers, **more):
    about = {"rows": 1204, "total": 9000, "done": 1200, "failed": 3, "kept": 1, "images": 1100}
    about |= {"images_per_second": 2.31, "eta_seconds": 3400.0, "cost_usd": 0.0, "workers": list(workers)}
    return about | more


TWO = (worker("cuda:0"), worker("cuda:1", "restarting", "", 0.0, 0, 1))


def drawn(facts, width, passed_s=0.0):
    now = [0.0]
    out = io.StringIO()
    view = Live(Console(file=out, width=width), clock=lambda: now[0])
    if facts is not None:
        view.take(facts)
    now[0] += passed_s
    view.console.print(view.drawn())
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_all_of_it_fits(width):
    lines = drawn(facts(*TWO, cost_usd=0.42), width)
    assert max(map(len, lines)) <= width and len(lines) == 5
    assert lines[0].rstrip().endswith("1,204 of 9,000 rows  13%") and lines[0].startswith("━")
    assert lines[1].rstrip() == "2.31 images/s · 57 min left · 3 failed · 0.4200 USD"
    assert lines[2].split() == ["worker", "state", "bucket", "images/s", "memory", "restarts"]
    assert re.match(r"cuda:0  working +t2i 10.* 1\.16 +23\.4 GiB", lines[3]), lines[3]
    assert lines[4].split() == ["cuda:1", "restarting", "1"]


def test_what_nobody_knows_has_no_column():
    lines = drawn(facts(worker("openai", bucket="t2i", rate=0.0, memory=0)), 80)
    assert lines[2].split() == ["worker", "state", "bucket"]


def test_many_workers_are_counted():
    lines = drawn(facts(*(worker(f"cuda:{k}") for k in range(64))), 100)
    assert len(lines) == 3 + live.MOST_WORKERS + 1 and lines[-1].split() == ["52", "more", "52", "working"]


def test_before_anything_is_known():
    assert drawn(None, 80) == ["loading"]
    early = facts(
        worker("cpu", "loading", "", 0.0, 0), rows=0, total=0, failed=0, images_per_second=None, eta_seconds=None
    )
    assert drawn(early, 80)[1].rstrip() == "loading" and "0 rows" in drawn(early, 80)[0]


def test_the_time_left_counts_down_between_events():
    assert "50 s left" in drawn(facts(*TWO, eta_seconds=60.0), 80, passed_s=10.0)[1]


def test_rows_are_counted_between_events():
    out = io.StringIO()
    view = Live(Console(file=out, width=80))
    view.count({"done": 9})
    view.take(facts(*TWO))
    view.count({"done": 1300, "failed": 5, "kept": 1})
    view.console.print(view.drawn())
    assert "1,306 of 9,000 rows" in out.getvalue() and "5 failed" in out.getvalue()


def test_a_line_for_a_log():
    assert line(facts(*TWO)) == "1,204 of 9,000 rows (13%), 2.31 images/s, 57 min left, 3 failed"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (12000, "3 h 20 min"), (200000, "2.3 days")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_a_notebook_has_it_as_an_output_that_is_drawn_in_place(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=lambda html: shown.append(html))
    display = ModuleType("IPython.display")
    display.HTML, display.display = str, lambda html, display_id: (shown.append(html), handle)[1]
    ipython = ModuleType("IPython")
    ipython.get_ipython = type("ZMQInteractiveShell", (), {})
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(builtins, "get_ipython", ipython.get_ipython, raising=False)  # by which rich knows a notebook
    view = live.display()
    assert isinstance(view, Notebook)
    view.start()
    view.take(facts(*TWO))
    view.stop()
    assert (
        "loading" in shown[0] and "1,204 of 9,000 rows" in shown[1] and shown[1].startswith("<pre") and len(shown) == 3
    )
    assert "\x1b" not in shown[1]


def test_without_a_terminal_there_is_none(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert live.display() is None


def lines_of(picture: str) -> list[str]:
    """What a picture shows of a terminal, line by line."""
    cell, found = 12.2, dict[str, str]()
    for x, y, text in re.findall(r'<text class="[^"]*-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', picture):
        found[y] = found.get(y, "").ljust(round(float(x) / cell)) + html.unescape(text).replace("\xa0", " ").rstrip(
            "\n"
        )
    return [found[y] for y in sorted(found, key=float) if found[y].strip()]


@pytest.mark.parametrize("width", [60, 120])
def test_the_pictures_of_the_documentation_fit(width, tmp_path):
    terminal_pictures.draw("fastgen t2i", "t2i: rows\n", facts(*TWO), [width], tmp_path)
    committed = Path(terminal_pictures.__file__).parents[1] / "docs" / "pictures"
    for folder, workers in ((tmp_path, ("cuda:0", "cuda:1")), (committed, ("cpu:0", "cpu:1"))):
        lines = lines_of((folder / f"terminal-{width}.svg").read_text("utf-8"))
        assert lines[0].startswith("$ fastgen t2i") and max(map(len, lines)) <= width, lines
        bar = next(number for number, line in enumerate(lines) if line.startswith("━"))
        assert re.search(r"[\d,]+ of [\d,]+ rows +\d+%$", lines[bar].rstrip()) and "left" in lines[bar + 1]
        assert lines[bar + 2].split()[:2] == ["worker", "state"]
        assert tuple(line.split()[0] for line in lines[bar + 3 :]) == workers
