"""The command line: parse, call, exit code. Imports no torch, and nothing heavy before a command runs.

Exit codes: 0 every row is done; 1 the run could not continue (full disk, no engine left) or fastgen has a bug;
2 wrong usage or settings, found before any work; 3 finished but some rows failed; 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastgen.cli import shards, tables
from fastgen.cli.check import check
from fastgen.cli.dataflow import init, programs
from fastgen.cli.doctor import doctor
from fastgen.cli.flags import (
    AcceptRefusals,
    AllowImageHosts,
    AspectRatio,
    Attention,
    Backend,
    Background,
    BaseUrl,
    BatchApi,
    BatchRows,
    BatchSize,
    BenchOut,
    BenchTask,
    Cache,
    CaptionBackend,
    CaptionKey,
    Compare,
    Compile,
    CudaGraphs,
    DryRun,
    Dtype,
    Engine,
    ExtraBody,
    Fallback,
    FallbackOnRefusal,
    Format,
    Fresh,
    Gpus,
    GpusPerReplica,
    Guidance,
    IdKey,
    ImageKey,
    ImageRoot,
    Input,
    Json,
    Limit,
    Lora,
    MaskKey,
    MaxCost,
    MaxInflight,
    MaxPixels,
    MaxSequenceLength,
    MaxTokens,
    MaxWorkers,
    MetricsPort,
    MinWorkers,
    Model,
    N,
    Name,
    Offload,
    OneGpu,
    Only,
    OnlyRows,
    Out,
    OutputKey,
    Parallel,
    Pictures,
    ProfileFile,
    Progressive,
    Prompt,
    PromptKey,
    Quality,
    Quantize,
    Quiet,
    RayAddress,
    Resolution,
    RetryFailed,
    RoundRows,
    Rounds,
    RowPrompt,
    Rpm,
    Schema,
    Seed,
    Shard,
    Size,
    State,
    Steps,
    Strict,
    Synthetic,
    System,
    Table,
    Temperature,
    Thinking,
    Timeout,
    Transformer,
    Tune,
    Version,
    VllmCommand,
    VlmModel,
    VlmPerReplica,
    Webdataset,
    path,
)
from fastgen.cli.help import Command, Group
from fastgen.cli.run_task import fail, run_task
from fastgen.cli.submit import submit
from fastgen.cli.view import view
from fastgen.config.prompts import PROMPT, SYSTEM

if TYPE_CHECKING:
    from fastgen.types import Task

app = typer.Typer(
    name="fastgen",
    help="Make images from prompts, edit images and caption images: a file of rows in, a table out. Runs on your own "
    "GPUs or through APIs. You can kill a run at any time; the same command continues it.",
    no_args_is_help=True,
    cls=Group,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # square brackets in help texts are literal
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 every row is done, 2 wrong usage or settings, 3 finished but some rows failed, 130 "
    "interrupted, 1 the run could not continue.",
)


@app.callback()
def root(version: Version = False) -> None: ...


def _command(task: Task, help: str) -> Callable[..., None]:
    """A command with the flags that t2i and edit share."""

    @app.command(task, help=help, cls=Command)
    def command(
        input: Input = None,
        out: Out = None,
        state: State = None,
        model: Model = "auto",
        gpus: Gpus = "",
        gpus_per_replica: GpusPerReplica = None,
        parallel: Parallel = "",
        engine: Engine = "",
        ray_address: RayAddress = None,
        min_workers: MinWorkers = None,
        max_workers: MaxWorkers = None,
        shard: Shard = "",
        size: Size = None,
        steps: Steps = None,
        guidance: Guidance = None,
        n: N = 1,
        seed: Seed = 0,
        batch_size: BatchSize = "auto",
        dtype: Dtype = "auto",
        format: Format = "png",
        output_key: OutputKey = None,
        image_root: ImageRoot = None,
        prompt: RowPrompt = None,
        prompt_key: PromptKey = "",
        image_key: ImageKey = "",
        mask_key: MaskKey = "",
        id_key: IdKey = "",
        strict: Strict = False,
        name: Name = "",
        table: Table = "jsonl",
        webdataset: Webdataset = False,
        lora: Lora = None,
        transformer: Transformer = None,
        max_sequence_length: MaxSequenceLength = None,
        limit: Limit = None,
        only_rows: OnlyRows = None,
        fresh: Fresh = False,
        retry_failed: RetryFailed = False,
        dry_run: DryRun = False,
        json: Json = False,
        quiet: Quiet = False,
        metrics_port: MetricsPort = "",
        backend: Backend = "",
        base_url: BaseUrl = None,
        fallback: Fallback = "",
        fallback_on_refusal: FallbackOnRefusal = False,
        batch_api: BatchApi = False,
        batch_rows: BatchRows = None,
        max_inflight: MaxInflight = None,
        rpm: Rpm = 0,
        timeout: Timeout = None,
        max_cost: MaxCost = 0.0,
        quality: Quality = "",
        background: Background = "",
        aspect_ratio: AspectRatio = "",
        resolution: Resolution = "",
        extra_body: ExtraBody = None,
        allow_image_hosts: AllowImageHosts = "",
        attention: Attention = "",
        compile: Compile = None,
        quantize: Quantize = "",
        cache: Cache = "",
        progressive: Progressive = "",
        offload: Offload = "",
        cuda_graphs: CudaGraphs = None,
        profile: ProfileFile = None,
    ) -> None:
        flags = dict(locals())
        flags.pop("task", None)
        run_task(task, flags)

    return command


t2i = _command("t2i", "Make images from prompts.")
edit = _command("edit", "Edit images by instruction: in one or several turns, with several references, with masks.")


@app.command(cls=Command)
def caption(
    input: Pictures = None,
    out: Out = None,
    state: State = None,
    backend: CaptionBackend = "",
    model: VlmModel = "auto",
    gpus: Gpus = "",
    gpus_per_replica: VlmPerReplica = None,
    engine: Engine = "",
    ray_address: RayAddress = None,
    min_workers: MinWorkers = None,
    max_workers: MaxWorkers = None,
    shard: Shard = "",
    prompt: Prompt = PROMPT,
    system: System = SYSTEM,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    max_pixels: MaxPixels = None,
    schema: Schema = None,
    thinking: Thinking = "",
    accept_refusals: AcceptRefusals = False,
    extra_body: ExtraBody = None,
    output_key: CaptionKey = None,
    image_root: ImageRoot = None,
    prompt_key: PromptKey = "",
    image_key: ImageKey = "",
    id_key: IdKey = "",
    strict: Strict = False,
    table: Table = "jsonl",
    webdataset: Webdataset = False,
    base_url: BaseUrl = None,
    vllm_command: VllmCommand = None,
    fallback: Fallback = "",
    fallback_on_refusal: FallbackOnRefusal = False,
    batch_api: BatchApi = False,
    batch_rows: BatchRows = None,
    max_inflight: MaxInflight = None,
    rpm: Rpm = 0,
    timeout: Timeout = None,
    max_cost: MaxCost = 0.0,
    limit: Limit = None,
    only_rows: OnlyRows = None,
    fresh: Fresh = False,
    retry_failed: RetryFailed = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    metrics_port: MetricsPort = "",
) -> None:
    """Caption images with a VLM: descriptions, answers to questions, or JSON."""
    run_task("caption", dict(locals()))


@app.command(cls=Command)
def setup(
    what: Annotated[str, typer.Argument(metavar="vllm", help="What to set up.")],
    cpu: Annotated[bool, typer.Option("--cpu", help="Install for the CPU even if there is a GPU.")] = False,
) -> None:
    """Install vLLM in an environment of its own, where `fastgen caption` finds it."""
    from fastgen.config.hardware import find_gpus
    from fastgen.errors import FastgenError
    from fastgen.providers import vllm

    if what != "vllm":
        print(f"error: setup {what}: there is only `setup vllm`", file=sys.stderr)
        raise typer.Exit(2)
    try:
        place = vllm.make(on_gpu=not cpu and bool(find_gpus(cpu="--cpu")))
    except FastgenError as error:
        fail(error, "human")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    print(f"vLLM is installed in {place}; `fastgen caption` finds it there")


@app.command(cls=Command)
def demo(
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", parser=path, metavar="<path>", help="Folder for the sheet and the two run folders."
        ),
    ] = Path("fastgen-runs/demo"),
    count: Annotated[
        int, typer.Option(help="Number of prompts, 1 to 12. There are as many edits and twice as many captions.")
    ] = 6,
    seed: Annotated[int, typer.Option(help="Another seed gives other prompts and images.")] = 0,
) -> None:
    """Show everything once on the embedded models: images, edits and captions on one contact sheet. Needs no GPU."""
    from fastgen.config.checks import MAX_SEED, number
    from fastgen.embedded import demo
    from fastgen.errors import FastgenError

    try:
        number("--count", count, 1, 12)
        number("--seed", seed, 0, MAX_SEED)
        sheet, right = demo.run(out, count, seed)
    except FastgenError as error:
        fail(error, "human")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    print(
        f"judged by the scene reader: {right['pictures']} of {count} images and {right['edits']} of {count} edits "
        f"show what was asked for, and {right['captions']} of {2 * count} captions are right\n{sheet}"
    )


@app.command(cls=Command)
def bench(
    task: BenchTask = "t2i",
    out: BenchOut = None,
    model: Model = "auto",
    gpus: OneGpu = "",
    gpus_per_replica: GpusPerReplica = None,
    size: Size = None,
    steps: Steps = None,
    batch_size: BatchSize = "auto",
    dtype: Dtype = "auto",
    profile: ProfileFile = None,
    vllm_command: VllmCommand = None,
    only: Only = None,
    rounds: Rounds = 3,
    rows: RoundRows = 0,
    synthetic: Synthetic = "",
    compare: Compare = "",
    tune: Tune = False,
    quiet: Quiet = False,
) -> None:
    """Measure what each optimization gains and costs on this machine. The baseline is plain diffusers or
    transformers."""
    command = ["fastgen", *sys.argv[1:]]
    flags: dict[str, Any] = {
        "gpus_per_replica": gpus_per_replica,
        "size": size,
        "steps": steps,
        "batch_size": batch_size,
        "dtype": dtype,
        "profile": profile,
        "vllm_command": vllm_command,
    }
    started = time.monotonic()

    def say(text: str) -> None:
        if not quiet:
            print(f"{time.monotonic() - started:6.0f} s  {text}", file=sys.stderr, flush=True)

    from fastgen.bench import report
    from fastgen.bench.run import run, settings_for
    from fastgen.errors import FastgenError

    try:
        settings = settings_for(task, out, synthetic_model=synthetic, tune=tune, model=model, gpus=gpus, **flags)
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # ends the processes it started, too
        flags |= {"model": settings.model.path if settings.model.synthetic else model, "gpus": gpus}
        found = run(
            settings,
            command,
            say,
            flags=flags,
            only=tuple(only or ()),
            rounds=rounds,
            rows=rows,
            compare=compare,
            tune=tune,
        )
    except FastgenError as error:
        fail(error, "human")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    report.show(found)
    raise typer.Exit(3 if any(arm["failed"] for arm in found["arms"]) else 0)


app.command("init", cls=Command)(init)
app.command("check", cls=Command)(check)
app.command("doctor", cls=Command)(doctor)
app.command("status", cls=Command)(shards.status)
app.command("submit", cls=Command, context_settings={"allow_interspersed_args": False})(submit)
app.command("merge", cls=Command)(shards.merge)
app.command("table", cls=Command)(tables.table)
app.command("export", cls=Command)(tables.export)
app.command("view", cls=Command)(view)
app.add_typer(programs)
