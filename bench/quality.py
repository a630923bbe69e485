"""How well the embedded models know their world: images, edits and captions of unseen scenes, judged.

    python -m bench.quality [--model FOLDER] [--vlm FOLDER] [--count N] [--vllm PYTHON] [--out FOLDER]

Images come from diffusers' own `FluxPipeline` and `FluxKontextPipeline` and from `fastgen t2i` and `fastgen edit`,
captions from transformers and, with --vllm, from a real vLLM server that is started with that Python. All prompts
come from seeds that training never uses. The scene reader judges; a caption must equal the canonical one.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import platform
import random
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.http_client import Client

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ASKED = "Describe the image."
SEED = 4242


def through_diffusers(model: Path, count: int) -> dict:
    """Shares of images and edits that are right, with variations of the settings."""
    from fastgen.embedded.scenes import CANVASES, OPERATIONS
    from fastgen.embedded.train.check import check_edits, check_prompts

    def prompts(shapes: int, **how) -> dict:
        return check_prompts(model, how.pop("count", count), shapes, seed=SEED, **how)[0]

    few = max(10, count // 4)
    found = {
        "one shape": prompts(1),
        "two shapes": prompts(2),
        "three shapes": prompts(3),
        "edits": check_edits(model, count, seed=SEED)[0],
        "one shape by canvas": {f"{w}x{h}": prompts(1, count=few, canvases=[(w, h)])["all"] for w, h in CANVASES},
        "two shapes by canvas": {f"{w}x{h}": prompts(2, count=few, canvases=[(w, h)])["all"] for w, h in CANVASES},
        "edits by operation": {name: check_edits(model, few, seed=SEED, operation=name)[0] for name in OPERATIONS},
        "two shapes by steps": {steps: prompts(2, count=few, steps=steps)["all"] for steps in (4, 8, 12, 28)},
        "two shapes by guidance": {g: prompts(2, count=few, guidance=g)["all"] for g in (1.0, 2.0, 3.5, 5.0)},
        "two shapes by text length": {n: prompts(2, count=few, length=n)["all"] for n in (40, 64, 128, 512)},
    }
    found["edits by text length"] = {n: check_edits(model, few, seed=SEED, length=n)[0]["all"] for n in (64, 512)}
    return found


def through_fastgen(model: str, count: int) -> dict:
    """Scores of two run folders made by complete runs."""
    from PIL import Image

    import fastgen
    from fastgen.embedded.scenes import CANVASES, describe, draw, random_edit, random_scene
    from fastgen.embedded.score import score

    rng = random.Random(f"{SEED}-fastgen")
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        scenes = [random_scene(rng, CANVASES[i % len(CANVASES)], 1 + i % 2) for i in range(count)]
        prompts, edits = [], []
        for index, scene in enumerate(scenes):
            prompts.append({"prompt": describe(scene, rng).text, "size": f"{scene.width}x{scene.height}"})
            Image.fromarray(draw(scene)).save(folder / f"{index}.png")
            edits.append({"image": f"{index}.png", "prompt": random_edit(scene, rng)[1].text})
        for task, rows in (("t2i", prompts), ("edit", edits)):
            settings = fastgen.resolve(task, out=folder / task, model=model, gpus="cpu", image_root=folder)
            for _ in fastgen.generate(settings, rows):
                pass
            found[f"fastgen {task}"] = score(folder / task).as_dict()
    return found


def captioned(ask, count: int, pictures: list) -> dict:
    """Share of exact captions: for drawn scenes, and for generated `pictures` [(picture, scene that it shows)].

    `ask(list of pictures) -> list of captions`.
    """
    from PIL import Image

    from fastgen.embedded.scenes import CANVASES, caption, draw, random_scene

    rng = random.Random(f"{SEED}-captions")
    scenes = [random_scene(rng, CANVASES[i % len(CANVASES)]) for i in range(count)]
    said = ask([Image.fromarray(draw(scene)) for scene in scenes])
    right = [text == caption(scene) for text, scene in zip(said, scenes, strict=True)]
    by_shapes = {
        n: round(_mean(r for r, s in zip(right, scenes, strict=True) if len(s.shapes) == n), 3) for n in (1, 2, 3)
    }
    found = {"drawn": round(_mean(right), 3), "drawn by shapes": by_shapes}
    if pictures:
        said = ask([picture for picture, _ in pictures])
        found["generated"] = round(_mean(t == caption(s) for t, (_, s) in zip(said, pictures, strict=True)), 3)
    return found


def _mean(values) -> float:
    values = list(values)
    return sum(values) / max(1, len(values))


def generated(model: Path, count: int) -> list:
    """Images by the embedded FLUX, each with the scene that the reader sees in it."""
    import numpy as np

    from fastgen.embedded.scenes import read
    from fastgen.embedded.train.check import check_prompts

    pictures = []
    for shapes in (1, 2):
        pictures += check_prompts(model, count // 2, shapes, seed=SEED + 1)[1]
    return [(picture, read(np.asarray(picture))) for picture in pictures]


class Vllm:
    """A real vLLM server on loopback, which ends with the block that started it."""

    def __init__(self, python: str, model: Path, *more: str, key: str = ""):
        """Args: more: further arguments of vLLM, which win over ours."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.http = Client(f"http://127.0.0.1:{self.port}", timeout_s=120, at_once=16, direct=True)
        self.key = key or secrets.token_hex(16)
        command = [
            python,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(model),
            "--served-model-name",
            "tiny-vlm",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--max-model-len",
            "1024",
            "--max-num-seqs",
            "16",
            "--dtype",
            "float32",
            "--enforce-eager",
            "--kv-cache-memory-bytes",
            "64M",
            "--structured-outputs-config",
            '{"backend":"xgrammar","disable_any_whitespace":true}',
            *more,
        ]
        quiet = {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "VLLM_API_KEY": self.key,
        }
        self.log = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the server
        self.process = subprocess.Popen(
            command, env={**os.environ, **quiet}, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def __enter__(self) -> Vllm:
        health = Client(self.http.base_url, timeout_s=5, at_once=1, direct=True)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(Fault):
                if health.send("GET", f"{health.base_url}/health", {}).status == 200:
                    return self
            time.sleep(1)
        self.__exit__()
        self.log.seek(0)
        raise SystemExit("vLLM did not come up:\n" + self.log.read().decode("utf-8", "replace")[-3000:])

    def __exit__(self, *_) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its engine processes outlive the server otherwise
        self.process.wait()

    def answer(self, picture, question: str = ASKED, **options) -> str:
        written = io.BytesIO()
        picture.save(written, "PNG")
        url = "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
        body = {
            "model": "tiny-vlm",
            "temperature": 0,
            "max_tokens": 200,
            "messages": [{"role": "user", "content": parts}],
            **options,
        }
        head = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        reply = self.http.send("POST", f"{self.http.base_url}/v1/chat/completions", head, json.dumps(body).encode())
        return json.loads(reply.data)["choices"][0]["message"]["content"].strip()

    def answers(self, pictures: list) -> list[str]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(self.answer, pictures))


def questions(answer, count: int) -> dict:
    """Shares of right answers to questions about drawn scenes, and of right JSON under the schema.

    `answer(picture, question, **options) -> text`, the options being those of the chat API.
    """
    from PIL import Image

    from fastgen.embedded.scenes import CANVASES, draw, random_scene
    from fastgen.embedded.train.dialogues import SCHEMA, as_json, question

    rng = random.Random(f"{SEED}-questions")
    right, structured = [], []
    options = {"response_format": {"type": "json_schema", "json_schema": {"name": "scene", "schema": SCHEMA}}}
    for index in range(count):
        scene = random_scene(rng, CANVASES[index % len(CANVASES)])
        picture = Image.fromarray(draw(scene))
        asked, wanted = question(scene, rng)
        right.append(answer(picture, asked) == wanted)
        if index % 4 == 0:
            structured.append(json.loads(answer(picture, "Describe the image as JSON.", **options)) == as_json(scene))
    return {"questions": round(_mean(right), 3), "json under the schema": round(_mean(structured), 3)}


def main() -> None:
    import diffusers
    import torch
    import transformers

    from fastgen.config.model_cards import TINY
    from fastgen.embedded.captioner import TINY_VLM, Captioner

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=TINY)
    parser.add_argument("--vlm", type=Path, default=TINY_VLM)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--vllm", metavar="PYTHON", help="a Python with vLLM; without it vLLM is not measured")
    parser.add_argument("--only", choices=["flux", "fastgen", "vlm"], help="one part alone")
    parser.add_argument("--out", type=Path, help="folder for quality.json")
    args = parser.parse_args()
    found: dict = {
        "about": {
            "date": time.strftime("%Y-%m-%d"),
            "command": "python -m bench.quality "
            + " ".join("PYTHON" if a == args.vllm else a for a in os.sys.argv[1:]),
            "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
            "torch": str(torch.__version__),
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "count": args.count,
            "steps": 12,
            "guidance": 3.5,
            "text_length": 64,
        }
    }
    if args.only in (None, "flux"):
        found["diffusers"] = through_diffusers(args.model, args.count)
    if args.only in (None, "fastgen"):
        found |= through_fastgen(str(args.model), args.count)
    if args.only in (None, "vlm"):
        pictures = generated(args.model, args.count)
        captioner = Captioner(args.vlm)
        found["transformers"] = captioned(lambda batch: [captioner.ask(p, ASKED) for p in batch], args.count, pictures)
        if args.vllm:
            with Vllm(args.vllm, args.vlm) as server:
                found["vllm"] = captioned(server.answers, args.count, pictures) | questions(server.answer, args.count)
        else:
            found["vllm"] = "not measured"
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "quality.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
