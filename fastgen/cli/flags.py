"""The flags of the command line: what each is called, what it takes and what its help says. `main.py` puts them
together.

A flag that several commands have is written down once; its default stands in the commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastgen.config.prompts import MAX_PIXELS

Input = Annotated[
    Path | None,
    typer.Argument(metavar="INPUT", help="Rows: a .jsonl file, or a .json list. Without it: bundled examples."),
]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Run folder.  [default: fastgen-runs/<task>]")]
Model = Annotated[
    str,
    typer.Option(
        help="Hub id or local folder of a FLUX.1 model in diffusers format, 'tiny' (embedded), or 'auto': FLUX.1-dev / "
        "FLUX.1-Kontext-dev where a CUDA GPU is, else 'tiny'."
    ),
]
Gpus = Annotated[
    str, typer.Option(help="0,1 or all or cpu or cpu:N: one engine process each.  [default: all GPUs, else cpu]")
]
Backend = Annotated[
    str,
    typer.Option(
        help="local: the model runs on this machine. openai, gemini: an API of that format.  [default: local]"
    ),
]
CaptionBackend = Annotated[
    str,
    typer.Option(
        help="vllm: a vLLM server on this machine, started and ended by this command, or one that runs "
        "(--base-url). openai, "
        "gemini: an API of that format.  [default: vllm]"
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Where the API or the running vLLM is.  [default: the vendor's own]")
]
VllmCommand = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND", help="vLLM's server, or a Python that has vLLM.  [default: where setup vllm put it]"
    ),
]
Fallback = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Backends for rows that the first cannot do: openai,gemini. Each may name a model and a place: "
        "openai:gpt-image-2@http://host/v1.",
    ),
]
FallbackOnRefusal = Annotated[
    bool, typer.Option("--fallback-on-refusal", help="Also for rows whose content a backend refused.")
]
MaxInflight = Annotated[int | None, typer.Option(metavar="N", help="Requests to an API at the same time, at most.")]
Rpm = Annotated[int, typer.Option(metavar="N", help="Requests to an API a minute, at most; 0: as many as it takes.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="For one request to an API.  [default: 600, for captions 120]")
]
MaxCost = Annotated[
    float, typer.Option(metavar="USD", help="What the run folder may cost over all its runs; 0: no limit.")
]
Quality = Annotated[
    str,
    typer.Option(
        help="On this machine exact, high or fast: which optimizations run (docs/optimizations.md).  [default: exact] "
        "For APIs low, medium, high ..., for rows that do not say."
    ),
]
Attention = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Attention kernel: auto, native, cudnn, flash, flash3, sage, xformers ...  [default: the profile's, "
        "else auto]",
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="Compile the transformer's blocks.  [default: the profile's, else no]"),
]
Quantize = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="Weights in fewer bits: none, 8bit, 4bit, fp8, int8; text:8bit for T5.  [default: the profile's, else "
        "none]",
    ),
]
Cache = Annotated[
    str,
    typer.Option(
        metavar="KIND[:THRESHOLD]",
        help="Step cache: none, first-block, taylorseer.  [default: the profile's, else none]",
    ),
]
Offload = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help="What leaves the GPU while it is not needed: none, text, model, group.  [default: the profile's, else "
        "none]",
    ),
]
ProfileFile = Annotated[
    Path | None,
    typer.Option(
        "--profile", metavar="FILE", help="Take this profile.  [default: the one in kernels_cfg that fits best]"
    ),
]
Background = Annotated[str, typer.Option(help="APIs only: transparent, opaque or auto.")]
AspectRatio = Annotated[str, typer.Option(help="APIs only: such as 16:9.")]
Resolution = Annotated[str, typer.Option(help="APIs only: 1K, 2K or 4K.")]
Pictures = Annotated[
    Path | None,
    typer.Argument(
        metavar="INPUT",
        help="Rows: a .jsonl file, or a .json list; or a folder of pictures. Without it: bundled examples.",
    ),
]
VlmModel = Annotated[
    str,
    typer.Option(
        help="Hub id or local folder of a VLM, an API's model, 'tiny' (embedded), or 'auto': Qwen3-VL where a CUDA "
        "GPU is, "
        "else 'tiny'; for an API its usual one."
    ),
]
Prompt = Annotated[str, typer.Option(metavar="TEXT", help="For rows that bring no text.")]
System = Annotated[str, typer.Option(metavar="TEXT", help="Instructions that go first; '' for none.")]
MaxTokens = Annotated[int, typer.Option(help="Tokens of a caption, at most; one that needs more fails as 'truncated'.")]
Temperature = Annotated[float, typer.Option(help="0 always takes the likeliest word.")]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Larger pictures are scaled down to so many pixels before they are sent.  [default: the profile's, "
        f"else {MAX_PIXELS}]",
    ),
]
Schema = Annotated[
    Path | None, typer.Option(metavar="FILE", help="JSON schema: captions are objects that fit it, instead of texts.")
]
CaptionKey = Annotated[str | None, typer.Option("--output-key", help="Field for the caption.  [default: caption]")]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH", help="For rows that name none.  [default: the model's; an edit takes its input's shape]"
    ),
]
Steps = Annotated[int | None, typer.Option(help="Denoising steps, for rows that name none.  [default: the model's]")]
Guidance = Annotated[float | None, typer.Option(help="Guidance, for rows that name none.  [default: the model's]")]
N = Annotated[int, typer.Option("--n", help="Pictures per prompt (t2i) or per row (edit), for rows that name none.")]
Seed = Annotated[int, typer.Option(help="Run seed: a row without a seed draws its own from this and its id.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto (bfloat16 on a GPU, float32 on a CPU).")]
BatchSize = Annotated[str, typer.Option(metavar="N|auto", help="Samples that go through the model together.")]
Format = Annotated[str, typer.Option(help="png, jpeg or webp.")]
OutputKey = Annotated[
    str | None, typer.Option(help="Field for the paths of the pictures.  [default: images; edited_images for edit]")
]
ImageRoot = Annotated[
    Path | None, typer.Option(help="Where relative picture paths start.  [default: the folder of INPUT]")
]
Lora = Annotated[
    list[str] | None, typer.Option(metavar="PATH[:SCALE]", help="LoRA file to merge into the model; may be repeated.")
]
Transformer = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Transformer weights from one safetensors file instead of the model's."),
]
MaxSequenceLength = Annotated[
    int | None,
    typer.Option(metavar="N", help="Prompt tokens that the model reads (changes pictures).  [default: the model's]"),
]
Limit = Annotated[int | None, typer.Option(help="Only the first so many rows.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete what the run folder holds and start over.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try rows again that failed in an earlier run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the buckets and batches and why; load no model.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON event per line on stdout, a summary last.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")]

BenchTask = Annotated[str, typer.Argument(metavar="[t2i|edit|caption]", help="What to measure.")]
BenchOut = Annotated[
    Path | None, typer.Option("-o", "--out", help="Folder for the files.  [default: fastgen-runs/bench-<task>]")
]
OneGpu = Annotated[str, typer.Option("--gpus", help="One GPU, or cpu.  [default: GPU 0, else cpu]")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="One arm: plain, 'quality high', 'compile + cache first-block:0.1' ...; may be repeated.  [default: all]",
    ),
]
Rounds = Annotated[int, typer.Option(help="Times that each arm plays.")]
RoundRows = Annotated[
    int,
    typer.Option("--rows", help="Rows a round; 0: as many as plain diffusers or transformers does in some seconds."),
]
Synthetic = Annotated[
    str,
    typer.Option(
        metavar="flux-dev|flux-kontext", help="The full-size model with random weights: honest for speed, no pictures."
    ),
]
Compare = Annotated[
    str,
    typer.Option(
        metavar="CMD",
        help="Time this shell command beside fastgen; {rows} in it becomes a .jsonl file, {out} a folder.",
    ),
]
Tune = Annotated[
    bool, typer.Option("--tune", help="Also search batch sizes and options, and write a profile for this machine.")
]


def _print_version(on: bool) -> None:
    if on:
        import fastgen

        print(f"fastgen {fastgen.__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)]
