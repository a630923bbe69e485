"""Runs of every kind, killed again and again at random moments: is a row lost, made twice, altered or paid twice?

    python -m bench.kill_campaign [--kills 1000] [--seed 0] [--kinds t2i edit caption api ray shards] [--out FOLDER]
    python -m bench.kill_campaign --kills 513 --seed 1 --after FOLDER/kill_campaign.json --out FOLDER     # goes on

Each episode is a command on a cheap backend (and for `api` a loopback service that counts what it is asked). A killer
sends SIGKILL to the command or to one of its workers. A command that was killed is started again, and so is one that
gave up because its last worker was killed at three starts in a row. At the end of the episode its table, journal and
pictures are compared with those of a run that nothing disturbed. For `shards` three parts run at the same time; for
`ray` the workers are on a cluster of two machines of Ray on this one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from bench.api_campaign import MODEL, Service

KINDS = ("t2i", "edit", "caption", "api", "ray", "shards")
PARTS = 3
PAUSE_S = (0.05, 0.6)
COMMAND_SHARE = 0.25
"""How often the command itself is killed; else it is a worker."""
PATIENCE_S = 300.0


class Kind:
    """One kind of command: its rows, its flags, and what an undisturbed run of it makes."""

    def __init__(self, name: str, folder: Path, rows: int, more: tuple[str, ...] = ()):
        self.name, self.folder = name, folder
        folder.mkdir()
        task = {"edit": "edit", "caption": "caption"}.get(name, "t2i")
        backend = ("--backend", "fake", "--gpus", "cpu:2", "--batch-size", "2")
        if name == "api":
            backend = ("--backend", "openai", "--model", MODEL, "--quality", "low", "--max-inflight", "8")
        if name == "ray":
            backend = ("--backend", "fake", "--batch-size", "2", "--engine", "ray", "--gpus", "cpu")
        if task == "caption":
            backend = ("--backend", "fake", "--gpus", "cpu:2")
        self.prompts = {f"r{i}": f"picture {i} slow:0.05" for i in range(rows)}
        Image.new("RGB", (64, 64), "red").save(folder / "red.png")
        with (folder / "rows.jsonl").open("w") as file:
            for i, (id, prompt) in enumerate(self.prompts.items()):
                size = "1024x1024" if name == "api" else f"{64 + 16 * (i % 5)}x64"
                extra = {"image": "red.png"} if task != "t2i" else {"size": size}
                file.write(json.dumps({"id": id, "prompt": prompt, "note": i, **extra}) + "\n")
        self.flags = [task, str(folder / "rows.jsonl"), "--quiet", *backend, *more]

    def commands(self, out: Path) -> list[list[str]]:
        """What has to run; all of them at the same time."""
        command = [sys.executable, "-m", "fastgen", *self.flags, "-o", str(out)]
        if self.name != "shards":
            return [command]
        return [[*command, "--shard", f"{part}/{PARTS}"] for part in range(1, PARTS + 1)]


def start(command: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "OPENAI_API_KEY": "test-key"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def made(out: Path) -> dict[str, tuple]:
    """Of each row of the table: status, the user's own fields, and what it has, without times."""
    found = {}
    for row in map(json.loads, (out / "results.jsonl").open()):
        about = row.pop("fastgen")
        names = row.pop("images", None) or row.pop("edited_images", None) or ()
        pictures = tuple(hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names)
        error = (about.get("error") or {}).get("kind", "")
        found[about["id"]] = (about["status"], error, about.get("seed"), json.dumps(row, sort_keys=True), pictures)
    return found


def committed(out: Path) -> Counter[str]:
    """How often each row is in the journals of a run that counts."""
    found: Counter[str] = Counter()
    for path in [*out.glob("shards/*/journal.jsonl")] or [out / "journal.jsonl"]:
        if path.exists():
            for line in path.open("rb"):
                with suppress(ValueError):  # a torn last line
                    found[json.loads(line)["rec"]["id"]] += 1
    return found


class Episode:
    """Kills so often, then lets the command end. Figures are added up in `figures`."""

    def __init__(self, kind: Kind, out: Path, rng: random.Random, service: Service | None):
        self.kind, self.out, self._rng, self._service = kind, out, rng, service
        self.figures: Counter[str] = Counter()

    def run(self, kills: int, want: dict[str, tuple]) -> None:
        """Args: want: what an undisturbed run made."""
        commands, running = self.kind.commands(self.out), dict[int, subprocess.Popen]()
        asked = Counter(self._service.paid) if self._service else Counter[str]()
        safe = self._safe()
        for number, command in enumerate(commands):
            running[number] = start(command)
        while running:
            killed = self._kill_one(running) if self.figures["kills"] < kills else None
            for number, process in list(running.items()):
                if killed is None and self.figures["kills"] >= kills:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.2)
                if process.poll() is None:
                    continue
                errors = process.communicate()[1]
                del running[number]
                if process.returncode in (-signal.SIGKILL, 1):  # 1: its last worker was killed at three starts
                    self.figures["commands_killed" if process.returncode < 0 else "gave_up"] += 1
                    self._count_paid(asked, safe)
                    asked = Counter(self._service.paid) if self._service else asked
                    safe = self._safe()
                    running[number] = start(commands[number])
                elif process.returncode not in (0, 3):
                    self.figures["ended_badly"] += 1
                    print(f"{self.kind.name}: {process.returncode}: {errors[-400:]}", file=sys.stderr, flush=True)
        self._count_paid(asked, safe)
        self._compare(want)

    def _kill_one(self, running: dict[int, subprocess.Popen]) -> bool | None:
        """None: no command is left to kill."""
        time.sleep(self._rng.uniform(*PAUSE_S))
        alive = [process.pid for process in running.values() if process.poll() is None]
        if not alive:
            return None
        workers = _workers()
        pick_command = self._rng.random() < COMMAND_SHARE
        if not workers and not pick_command:
            return True  # it is still on its way to its first worker
        victim = self._rng.choice(alive if pick_command else workers)
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            self.figures["kills"] += 1
            if pick_command:
                next(process for process in running.values() if process.pid == victim).wait()
        return True

    def _safe(self) -> set[str]:
        return set(committed(self.out)) if self._service else set()

    def _count_paid(self, asked: Counter[str], safe: set[str]) -> None:
        """Requests since `asked` for rows that were in the journal then, and requests that a kill made vain."""
        if self._service is None:
            return
        deadline = time.monotonic() + 10
        while self._service.waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        prompts = self.kind.prompts
        self.figures["paid_twice"] += sum(self._service.paid[prompts[id]] > asked[prompts[id]] for id in safe)

    def _compare(self, want: dict[str, tuple]) -> None:
        found = made(self.out) if (self.out / "results.jsonl").exists() else {}
        times = committed(self.out)
        self.figures["rows"] += len(want)
        self.figures["lost"] += sum(id not in found for id in want)
        self.figures["doubled"] += sum(count - 1 for count in times.values())
        self.figures["altered"] += sum(found[id] != want[id] for id in want if found.get(id, "?")[0] == "done")
        self.figures["failed_without_fault"] += sum(about[0] == "failed" for about in found.values())
        self.figures["episodes"] += 1


def _workers() -> list[int]:
    """The workers of all commands, also those on Ray's machines, which are processes of this one too."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "fastgen.workers.worker_main" in process.cmdline():
                found.append(process.pid)
    return found


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Two machines of Ray on this one. Yields their address."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "node_ip_address": "127.0.0.2"}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


def campaign(
    folder: Path, kills: int, seed: int, kinds: tuple[str, ...], rows: int, each: int, most_s: float = 1e9
) -> dict[str, Any]:
    """Episodes of all kinds in turn until there were so many kills.

    Args:
        rows: of an episode.
        each: kills of an episode.
        most_s: no episode begins after so many seconds.
    """
    rng, started = random.Random(seed), time.monotonic()
    figures = {name: Counter[str]() for name in kinds}
    with ExitStack() as stack:
        service = stack.enter_context(Service(seed)) if "api" in kinds else None
        more: dict[str, tuple[str, ...]] = {"api": ("--base-url", service.url) if service else ()}
        if "ray" in kinds:
            more["ray"] = ("--ray-address", stack.enter_context(ray_cluster()))
        all_kinds = {name: Kind(name, folder / name, rows, more.get(name, ())) for name in kinds}
        wanted = {name: _undisturbed(kind, folder / name / "alone") for name, kind in all_kinds.items()}
        number = 0
        while (left := kills - sum(found["kills"] for found in figures.values())) > 0:
            if time.monotonic() - started > most_s:
                break
            name = kinds[number % len(kinds)]
            number += 1
            if service:
                service.paid.clear()
            episode = Episode(all_kinds[name], folder / name / f"run-{number}", rng, service if name == "api" else None)
            episode.run(min(each, left), wanted[name])
            figures[name] += episode.figures
            print(json.dumps({name: dict(episode.figures)}), flush=True)
    total = sum(figures.values(), Counter[str]())
    names = ("kills", "commands_killed", "episodes", "rows", "lost", "doubled", "altered", "paid_twice")
    names += ("failed_without_fault", "gave_up", "ended_badly")
    return {
        "seed": seed,
        **{name: total[name] for name in names},
        "by_kind": {name: {key: found[key] for key in names} for name, found in figures.items()},
        "seconds": round(time.monotonic() - started, 1),
    }


def added(earlier: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The figures of two campaigns, of which one went on after the other; `seed` has the seeds of both."""
    kinds = dict.fromkeys((*earlier["by_kind"], *found["by_kind"]))
    parts = [[one["by_kind"].get(kind, {}) for kind in kinds] for one in (earlier, found)]
    counts = {name for name, value in found.items() if isinstance(value, int) and name != "seed"}
    return {
        "seed": [*_list(earlier["seed"]), *_list(found["seed"])],
        **{name: earlier[name] + found[name] for name in found if name in counts},
        "by_kind": {
            kind: {name: one.get(name, 0) + two.get(name, 0) for name in (two or one)}
            for kind, one, two in zip(kinds, *parts, strict=True)
        },
        "seconds": round(earlier["seconds"] + found["seconds"], 1),
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _undisturbed(kind: Kind, out: Path) -> dict[str, tuple]:
    for command in kind.commands(out):
        process = start(command)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
    return made(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=1e6, help="no episode begins after so many minutes")
    parser.add_argument("--each", type=int, default=12, help="kills of an episode")
    parser.add_argument("--rows", type=int, default=60, help="rows of an episode")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, help="folder for kill_campaign.json")
    parser.add_argument("--after", type=Path, help="what an earlier campaign wrote; its figures are added")
    args = parser.parse_args()
    earlier = json.loads(args.after.read_text()) if args.after else None
    with tempfile.TemporaryDirectory() as name:
        found = campaign(Path(name), args.kills, args.seed, tuple(args.kinds), args.rows, args.each, 60 * args.minutes)
    found = added(earlier, found) if earlier else found
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        **found,
    }
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "kill_campaign.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
