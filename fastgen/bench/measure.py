"""The rounds: every arm does the same rows, one arm after the other in each turn, in another order each time. Ratios are between
rounds of the same turn, so what slows the machine for a while slows both sides of them.

Arms stay in memory between their rounds, as many at once as fit; with each such company the opponent plays again.
"""

from __future__ import annotations

import shutil
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fastgen import hardware
from fastgen.backends import streams
from fastgen.bench import peak
from fastgen.bench.arms import Arm
from fastgen.bench.judge import Judge
from fastgen.bench.player import Round
from fastgen.bench.process import ArmFailed, ArmProcess
from fastgen.bench.work import Work
from fastgen.errors import EngineError

ROUND_S = {"cpu": 3.0, "cuda": 15.0}
"""How long a round of the opponent's is to take, where nobody says how many rows it has."""
MOST_TOGETHER = 4
ROOM = 0.7
"""Of the free memory that arms may fill together."""

Say = Callable[[str], None]


@dataclass
class Figures:
    """What was found out about an arm."""

    arm: Arm
    failed: str = ""
    first_seconds: float = 0.0
    rates: list[float] = field(default_factory=list)
    """Pictures or texts a second, of each round."""
    ratios: list[float] = field(default_factory=list)
    """Against the opponent in the same turn."""
    stages: Counter = field(default_factory=Counter)
    work: Counter = field(default_factory=Counter)
    facts: dict = field(default_factory=dict)
    main_peak_gib: float = 0.0
    gpu_peak_gib: float = 0.0
    judge: Judge = field(default_factory=Judge)
    samples: dict[str, str] = field(default_factory=dict)
    """Pictures or texts of the first round, by id."""

    def add(self, found: Round, count: int) -> None:
        self.rates.append(count / found.seconds)
        self.stages.update(found.stages)
        self.work.update(found.work)
        self.facts = found.facts or self.facts
        self.gpu_peak_gib = max(self.gpu_peak_gib, found.gpu_peak_gib)

    def as_dict(self, work: Work, most_flops: float) -> dict:
        """For bench.json. None stands for what was not measured or has no meaning."""
        settings = self.arm.settings
        found: dict = {
            "name": self.arm.name,
            "refused": self.arm.refused,
            "same_as": self.arm.same_as,
            "failed": self.failed,
        }
        if not self.rates or self.failed:
            return found
        rate = statistics.median(self.rates)
        is_picture = settings.task != "caption"
        flops = peak.flops_per_picture(settings, work.size, self.work) if is_picture else None
        full, done = self.work.get("blocks_without_cache"), self.work.get("blocks")
        return found | {
            "images_per_second": round(rate, 3), "images_per_second_by_round": [round(one, 3) for one in self.rates],
            "ratio": round(statistics.median(self.ratios), 3) if self.ratios else 1.0,
            "ratio_least": round(min(self.ratios, default=1.0), 3), "ratio_most": round(max(self.ratios, default=1.0), 3),
            "stages_seconds": {name: round(seconds / self.judge.seen, 5) for name, seconds in self.stages.items()},
            "first_image_seconds": round(self.first_seconds, 2),
            "peak_memory_gib": {"main": round(self.main_peak_gib, 2), "gpu": round(self.gpu_peak_gib, 2) or None},
            "recompiles": self.work.get("recompiles", 0 if is_picture else None),
            "times_fewer_blocks": round(full / done, 3) if full and done else 1.0 if is_picture else None,
            "tflop_per_image": round(flops / 1e12, 6) if flops else None,
            "share_of_peak": round(rate * flops / most_flops, 4) if flops and most_flops else None,
            **self.judge.as_dict(), "engine": self.facts,
        }  # fmt: skip


class Measurement:
    """Args: arms: the opponent first; folder: where runs go; rows: a round has, 0 for as many as take some seconds."""

    def __init__(self, arms: list[Arm], work: Work, folder: Path, *, rounds: int, rows: int, say: Say):
        self.work = work
        self.folder = folder
        self.rounds = rounds
        self.rows = rows
        self.say = say
        self.figures = [Figures(arm) for arm in arms]
        self._reference: dict[str, str] = {}
        """The opponent's pictures or texts by id; they stay until the end."""

    def run(self) -> None:
        """Play all rounds.

        Raises:
            EngineError: the opponent cannot play, so nothing can be said.
        """
        opponent = self.figures[0]
        before = self._free_gib()
        process = self._begin(opponent)
        if process is None:
            raise EngineError(
                f"{opponent.arm.name}, which the others are compared with, does not run here: {opponent.failed}"
            )
        needed = max(0.1, before - self._free_gib(), opponent.gpu_peak_gib or opponent.main_peak_gib)
        together = max(1, min(MOST_TOGETHER, int(ROOM * self._free_gib() / needed)))
        waiting = [one for one in self.figures[1:] if not (one.arm.refused or one.arm.same_as)]
        try:
            if not waiting:
                self._play([(opponent, process)])
            while waiting:
                company, waiting = waiting[:together], waiting[together:]
                self._company(opponent, process, company)
        finally:
            process.end()
            for turn in range(1, self.rounds):
                shutil.rmtree(process.folder / str(turn), ignore_errors=True)

    def _company(self, opponent: Figures, process: ArmProcess, company: list[Figures]) -> None:
        """Some arms beside the opponent, from their start to their end."""
        playing = [(opponent, process)]
        try:
            for figures in company:
                if (started := self._begin(figures)) is not None:
                    playing.append((figures, started))
            self._play(playing)
        finally:
            for _, started in playing[1:]:
                started.end()

    def _begin(self, figures: Figures) -> ArmProcess | None:
        """Start an arm: its first picture, then a batch for each stream, which nobody times."""
        settings = figures.arm.settings
        self.say(f"{figures.arm.name}: starts")
        process = ArmProcess(figures.arm, self.folder / figures.arm.name.replace(" ", "_").replace("/", "_"))
        try:
            figures.first_seconds = process.first(self.work.rows(-2, 1)[0][0])
            width, height = self.work.size
            unit = (
                settings.batch_for(width * height) * streams(settings.devices[0]) if settings.task != "caption" else 16
            )
            warm = process.play(self.work.rows(-1, unit)[0], "warm")
            if not self.rows:
                seconds = ROUND_S["cuda" if settings.devices[0].gpu else "cpu"]
                self.rows = max(1, round(seconds / warm.seconds)) * unit
            shutil.rmtree(process.folder / "warm")
            figures.main_peak_gib, figures.gpu_peak_gib = process.peak_gib(), warm.gpu_peak_gib
        except ArmFailed as error:
            figures.failed = str(error)
            self.say(f"{figures.arm.name}: failed: {error}")
            process.end()
            return None
        self.say(f"{figures.arm.name}: first after {figures.first_seconds:.1f} s")
        return process

    def _play(self, playing: list[tuple[Figures, ArmProcess]]) -> None:
        for turn in range(self.rounds):
            rows, wishes = self.work.rows(turn, self.rows)
            found: dict[str, Round] = {}
            for figures, process in playing[turn % len(playing) :] + playing[: turn % len(playing)]:
                if not figures.failed:
                    try:
                        found[figures.arm.name] = process.play(rows, str(turn))
                    except ArmFailed as error:
                        figures.failed = str(error)
                        self.say(f"{figures.arm.name}: failed: {error}")
            opponent = playing[0][0]
            if opponent.failed:
                raise EngineError(f"{opponent.arm.name}, which the others are compared with: {opponent.failed}")
            theirs = found[opponent.arm.name]
            self._judge(opponent, theirs, rows, wishes, is_new=not self._reference.keys() & {row["id"] for row in rows})
            for figures, process in playing[1:]:
                if (ours := found.get(figures.arm.name)) is None:
                    continue
                figures.ratios.append((len(rows) / ours.seconds) / (len(rows) / theirs.seconds))
                self._judge(figures, ours, rows, wishes)
                figures.main_peak_gib = process.peak_gib()
                if turn:
                    shutil.rmtree(process.folder / str(turn))
            opponent.main_peak_gib = playing[0][1].peak_gib()
            told = ", ".join(f"{f.arm.name} {f.ratios[-1]:.2f}x" for f, _ in playing[1:] if f.ratios and not f.failed)
            self.say(
                f"round {turn + 1} of {self.rounds}, {len(rows)} rows: {opponent.arm.name} {opponent.rates[-1]:.2f}/s, {told}"
            )

    def _judge(self, figures: Figures, found: Round, rows: list[dict], wishes: dict, is_new: bool = True) -> None:
        figures.add(found, len(rows))
        if not figures.samples:
            figures.samples = found.made
        if not is_new:  # the opponent once more: only how long it took is news
            figures.judge.seen += len(rows)
            return
        is_opponent = figures is self.figures[0]
        look = figures.judge.texts if figures.arm.settings.task == "caption" else figures.judge.pictures
        look(found.made, {} if is_opponent else self._reference, wishes)
        if is_opponent:
            self._reference |= found.made

    def _free_gib(self) -> float:
        gpu = self.figures[0].arm.settings.devices[0].gpu
        return hardware.free_gpu_gib(gpu) if gpu else hardware.free_main_gib()
