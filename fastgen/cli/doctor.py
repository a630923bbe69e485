"""`fastgen doctor`: what this machine has for each task, what is missing, and how to get it. Loads no model, asks
nothing of the network, and imports no torch."""

from __future__ import annotations

import json as json_format
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastgen.config.hardware import Gpu
    from fastgen.types import Task

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
MARKS = {"ok": "ok      ", "missing": "missing ", "broken": "broken  ", "fact": "        "}
QUANTIZED = ("none", "8bit", "4bit", "fp8")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    state: str
    """ok, missing (something works less well, or not at all, until it is there), broken, or fact."""
    text: str
    fix: str = ""


def doctor(json: Json = False) -> None:
    """Check this machine: GPUs, drivers, PyTorch, attention kernels, vLLM, hub token, disk, and which models fit.

    Exit code 0 if nothing is broken, else 3.
    """
    broken = False
    for finding in findings():
        broken |= finding.state == "broken"
        if json:
            print(json_format.dumps(asdict(finding), ensure_ascii=False), flush=True)
            continue
        print(f"{MARKS[finding.state]}{finding.what}: {finding.text}", flush=True)
        if finding.fix:
            print(f"          fix: {finding.fix}", flush=True)
    raise typer.Exit(3 if broken else 0)


def findings() -> Iterator[Finding]:
    """All findings, in the order in which they are worth fixing."""
    from fastgen.config.hardware import find_gpus
    from fastgen.errors import FastgenError

    yield Finding("packages", "fact", ", ".join(map(_version, ("fastgen-mm", "torch", "diffusers", "transformers"))))
    gpus: list[Gpu] = []
    try:
        gpus = find_gpus()
        yield from _gpus(gpus)
    except FastgenError as error:
        yield Finding("GPUs", "broken", str(error))
    usable = [gpu for gpu in gpus if not gpu.problem]
    yield from _kernels(usable)
    yield from _models(usable)
    yield _vllm(bool(usable))
    yield _hub()
    yield _disk(bool(usable))


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (run from its source)" if package == "fastgen-mm" else f"{package} is missing"


def _gpus(gpus: list[Gpu]) -> Iterator[Finding]:
    from fastgen.config import nvidia, torch_build

    if not gpus:
        seen = nvidia.evidence()
        text = f"none can be used, though {seen} is there" if seen else "none; images and captions are made on the CPU"
        fix = "run nvidia-smi, and look at CUDA_VISIBLE_DEVICES" if seen else ""
        yield Finding("GPUs", "broken" if seen else "missing", text, fix)
    for gpu in gpus:
        text = f"{gpu.name}, {gpu.memory_gib:.0f} GiB, compute capability {gpu.compute_capability}, driver {gpu.driver}"
        reason = gpu.problem or torch_build.refuse(gpu)
        said, _, fix = reason.partition(": ")
        yield Finding(f"GPU {gpu.index}", "broken" if reason else "ok", f"{text}; {said}" if reason else text, fix)


def _kernels(gpus: list[Gpu]) -> Iterator[Finding]:
    """Which attention kernels an engine may choose. Whether one computes rightly, an engine tries when it opens."""
    from fastgen.config.optimizations import Attention, Optimizations
    from fastgen.opt import attention

    gpu = gpus[0] if gpus else None
    refused = {name: attention.refuse(gpu, Attention(name), Optimizations()) for name in Attention.kernels}
    there = [name for name, reason in refused.items() if not reason]
    yield Finding("attention kernels", "ok", ", ".join(there))
    for name, reason in refused.items():
        if gpu and reason and "is not installed" in reason:
            yield Finding(f"attention {name}", "missing", reason)


def _models(gpus: list[Gpu]) -> Iterator[Finding]:
    """Which models fit each kind of GPU, by the planner, with weights of every precision."""
    from fastgen.config.short_names import SHORT_NAMES

    if not gpus:
        yield Finding("models", "ok", "tiny, the embedded model and captioner, on the CPU")
        return
    kinds = list({(gpu.name, gpu.memory_gib): gpu for gpu in gpus}.values())
    with tempfile.TemporaryDirectory(prefix="fastgen-doctor-") as scratch:
        for gpu in kinds:
            where = f" on {gpu.name}" if len(kinds) > 1 else ""
            for short, known in SHORT_NAMES.items():
                is_here, fits = _fits(short, gpu, Path(scratch) / "out")
                title = f"{known.hub_id.rpartition('/')[2]} (--model {short}){where}"
                here = "" if is_here else f"; {known.weights_gib:.0f} GiB to download"
                if fits:
                    yield Finding(title, "ok", "; ".join(fits) + here)
                else:
                    fix = "docs/gpus.md says what does; or --gpus-per-replica"
                    yield Finding(title, "missing", f"does not fit into {gpu.name}", fix)


def _fits(model: str, gpu: Gpu, out: Path) -> tuple[bool, list[str]]:
    """Whether a model is on this machine, and how it fits into a GPU: a text for each precision that does."""
    from msgspec.structs import replace

    from fastgen.config import downloads
    from fastgen.config.optimizations import Offload, Quantize
    from fastgen.errors import FastgenError
    from fastgen.resolver import fitting, resolve

    task: Task = "edit" if model in ("kontext", "qwen-edit") else "t2i"
    with downloads.none():
        try:
            settings = resolve(task, model=model, out=out, gpus=str(gpu.index))
        except FastgenError:
            return False, []
    fits = []
    for kind in QUANTIZED:
        asked = replace(settings.optimizations, quantize=Quantize.parse(kind), offload=Offload(), why={})
        try:
            found = fitting.refit(settings, asked, {"quantize": f"--quantize {kind}"})
        except FastgenError:
            continue
        need = f" {found.fit.need.gib:.1f} GiB" if found.fit else ""
        offload = "" if found.optimizations.offload.is_plain else ", partly in main memory"
        name = "bfloat16" if kind == "none" else kind
        fits.append(f"{name}{need}{offload} (batch {found.batch_for(1024 * 1024)})")
    return bool(settings.model.path), fits


def _vllm(on_gpu: bool) -> Finding:
    from fastgen.errors import FastgenError
    from fastgen.providers import vllm

    try:
        return Finding("vLLM, for captions", "ok", " ".join(vllm.find(None, on_gpu)))
    except FastgenError:
        return Finding("vLLM, for captions", "missing", "it is not installed", "fastgen setup vllm")


def _hub() -> Finding:
    from huggingface_hub import get_token

    from fastgen.config.short_names import SHORT_NAMES

    gated = [known.hub_id for known in SHORT_NAMES.values() if known.is_gated]
    *first, last = (f"https://huggingface.co/{name}" for name in gated)
    pages = f"{', '.join(first)} and {last}"
    text = f"only FLUX.1-dev, FLUX.1-Kontext-dev and FLUX.2-dev need one, and their licences accepted, at {pages}"
    if get_token():
        return Finding("Hugging Face token", "ok", f"there is one; {text}")
    return Finding("Hugging Face token", "fact", f"none; {text}", "hf auth login, or HF_TOKEN")


def _disk(on_gpu: bool) -> Finding:
    from fastgen.config import downloads

    model = downloads.of("black-forest-labs/FLUX.1-dev")
    here = shutil.disk_usage(os.getcwd()).free / 2**30
    text = f"{model.free_gib:.0f} GiB free for models in {model.place}, {here:.0f} GiB free here"
    short = on_gpu and model.free_gib < model.gib
    return Finding("disk", "missing" if short else "ok", text, "set HF_HOME to a larger disk" if short else "")
