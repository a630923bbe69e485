"""Two real vLLM servers as one fleet, with a model that thinks: what reaches the captions, who does how many rows, and
what is lost when one is killed.

    python -m bench.vllm_fleet --vllm PYTHON [--rows 120]

The model is the embedded VLM with a chat template that opens a thought; a grammar makes each answer a thought and a
caption. One server tells them apart itself (--reasoning-parser), the other does not, so marks must be taken out here.
The second one has a single slot, so it is the slower one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from bench.quality import Vllm
from fastgen.config.model_cards import TINY_VLM
from fastgen.embedded.scenes import CANVASES, draw, random_scene

CLOSED, PAIRED = "[a-z ]{8,20}</think>[A-Z][a-z ]{10,40}[.]", "<think>[a-z ]{8,20}</think>[A-Z][a-z ]{10,40}[.]"
"""Answers: with the closing tag alone, as after a template that opens the thought, and with both."""
MARK = re.compile(r"think|[<>◁▷]")
IN_THOUGHTS = '{"backend":"xgrammar","disable_any_whitespace":true,"enable_in_reasoning":true}'


def thinking_model(folder: Path) -> Path:
    """A copy of the embedded VLM whose template opens a thought. Two tokens that it never uses become the tags, because
    vLLM's parsers look for them in the vocabulary."""
    model = shutil.copytree(TINY_VLM, folder / "tiny-vlm")
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + "{%- if add_generation_prompt -%}{{ '<think>\n' }}{%- endif -%}")
    for file in (model / "tokenizer.json", model / "tokenizer_config.json"):
        said = file.read_text().replace("<unk>", "<think>").replace("<end_of_utterance>", "</think>")
        file.write_text(said)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["special"] = token["special"] and "think" not in token["content"]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    return model


def images(folder: Path, count: int) -> None:
    rng = random.Random(5)
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(count):
            scene = random_scene(rng, CANVASES[number % len(CANVASES)])
            Image.fromarray(draw(scene)).save(folder / f"{number}.png")
            file.write(json.dumps({"id": str(number), "image": f"{number}.png"}) + "\n")


def answered(server: Vllm) -> int:
    """Requests that a server has finished."""
    said = server.http.send("GET", f"{server.http.base_url}/metrics", {"Authorization": f"Bearer {server.key}"})
    found = re.findall(r"^vllm:request_success_total\{.*\} ([\d.e+]+)$", said.data.decode(), re.MULTILINE)
    return int(sum(map(float, found)))


def run(folder: Path, name: str, servers: list[Vllm], regex: str, kill: Vllm | None = None) -> dict:
    """One run of `fastgen caption`; `kill` is killed when a quarter of the rows is done."""
    urls = [word for server in servers for word in ("--base-url", f"http://127.0.0.1:{server.port}/v1")]
    extra = json.dumps({"structured_outputs": {"regex": regex}})
    command = [sys.executable, "-m", "fastgen", "caption", str(folder / "rows.jsonl"), "-o", str(folder / name), *urls]
    command += ["--model", "tiny-vlm", "--extra-body", extra, "--max-inflight", "16", "--max-tokens", "96", "--json"]
    before = [answered(server) for server in servers]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    total, done, began = len((folder / "rows.jsonl").read_text().splitlines()), 0, time.monotonic()
    assert process.stdout
    for line in process.stdout:
        done += json.loads(line)["event"] == "row_done"
        if kill is not None and done >= total // 4 and kill.process.poll() is None:
            os.killpg(kill.process.pid, signal.SIGKILL)
            kill.process.wait()
    code, seconds = process.wait(), time.monotonic() - began
    table = [json.loads(line) for line in (folder / name / "results.jsonl").open()]
    journal = [json.loads(line)["rec"]["id"] for line in (folder / name / "journal.jsonl").open()]
    return {
        "exit_code": code,
        "seconds": round(seconds, 1),
        "done": sum(row["fastgen"]["status"] == "done" for row in table),
        "of": total,
        "twice": len(journal) - len(set(journal)),
        "with_a_mark": sum(bool(MARK.search(row.get("caption", ""))) for row in table),
        "with_a_thought": sum(bool(row["fastgen"].get("reasoning")) for row in table),
        "example": table[0].get("caption"),
        "by_server": [
            answered(s) - n if s.process.poll() is None else "killed" for s, n in zip(servers, before, strict=True)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", metavar="PYTHON", required=True, help="a Python with vLLM")
    parser.add_argument("--rows", type=int, default=120)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = thinking_model(folder)
        images(folder, args.rows)
        parses = [
            "--reasoning-parser",
            "deepseek_r1",
            "--structured-outputs-config",
            IN_THOUGHTS,
            "--max-num-seqs",
            "1",
        ]
        key = os.environ["VLLM_API_KEY"] = secrets.token_hex(16)
        with Vllm(args.vllm, model, key=key) as marks, Vllm(args.vllm, model, *parses, key=key) as apart:
            print(json.dumps({"by_markup": run(folder, "a", [marks], CLOSED)}), flush=True)
            print(json.dumps({"by_parser": run(folder, "b", [apart], PAIRED)}), flush=True)
            print(json.dumps({"fleet": run(folder, "c", [marks, apart], PAIRED)}), flush=True)
            print(json.dumps({"one_killed": run(folder, "d", [marks, apart], PAIRED, kill=apart)}), flush=True)


if __name__ == "__main__":
    main()
