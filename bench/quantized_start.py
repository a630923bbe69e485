"""How long a start with quantized weights takes, with and without those of an earlier start.

    python -m bench.quantized_start [--double N] [--single N] [--rounds N] [--dtype T] [--out FOLDER] [KIND ...]

A model of FLUX.1's layout, half as wide (1536) and with random weights, is made in a temporary folder; text encoders
and VAE are the embedded ones. Every start is a process of its own, and the system's cache of the files is
dropped before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

START = """
import json, sys, time
import torch
from fastgen import opt
from fastgen.backends.diffusion.families.flux1.load import load
from fastgen.resolver import resolve
import diffusers.models, transformers.models.t5.modeling_t5, bitsandbytes, torchao.quantization
quantize = {"quantize": sys.argv[2]} if sys.argv[2] else {}
settings = resolve("t2i", model=sys.argv[1], gpus="cpu", dtype=sys.argv[3], **quantize)
def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 2**20
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = memory("VmRSS")
started = time.monotonic()
modules = load(settings, torch.device("cpu"))
facts = opt.apply_all(modules, settings.optimizations)
seconds = time.monotonic() - started
kind = facts.get("quantize", {}).get("transformer", {"from": ""})
print(json.dumps({"seconds": seconds, "peak_gib": memory("VmHWM") - before, **kind}))
"""


def make_model(folder: Path, double: int, single: int) -> float:
    """A model folder with a random transformer in bfloat16; its GiB."""
    import torch
    from diffusers import FluxTransformer2DModel

    from fastgen.config.model_cards import TINY

    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("transformer"))
    config = json.loads((TINY / "transformer" / "config.json").read_text("utf-8"))
    config |= {
        "attention_head_dim": 128,
        "num_attention_heads": 12,
        "axes_dims_rope": [16, 56, 56],
        "num_layers": double,
        "num_single_layers": single,
    }
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    FluxTransformer2DModel.from_config(config).save_pretrained(folder / "transformer")
    return sum(file.stat().st_size for file in (folder / "transformer").iterdir()) / 2**30


def forget(*folders: Path) -> None:
    """Drop the files from the system's cache, so that they are read from disk again."""
    os.sync()
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def start(model: Path, home: Path, kind: str, dtype: str, keep: bool) -> dict:
    forget(model, home)
    environment = {**os.environ, "FASTGEN_HOME": str(home), "FASTGEN_KEEP_QUANTIZED": "50" if keep else "0"}
    command = [sys.executable, "-c", START, str(model), kind, dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--double", type=int, default=4)
    parser.add_argument("--single", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, help="folder for quantized_start.md")
    args = parser.parse_args()
    rows: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as place:
        model, home = Path(place) / "wide", Path(place) / "home"
        home.mkdir()
        gib = make_model(model, args.double, args.single)
        for _ in range(args.rounds):
            rows.setdefault("not quantized", []).append(start(model, home, "", args.dtype, keep=False))
            for kind in args.kinds or ("8bit", "4bit", "int8", "fp8"):
                shutil.rmtree(home / "quantized", ignore_errors=True)
                for words, keep, whence in (
                    ("nothing kept", False, "made"),
                    ("kept by this start", True, "made"),
                    ("kept by an earlier one", True, "cache"),
                ):
                    found = start(model, home, kind, args.dtype, keep)
                    assert found["from"] == whence, found
                    rows.setdefault(f"{kind}, {words}", []).append(found)
    lines = [
        "# Starts with quantized weights",
        "",
        f"{time.strftime('%Y-%m-%d')}: a transformer of {gib:.2f} GiB in bfloat16 ({args.double} and {args.single} "
        f"blocks, 1536 wide, random), {args.dtype}; "
        f"{os.cpu_count()} CPU cores ({platform.machine()}), files read from the disk; medians of {args.rounds} "
        "rounds. Seconds are for loading and quantizing; memory is the peak beyond that of the libraries. Weights "
        "that are not quantized are not read before they are used.",
        "",
        f"    python -m bench.quantized_start {' '.join(sys.argv[1:])}",
        "",
        "| | s | GiB at most |",
        "|---|---|---|",
        *(
            f"| {name} | {median(one['seconds'] for one in found):.1f} "
            f"({', '.join(format(one['seconds'], '.1f') for one in found)}) | "
            f"{median(one['peak_gib'] for one in found):.1f} |"
            for name, found in rows.items()
        ),
    ]
    print("\n".join(lines))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "quantized_start.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
