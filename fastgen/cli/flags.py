"""The flags of the command line: their names, types and help texts. `main.py` gives them to the commands.

A flag that several commands share is defined once. Defaults are in the commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastgen.cli import complete
from fastgen.config.prompts import MAX_PIXELS


def path(given: str) -> Path:
    """Raises BadParameter for an empty one, as from a variable of the shell that is not set: it would be the current
    folder."""
    if not given:
        raise typer.BadParameter("is empty; give a path, or leave it out")
    return Path(given)


def run_folder(given: str) -> Path:
    """A run folder on a disk. Raises BadParameter."""
    from fastgen.input import storage

    if given and storage.is_address(given):
        raise typer.BadParameter(
            f"{storage.address(given)} is in object storage; copy it here first, such as with aws s3 sync, and give "
            "the copy"
        )
    return path(given)


def rows_given(given: str) -> str:
    """INPUT, which may also be an address, a pattern or a prompt. Raises BadParameter for an empty one."""
    path(given)
    return given


Input = Annotated[
    str | None,
    typer.Argument(
        parser=rows_given,
        metavar="INPUT",
        help="The rows: .jsonl, .json, .csv, .tsv, .txt, .parquet, a WebDataset's .tar (all also .gz, .zst), a folder, "
        "a pattern such as 'part-*.parquet', s3://BUCKET/FILE, hf://OWNER/NAME, - for standard input, or for t2i a "
        "prompt. Without it, bundled examples run.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        parser=path,
        metavar="<path>",
        help="Run folder, or an address in object storage such as s3://BUCKET/RUN.  [default: fastgen-runs/<task>]",
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        parser=path,
        metavar="<path>",
        help="With -o s3://... and the like: the folder on this machine for the journal, logs, and results that are "
        "not sent yet.  [default: one in ~/.cache/fastgen/runs]",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        autocompletion=complete.models,
        help="Hub id or local folder of a model in diffusers format, a short name such as 'klein' (docs/models.md), "
        "'tiny' (embedded), or 'auto': with a CUDA GPU 'klein' or 'z-image' by its memory, 'tiny' on a machine "
        "without one.",
    ),
]
Gpus = Annotated[
    str,
    typer.Option(
        autocompletion=complete.gpus,
        help="0,1 or all, or cpu or cpu:N. Each gets one engine process.  [default: all GPUs; cpu on a machine without "
        "any]",
    ),
]
GpusPerReplica = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="K",
        help="Split one copy of the model over K GPUs, for a model that does not fit into one. The same as groups in "
        "--gpus, such as 0+1,2+3.  [default: 1]",
    ),
]
Parallel = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="How the GPUs of a replica share the work. shard: each has some of the layers, for a model that does not "
        "fit into one GPU. context: each has the model and some of the tokens, so that an image is there sooner.  "
        "[default: shard]",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="WHERE",
        help="process: each GPU of this machine has a process. ray: the machines of a Ray cluster work "
        "(docs/machines.md).  [default: process]",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="The Ray cluster, such as 10.0.0.1:6379.  [default: that of RAY_ADDRESS or of this machine]",
    ),
]
MinWorkers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Workers that the Ray cluster must have within ten minutes.  [default: 1]"),
]
MaxWorkers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Most workers on the Ray cluster. Those that find no room wait for machines to join.  [default: what fits "
        "at the start]",
    ),
]
Shard = Annotated[
    str,
    typer.Option(
        metavar="I/N",
        help="Run part I of N into the shared folder -o; or slurm: the part of this task of an array job "
        "(docs/machines.md).",
    ),
]
VlmPerReplica = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="K",
        help="Split one copy of the VLM over K GPUs, for a model that does not fit into one. The same as groups in "
        "--gpus, such as 0+1,2+3.  [default: 1]",
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        autocompletion=complete.backends,
        help="local: the model runs on this machine. openai, gemini: an API of that format.  [default: local]",
    ),
]
CaptionBackend = Annotated[
    str,
    typer.Option(
        autocompletion=complete.backends,
        help="vllm: a vLLM server that this command starts and stops, or one that is already running (--base-url). "
        "openai, gemini: an API of that format.  [default: vllm]",
    ),
]
BaseUrl = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="Address of the API or of a running vLLM server; may be repeated, for several servers of one model.  "
        "[default: the vendor's own]",
    ),
]
VllmCommand = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND", help="The vLLM server, or a Python that has vLLM.  [default: what setup vllm installed]"
    ),
]
Fallback = Annotated[
    str,
    typer.Option(
        autocompletion=complete.backends,
        metavar="NAMES",
        help="Backends for rows that the first one cannot do, in order: openai,gemini. Each may name a model and an "
        "address: openai:gpt-image-2@http://host/v1.",
    ),
]
FallbackOnRefusal = Annotated[
    bool, typer.Option("--fallback-on-refusal", help="Use --fallback also for rows whose content a backend refused.")
]
MaxInflight = Annotated[
    int | None, typer.Option(metavar="N", help="Maximum number of requests to an API at the same time.")
]
Rpm = Annotated[int, typer.Option(metavar="N", help="Maximum number of requests to an API per minute; 0: no limit.")]
Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Time limit for one request to an API.  [default: 600, for captions 120]"),
]
BatchApi = Annotated[
    bool,
    typer.Option(
        "--batch-api",
        help="For openai and gemini: send rows by the file to the service's Batch API, at about half the price. "
        "Results come within a day. Stop the run whenever you like: the same command fetches them.",
    ),
]
BatchRows = Annotated[
    int | None,
    typer.Option(
        metavar="ROWS",
        help="With --batch-api: the most rows in one batch. --max-inflight is the number of batches at once.  "
        "[default: 4096 captions, 128 images; 16 batches]",
    ),
]
MaxCost = Annotated[
    float, typer.Option(metavar="USD", help="The most that the run folder may cost, over all its runs; 0: no limit.")
]
Quality = Annotated[
    str,
    typer.Option(
        autocompletion=complete.qualities,
        help="On this machine: exact, high or fast, the set of optimizations (docs/optimizations.md). For APIs: low, "
        "medium, high ..., for rows that do not set it.  [default: exact; the API's]",
    ),
]
Attention = Annotated[
    str,
    typer.Option(
        autocompletion=complete.kernels,
        metavar="NAME",
        help="Attention kernel: auto, native, cudnn, flash, flash3, sage, xformers ...  [default: the profile's; "
        "for FLUX.1 on a GPU the best that works]",
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the transformer's blocks with torch.compile.  [default: the profile's; for FLUX.1 on a "
        "GPU, if the run is long enough to gain by it]",
    ),
]
Quantize = Annotated[
    str,
    typer.Option(
        autocompletion=complete.quantizations,
        metavar="KIND",
        help="Store weights in fewer bits: none, 8bit, 4bit, fp8, int8, mxfp8, nvfp4; text:8bit for T5.  [default: the "
        "profile's; else none, unless the model would not fit into the GPU]",
    ),
]
Cache = Annotated[
    str,
    typer.Option(
        autocompletion=complete.caches,
        metavar="KIND[:THRESHOLD]",
        help="Step cache: none, first-block or taylorseer.  [default: the profile's, else none]",
    ),
]
Progressive = Annotated[
    str,
    typer.Option(
        autocompletion=complete.progressives,
        metavar="SCALE[:SHARE]",
        help="Take the first steps of each image at a smaller size: none, or 0.5:0.25 for half the sides and a quarter "
        "of the steps.  [default: the profile's, else none]",
    ),
]
Offload = Annotated[
    str,
    typer.Option(
        autocompletion=complete.offloads,
        metavar="WHAT",
        help="What is moved off the GPU while it is not needed: none, text, model or group.  [default: what the "
        "model needs to fit into the GPU]",
    ),
]
CudaGraphs = Annotated[
    bool | None,
    typer.Option(
        "--cuda-graphs/--no-cuda-graphs",
        help="Record a step once and repeat it, on a GPU.  [default: the profile's, else no]",
    ),
]
ProfileFile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        parser=path,
        metavar="FILE",
        help="Use this profile.  [default: the one in kernels_cfg that fits best]",
    ),
]
Background = Annotated[str, typer.Option(help="APIs only: transparent, opaque or auto.")]
AspectRatio = Annotated[str, typer.Option(help="APIs only: for example 16:9.")]
Resolution = Annotated[str, typer.Option(help="APIs only: 1K, 2K or 4K.")]
Pictures = Annotated[
    str | None,
    typer.Argument(
        parser=rows_given,
        metavar="INPUT",
        help="The rows: an image, a folder of them, .jsonl, .json, .csv, .tsv, .parquet, a WebDataset's .tar (all also "
        ".gz, .zst), a pattern such as 'part-*.tar', s3://BUCKET/FILE, hf://OWNER/NAME, or - for standard input. "
        "Without it, bundled examples run.",
    ),
]
VlmModel = Annotated[
    str,
    typer.Option(
        autocompletion=complete.models,
        help="Hub id or local folder of a VLM, a model of an API, 'tiny' (embedded), or 'auto': Qwen3-VL with a CUDA "
        "GPU, else 'tiny'; for an API its default model.",
    ),
]
Prompt = Annotated[str, typer.Option(metavar="TEXT", help="The question for rows that have none.")]
RowPrompt = Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="The prompt for rows that have none.")]
PromptKey = Annotated[
    str, typer.Option(metavar="COLUMN", help="The column with the prompts.  [default: common names, see docs/rows.md]")
]
ImageKey = Annotated[
    str, typer.Option(metavar="COLUMN", help="The column with the images.  [default: common names, see docs/rows.md]")
]
MaskKey = Annotated[str, typer.Option(metavar="COLUMN", help="edit: the column with the masks.  [default: mask]")]
IdKey = Annotated[str, typer.Option(metavar="COLUMN", help="The column with the rows' own names.  [default: id]")]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse rows with a field that is not read and plainly should be, such as `stpes`."),
]
Name = Annotated[
    str,
    typer.Option(
        metavar="PATTERN",
        help="Names of image files, such as '{category}-{id}_{n}': columns, {id}, {row}, {seed}, {width}, {height}.  "
        "[default: {id}_{n}]",
    ),
]
Table = Annotated[
    str,
    typer.Option(
        autocompletion=complete.tables, metavar="FORMAT", help="Write the table also as parquet or csv, beside jsonl."
    ),
]
Webdataset = Annotated[
    bool, typer.Option("--webdataset", help="Write the results also as tar shards, in webdataset/ in the run folder.")
]
System = Annotated[str, typer.Option(metavar="TEXT", help="The system prompt; '' for none.")]
MaxTokens = Annotated[int, typer.Option(help="Maximum tokens of a caption; one that needs more fails as 'truncated'.")]
Temperature = Annotated[float, typer.Option(help="0 always takes the likeliest token.")]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Larger images are scaled down to this many pixels before they are sent.  [default: the profile's, "
        f"else {MAX_PIXELS}]",
    ),
]
Schema = Annotated[
    Path | None,
    typer.Option(
        parser=path, metavar="FILE", help="JSON schema: each caption is an object that fits it, instead of a text."
    ),
]
Thinking = Annotated[
    str,
    typer.Option(
        metavar="on|off",
        help="Whether the model thinks before it answers. Its thoughts are never part of the caption.  [default: off "
        "for a server that this command starts, and for models that think unasked]",
    ),
]
AcceptRefusals = Annotated[
    bool, typer.Option("--accept-refusals", help="Take every text as a caption, also one that looks like a refusal.")
]
ExtraBody = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help="More parameters for each request to vLLM or a server in OpenAI's format, as a JSON object.",
    ),
]
AllowImageHosts = Annotated[
    str,
    typer.Option(
        metavar="HOSTS",
        help="Fetch images only from the API's own host and these: cdn.example.com,*.example.net.  [default: any "
        "public host]",
    ),
]
CaptionKey = Annotated[str | None, typer.Option("--output-key", help="Field for the caption.  [default: caption]")]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH", help="Size for rows that set none.  [default: the model's; an edit keeps the shape of its input]"
    ),
]
Steps = Annotated[int | None, typer.Option(help="Denoising steps, for rows that set none.  [default: the model's]")]
Guidance = Annotated[float | None, typer.Option(help="Guidance, for rows that set none.  [default: the model's]")]
N = Annotated[int, typer.Option("--n", help="Images per prompt (t2i) or per row (edit), for rows that set none.")]
Seed = Annotated[int, typer.Option(help="Seed of the run: a row without a seed derives one from this and its id.")]
Dtype = Annotated[
    str,
    typer.Option(
        autocompletion=complete.dtypes,
        help="float32, bfloat16, float16, or auto (bfloat16 on a GPU, float32 on a CPU).",
    ),
]
BatchSize = Annotated[
    str, typer.Option(metavar="N|auto", help="Images that go through the model together; auto: by the profile.")
]
Format = Annotated[
    str,
    typer.Option(
        autocompletion=complete.formats, help="png, jpeg or webp; with a quality: jpeg:90, webp:80, webp:lossless."
    ),
]
OutputKey = Annotated[
    str | None, typer.Option(help="Field for the paths of the images.  [default: images; edited_images for edit]")
]
ImageRoot = Annotated[
    Path | None,
    typer.Option(
        parser=path,
        metavar="<path>",
        help="The folder where relative image paths start, also s3://...  [default: the folder of INPUT]",
    ),
]
Lora = Annotated[
    list[str] | None, typer.Option(metavar="PATH[:SCALE]", help="LoRA file to merge into the model; may be repeated.")
]
Transformer = Annotated[
    Path | None,
    typer.Option(
        parser=path, metavar="FILE", help="Use the transformer weights of one safetensors file instead of the model's."
    ),
]
MaxSequenceLength = Annotated[
    int | None,
    typer.Option(metavar="N", help="Prompt tokens that the model reads (changes images).  [default: the model's]"),
]
Limit = Annotated[int | None, typer.Option(help="Process only the first LIMIT rows.")]
OnlyRows = Annotated[
    Path | None,
    typer.Option(
        "--rows",
        parser=path,
        metavar="FILE",
        help="Run only the rows that FILE names by their ids: picks of `fastgen view`, any file of rows, or a .txt "
        "with one id per line.",
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start over. What earlier runs left in the run folder is moved aside.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try the rows again that failed in an earlier run.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print the plan (buckets, batches, reasons, cost, downloads); no network, no model."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON event per line on stdout, the summary last.")]
MetricsPort = Annotated[
    str,
    typer.Option(
        metavar="[HOST:]PORT",
        help="Serve metrics for Prometheus there during the run; without HOST, only this machine can read them.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors, failed rows and warnings.")]

BenchTask = Annotated[str, typer.Argument(metavar="[t2i|edit|caption]", help="What to measure.")]
BenchOut = Annotated[
    Path | None,
    typer.Option(
        "-o", "--out", parser=path, metavar="<path>", help="Folder for the files.  [default: fastgen-runs/bench-<task>]"
    ),
]
OneGpu = Annotated[
    str, typer.Option("--gpus", autocompletion=complete.gpus, help="One GPU, or cpu.  [default: GPU 0, else cpu]")
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Run only this arm: plain, 'quality high', 'compile + cache first-block:0.1' ...; may be repeated.  "
        "[default: all]",
    ),
]
Rounds = Annotated[int, typer.Option(help="Rounds that each arm runs.")]
RoundRows = Annotated[
    int,
    typer.Option("--rows", help="Rows per round; 0: as many as plain diffusers or transformers does in a few seconds."),
]
Synthetic = Annotated[
    str,
    typer.Option(
        metavar="flux-dev|flux-kontext",
        help="The full-size model with random weights: realistic speed, meaningless images.",
    ),
]
Compare = Annotated[
    str,
    typer.Option(
        metavar="CMD",
        help="Also time this shell command; {rows} in it becomes a .jsonl file, {out} a folder.",
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
