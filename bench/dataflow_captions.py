"""PromptedVQAGenerator on APIVLMServing_openai against DataFlow-MM's own classes: captions per second at a server that
answers at once.

    python -m bench.dataflow_captions [--theirs CHECKOUT] [--rows 2000] [--workers 10] [--rounds 3] [--latency S]

Both read one table of rows with a picture each, ask one loopback server (a process of its own, which answers after
--latency seconds), and write the table with a column more. With no latency the client's own work is all that there is.

Every figure is of a program of its own. "import" is the time of its imports. "start" is the time of a first call with
as many rows as workers: it starts fastgen's engine process, and their first connections. "rows/s" is of the call after
that, from the operator's `run` to its end, with the reading and writing of tables. "with start" is the same rows over
both calls. The programs take turns; only ratios within one run mean anything.

Without --theirs (a checkout of their repository) the baseline is a loop that does what their class does: a pool of
threads, the vendor's SDK, each picture read and encoded as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench.captions import photographs

ROOT = Path(__file__).resolve().parents[1]
KINDS, SIDE = 20, 384
"""Different pictures, which rows take in turns, and how large they are: small enough to travel as they are."""
SYSTEM = "You are a image caption generator."
ARMS = ("fastgen", "theirs")


# One program


def ours(url: str, workers: int):
    """caption(storage), with fastgen's classes."""
    from fastgen.dataflow.operators.core_vision import PromptedVQAGenerator
    from fastgen.dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
    from fastgen.dataflow.utils.storage import FileStorage

    return _operator(PromptedVQAGenerator, APIVLMServing_openai, FileStorage, url, workers)


def theirs(checkout: str, url: str, workers: int):
    """The same with theirs, or with a loop that does what they do."""
    if not checkout:
        return _loop(url, workers)
    sys.path.insert(0, checkout)
    from dataflow.operators.core_vision import PromptedVQAGenerator
    from dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
    from dataflow.utils.storage import FileStorage

    return _operator(PromptedVQAGenerator, APIVLMServing_openai, FileStorage, url, workers)


def _operator(generator, serving, storage, url: str, workers: int):
    def make():
        asked = generator(serving(url, model_name="gpt-4o", max_workers=workers), system_prompt=SYSTEM)

        def caption(rows: Path, cache: Path) -> Path:
            tables = storage(str(rows), str(cache), "caption", "json")
            asked.run(tables.step(), input_image_key="image", output_answer_key="caption")
            return cache / "caption_step1.json"

        return caption

    return make


def _loop(url: str, workers: int):
    import base64
    from concurrent.futures import ThreadPoolExecutor, as_completed

    import pandas
    from openai import OpenAI

    def make():
        client = OpenAI(api_key=os.environ["DF_API_KEY"], base_url=url)

        def one(number: int, turns: list[dict], paths: list[str]) -> tuple[int, str]:
            content: list[dict] = []
            for path in paths:
                data = base64.b64encode(Path(path).read_bytes()).decode()
                content.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
            content.append({"type": "text", "text": turns[-1]["value"]})
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
            answer = client.chat.completions.create(model="gpt-4o", messages=messages, timeout=1800)
            return number, answer.choices[0].message.content

        def caption(rows: Path, cache: Path) -> Path:
            table = pandas.read_json(rows)
            found: list[str] = [""] * len(table)
            with ThreadPoolExecutor(workers) as pool:
                each = zip(table["conversation"], table["image"], strict=True)
                for done in as_completed([pool.submit(one, i, *row) for i, row in enumerate(each)]):
                    number, text = done.result()
                    found[number] = text
            table["caption"] = found
            cache.mkdir(parents=True, exist_ok=True)
            table.to_json(cache / "caption_step1.json", orient="records", force_ascii=False, indent=2)
            return cache / "caption_step1.json"

        return caption

    return make


def program(args: argparse.Namespace) -> None:
    """Prints the seconds of the imports, of the first call, and of the measured one."""
    began = time.monotonic()
    make = ours(args.url, args.workers) if args.arm == "fastgen" else theirs(args.theirs, args.url, args.workers)
    seconds = {"import": time.monotonic() - began}
    caption = make()
    for name, count in (("start", args.workers), ("rows", args.rows)):
        began, used = time.monotonic(), _cpu()
        table = caption(Path(args.out, f"{name}.json"), Path(args.out, f"cache_{name}"))
        seconds[name], seconds["cpu"] = time.monotonic() - began, _cpu() - used
        captions = [row["caption"] for row in json.loads(table.read_text())]
        assert len(captions) == count and all(text.startswith("A plain view") for text in captions), captions[:3]
    print(json.dumps(seconds))


def _cpu() -> float:
    """Seconds of this process and its children, as far as they live."""
    here = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (here, *here.children(recursive=True)))


# All programs


def table(path: Path, count: int, what: str) -> None:
    """Rows that differ in their words, as many pictures as there are files."""
    pictures = photographs(path.parent, KINDS, SIDE)
    rows = [
        {
            "image": [str(pictures[i % len(pictures)])],
            "conversation": [{"from": "human", "value": f"Describe the picture, {what} {i}."}],
        }
        for i in range(count)
    ]
    path.write_text(json.dumps(rows))


def measured(args: argparse.Namespace, arm: str, url: str) -> dict[str, float]:
    out = Path(tempfile.mkdtemp())
    try:
        table(out / "start.json", args.workers, "first")
        table(out / "rows.json", args.rows, "number")
        command = [sys.executable, "-m", "bench.dataflow_captions", "--arm", arm, "--url", url, "--out", str(out)]
        command += ["--rows", str(args.rows), "--workers", str(args.workers), "--theirs", args.theirs]
        environment = {**os.environ, "DF_API_KEY": "test-key"}
        said = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        if said.returncode:
            raise SystemExit(f"{arm}: {said.stderr[-3000:]}")
        seconds = json.loads(said.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(out)
    both = args.rows / (seconds["start"] + seconds["rows"])
    cpu = 1000 * seconds["cpu"] / args.rows
    return {"rows/s": args.rows / seconds["rows"], "with start": both, "cpu": cpu, "import": seconds["import"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--theirs", default="", metavar="CHECKOUT", help="their repository; without it, a plain loop")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.0, metavar="S")
    for inner in ("--arm", "--url", "--out"):
        parser.add_argument(inner, default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.theirs = args.theirs and os.path.abspath(args.theirs)
    if args.arm:
        program(args)
        return
    command = [sys.executable, "-m", "tests.simulator", "--fast", "--latency", str(args.latency)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        url = json.loads(server.stdout.readline())["openai"]
        found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
        for number in range(args.rounds):
            for arm in ARMS if number % 2 == 0 else reversed(ARMS):
                found[arm].append(measured(args, arm, url))
                said = ", ".join(f"{name} {value:.2f}" for name, value in found[arm][-1].items())
                print(f"round {number + 1}, {arm}: {said}", flush=True)
    finally:
        server.terminate()
        server.wait()
    print(f"baseline: {'their own classes' if args.theirs else 'a loop that does what their class does'}")
    for name in ("rows/s", "with start", "cpu"):
        ratios = [a[name] / b[name] for a, b in zip(found["fastgen"], found["theirs"], strict=True)]
        print(f"{name}: {statistics.median(ratios):.2f} times theirs ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
