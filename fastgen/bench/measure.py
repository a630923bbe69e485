"""The rounds: in each turn every arm processes the same rows, one arm after the other, in a new order each time. Ratios
are between rounds of the same turn, so a machine that slows down for a while slows down both sides.

Arms stay in memory between their rounds, as many as fit; the baseline runs again with each such group. If not even two
fit, each arm runs all its rounds alone, the baseline first.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from fastgen.backends.registry import streams
from fastgen.bench import peak
from fastgen.bench.arms import Arm
from fastgen.bench.eta import Eta
from fastgen.bench.judge import Judge
from fastgen.bench.process import ArmFailed, ArmProcess, ArmRefused
from fastgen.bench.rounds import Round
from fastgen.bench.work import Work
from fastgen.config import hardware
from fastgen.errors import EngineError

ROUND_S = {"cpu": 3.0, "cuda": 15.0}
"""How long a round of the baseline should take, if the number of rows is not given."""
MOST_TOGETHER = 4
ROOM = 0.7
"""Share of the free memory that arms may use together."""
SPARE = 1.25
"""If the free memory is less than this many times what the baseline took, no arm stays in memory next to it."""

Say = Callable[[str], None]


@dataclass
class Figures:
    """What was measured for an arm."""

    arm: Arm
    failed: str = ""
    first_seconds: float = 0.0
    rates: list[float] = field(default_factory=list)
    """Images or texts per second, for each round."""
    ratios: list[float] = field(default_factory=list)
    """Relative to the baseline in the same turn."""
    stages: Counter = field(default_factory=Counter)
    work: Counter = field(default_factory=Counter)
    facts: dict = field(default_factory=dict)
    main_peak_gib: float = 0.0
    gpu_peak_gib: float = 0.0
    images: int = 0
    """Images or texts in all rounds together."""
    failed_rows: int = 0
    judge: Judge = field(default_factory=Judge)

    def add(self, found: Round, count: int) -> None:
        self.rates.append(count / found.seconds)
        self.images += count
        self.failed_rows += found.failed
        self.stages.update(found.stages)
        self.work.update(found.work)
        self.facts = found.facts or self.facts
        self.gpu_peak_gib = max(self.gpu_peak_gib, found.gpu_peak_gib)

    def as_dict(self, work: Work, most_flops: float) -> dict:
        """For bench.json. None means not measured or without meaning."""
        settings = self.arm.settings
        found: dict = {
            "name": self.arm.name,
            "refused": self.arm.refused,
            "same_as": self.arm.same_as,
            "failed": self.failed,
        }
        if not self.rates or self.failed or self.arm.refused:
            return found
        rate = statistics.median(self.rates)
        is_picture = settings.task != "caption"
        flops = peak.flops_per_picture(settings, work.size, self.work) if is_picture else None
        full, done = self.work.get("blocks_without_cache"), self.work.get("blocks")
        return found | {
            "images_per_second": round(rate, 3),
            "images_per_second_by_round": [round(one, 3) for one in self.rates],
            "ratio": round(statistics.median(self.ratios), 3) if self.ratios else 1.0,
            "ratio_least": round(min(self.ratios, default=1.0), 3),
            "ratio_most": round(max(self.ratios, default=1.0), 3),
            "stages_seconds": {name: round(seconds / self.images, 5) for name, seconds in self.stages.items()},
            "first_image_seconds": round(self.first_seconds, 2),
            "peak_memory_gib": {"main": round(self.main_peak_gib, 2), "gpu": round(self.gpu_peak_gib, 2) or None},
            "failed_rows": self.failed_rows,
            "recompiles": self.work.get("recompiles", 0 if is_picture else None),
            "times_fewer_blocks": round(full / done, 3) if full and done else 1.0 if is_picture else None,
            "tflop_per_image": round(flops / 1e12, 6) if flops else None,
            "share_of_peak": round(rate * flops / most_flops, 4) if flops and most_flops else None,
            **self.judge.as_dict(),
            "engine": self.facts,
        }


class Measurement:
    """Args: arms: the baseline first; folder: where runs go; rows: per round, 0 for as many as take a few seconds."""

    def __init__(self, arms: list[Arm], work: Work, folder: Path, *, rounds: int, rows: int, say: Say):
        self.work = work
        self.folder = folder
        self.rounds = rounds
        self.rows = rows
        self.say = say
        self.figures = [Figures(arm) for arm in arms]
        self.interleaved = True
        """Whether the baseline ran in the same turns as the others."""
        self._theirs: dict[int, Round] = {}
        """The baseline's last round of each turn."""
        self._eta = Eta(0, 0)
        self._reference: dict[str, str] = {}
        """The baseline's images or texts by id; they are kept until the end."""

    def run(self) -> None:
        """Run all rounds.

        Raises:
            EngineError: the baseline cannot run, so nothing can be compared.
        """
        opponent = self.figures[0]
        before = self._free_gib()
        process = self._begin(opponent)
        if process is None:
            raise EngineError(f"{opponent.arm.name}, the baseline, does not run here: {opponent.failed}")
        waiting = [one for one in self.figures[1:] if not (one.arm.refused or one.arm.same_as)]
        free = self._free_gib()
        needed = max(0.1, before - free, opponent.gpu_peak_gib or opponent.main_peak_gib)
        is_served = (
            opponent.arm.settings.task == "caption"
        )  # vLLM takes the memory it is told to take, and works a little even while idle
        together = 1 if is_served else max(1, min(MOST_TOGETHER, int(ROOM * free / needed)))
        companies = -(-len(waiting) // together) or 1
        self._eta.starts = 1 + len(waiting)
        self._eta.rounds = self.rounds * (len(waiting) + companies)  # the baseline plays with each of them
        fits = free > SPARE * needed and not (is_served and opponent.arm.settings.placement.devices[0].gpu)
        staying = [(opponent, process)]
        try:
            if not waiting or not fits:
                self.interleaved = not waiting
                self._play(staying)
                process.end()
                staying = []
            while waiting:
                company, waiting = waiting[:together], waiting[together:]
                self._company(staying, company)
        finally:
            process.end()
            for turn in range(1, self.rounds):
                shutil.rmtree(process.folder / str(turn), ignore_errors=True)

    def _company(self, staying: list[tuple[Figures, ArmProcess]], company: list[Figures]) -> None:
        """Run some arms from start to end, together with the baseline if it stays in memory."""
        playing = list(staying)
        try:
            for figures in company:
                if (started := self._begin(figures)) is not None:
                    playing.append((figures, started))
            self._play(playing)
        finally:
            for _, started in playing[len(staying) :]:
                started.end()

    def _begin(self, figures: Figures) -> ArmProcess | None:
        """Start an arm: make its first image, then a batch for each stream, which is not timed."""
        settings = figures.arm.settings
        self.say(f"{figures.arm.name}: starts")
        began = time.monotonic()
        process = ArmProcess(figures.arm, self.folder / figures.arm.name.replace(" ", "_").replace("/", "_"))
        try:
            figures.first_seconds, made = process.first(self.work.rows(-2, 1)[0][0])
            width, height = self.work.size
            unit = settings.samples_for(width * height) * streams(settings.placement.devices[0], settings.optimizations)
            if settings.task == "caption":  # fewer would leave a server with that many slots half idle
                unit = max(16, self.figures[0].arm.settings.endpoint.max_inflight)
            warm = process.play(self.work.rows(-1, unit)[0], "warm")
            if not self.rows:
                seconds = ROUND_S["cuda" if settings.placement.devices[0].gpu else "cpu"]
                self.rows = max(1, round(seconds / warm.seconds)) * unit
            shutil.rmtree(process.folder / "warm")
            figures.main_peak_gib, figures.gpu_peak_gib = process.peak_gib(), warm.gpu_peak_gib
            figures.work["recompiles"] += made.work.get("recompiles", 0) + warm.work.get("recompiles", 0)
        except ArmRefused as error:
            figures.failed = str(error)
            if figures is not self.figures[0] and not figures.arm.asked_for:
                figures.arm, figures.failed = replace(figures.arm, refused=str(error)), ""
            self.say(f"{figures.arm.name}: cannot run here: {error}")
            process.end()
            self._eta.skip(self.rounds)
            return None
        except ArmFailed as error:
            figures.failed = str(error)
            self.say(f"{figures.arm.name}: failed: {error}")
            process.end()
            self._eta.skip(self.rounds)
            return None
        finally:
            self._eta.started(time.monotonic() - began)
        self.say(f"{figures.arm.name}: first result after {figures.first_seconds:.1f} s")
        return process

    def _play(self, playing: list[tuple[Figures, ArmProcess]]) -> None:
        """Run all rounds of these arms."""
        opponent = self.figures[0]
        for turn in range(self.rounds):
            rows, wishes = self.work.rows(turn, self.rows)
            found: list[tuple[Figures, ArmProcess, Round]] = []
            first = turn % max(1, len(playing))
            for figures, process in playing[first:] + playing[:first]:
                if figures.failed:
                    continue
                try:
                    found.append((figures, process, process.play(rows, str(turn))))
                except ArmFailed as error:
                    figures.failed = str(error)
                    self.say(f"{figures.arm.name}: failed: {error}")
            if opponent.failed:
                raise EngineError(f"{opponent.arm.name}, the baseline: {opponent.failed}")
            found.sort(key=lambda one: one[0] is not opponent)  # the others are compared with it
            for figures, process, made in found:
                if figures is opponent:
                    self._theirs[turn] = made
                else:
                    theirs = self._theirs[turn]
                    figures.ratios.append((len(made.made) / made.seconds) / (len(theirs.made) / theirs.seconds))
                self._judge(figures, made, wishes)
                figures.add(made, len(made.made))
                self._eta.played(made.seconds)
                figures.main_peak_gib = process.peak_gib()
                if turn and figures is not opponent:
                    shutil.rmtree(process.folder / str(turn))
            told = (
                f"{f.arm.name} {f.ratios[-1]:.2f}x" if f.ratios else f"{f.arm.name} {f.rates[-1]:.3g}/s"
                for f, *_ in found
            )
            left = f"; {self._eta}" if str(self._eta) else ""
            self.say(f"round {turn + 1} of {self.rounds}, {len(rows)} rows: {', '.join(told)}{left}")

    def _judge(self, figures: Figures, made: Round, wishes: dict) -> None:
        look = figures.judge.texts if figures.arm.settings.task == "caption" else figures.judge.pictures
        if figures is not self.figures[0]:
            look(made.made, self._reference, wishes)
        elif not self._reference.keys() & made.made.keys():  # not those that it makes again with another group
            look(made.made, {}, wishes)
            self._reference |= made.made

    def _free_gib(self) -> float:
        gpu = self.figures[0].arm.settings.placement.devices[0].gpu
        return hardware.free_gpu_gib(gpu) if gpu else hardware.free_main_gib()
