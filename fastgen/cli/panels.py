"""What `--help` shows where: the panels, what only one task says or takes, and the examples. Data."""

from __future__ import annotations

COMMANDS = {
    "Make data": ("t2i", "edit", "caption"),
    "Look at results": ("view", "table", "export", "check"),
    "This machine": ("doctor", "setup", "bench", "demo"),
    "Several machines": ("submit", "status", "merge"),
    "DataFlow-MM": ("init", "dataflow"),
}
"""Panel -> commands of `fastgen --help`."""

FLAGS = {
    "Input": (
        *("input", "task", "prompt", "prompt_key", "image_key", "mask_key", "id_key", "image_root", "limit"),
        *("only_rows", "strict"),
    ),
    "Output": (
        *(
            "out",
            "state",
            "output_key",
            "format",
            "name",
            "table",
            "webdataset",
            "fresh",
            "retry_failed",
            "to",
            "keep_failed",
        ),
    ),
    "For rows that do not set it themselves": (
        *("size", "steps", "guidance", "n", "seed", "system", "max_tokens", "temperature"),
    ),
    "Model": (
        *("backend", "model", "lora", "transformer", "max_sequence_length", "dtype"),
        *("max_pixels", "schema", "thinking", "accept_refusals"),
    ),
    "GPUs of this machine": ("gpus", "batch_size", "gpus_per_replica", "parallel", "vllm_command"),
    "Speed and memory": (
        *("quality", "quantize", "offload", "cache", "progressive", "attention", "compile", "cuda_graphs", "profile"),
    ),
    "APIs": (
        *("base_url", "fallback", "fallback_on_refusal", "max_cost", "batch_api", "batch_rows"),
        *("max_inflight", "rpm", "timeout", "extra_body"),
        *("background", "aspect_ratio", "resolution", "allow_image_hosts"),
    ),
    "Several machines": ("shard", "engine", "ray_address", "min_workers", "max_workers"),
    "Measuring": ("only", "rounds", "rows", "synthetic", "compare", "tune"),
    "What is shown": ("dry_run", "json", "quiet", "metrics_port", "help"),
}
"""Panel -> parameters of a command with many of them."""

NOT_TAKEN = {"t2i": ("image_key", "mask_key", "image_root"), "edit": ("progressive",)}
"""Flags that a task shares with others and has no use for; `--help` leaves them out."""

_FILES = ".jsonl, .json, .csv, .tsv, .txt, .parquet, a WebDataset's .tar (all also .gz, .zst)"
_MORE = "a pattern such as 'part-*.parquet', s3://BUCKET/FILE, hf://OWNER/NAME, - for standard input"
_MODEL = "Hub id or local folder of a model in diffusers format, a short name such as 'klein' (docs/models.md), 'tiny' "
_URL = "Address of the API; may be repeated, for several servers of one model.  [default: the vendor's own]"
WORDS = {
    "t2i": {
        "input": f"The rows: a prompt in quotes, or {_FILES}, a folder of such files, {_MORE}. Without it, bundled "
        "examples run.",
        "model": f"{_MODEL}(embedded), or 'auto': 'z-image' or 'klein' by the GPU's memory, 'tiny' without one.",
        "size": "Width and height.  [default: the model's]",
        "timeout": "Time limit for one request to an API.  [default: 600]",
        "base_url": _URL,
        "n": "Images per prompt.",
        "output_key": "Field for the paths of the images.  [default: images]",
    },
    "edit": {
        "input": f"The rows: {_FILES}, a folder of images (with --prompt), {_MORE}. Without it, bundled examples run.",
        "model": f"{_MODEL}(embedded), or 'auto': 'klein' with a CUDA GPU, 'tiny' without one.",
        "size": "Width and height.  [default: the shape of the input image]",
        "timeout": "Time limit for one request to an API.  [default: 600]",
        "base_url": _URL,
        "n": "Images per row.",
        "output_key": "Field for the paths of the images.  [default: edited_images]",
        "mask_key": "The column with the masks.  [default: mask]",
    },
    "caption": {
        "timeout": "Time limit for one request.  [default: 120]",
        "seed": "Seed of the run, for models that draw at random.",
    },
}
"""Task -> parameter -> what its help says there."""

EXAMPLES = {
    "": (
        ('fastgen t2i "a red circle on a blue background"', "one picture, into this folder"),
        ("fastgen t2i prompts.csv -o run", "one picture per row"),
        ('fastgen edit photos/ --prompt "make it night"', "edit a folder of pictures"),
        ("fastgen caption run/results.jsonl", "caption what a run made"),
        ("fastgen doctor", "what works on this machine, and what is missing"),
    ),
    "t2i": (
        ('fastgen t2i "a red circle on a blue background"', "one picture, into this folder"),
        ("fastgen t2i prompts.csv -o run --dry-run", "the plan: batches, memory, downloads; runs nothing"),
        ("fastgen t2i rows.parquet --prompt-key caption --n 4", "four pictures for each row of a column"),
        ("fastgen t2i prompts.jsonl --model klein --gpus 0,1", "another model, on two GPUs"),
        ("fastgen t2i prompts.jsonl --backend openai --max-cost 5", "an API, for at most 5 USD"),
    ),
    "edit": (
        ('fastgen edit photos/ --prompt "make it night"', "each picture of a folder"),
        ("fastgen edit edits.jsonl -o run --fallback gemini", "rows that fail here go to an API"),
        ("fastgen edit run/results.jsonl --image-key edited_images --prompt warmer", "edit the results of edits"),
    ),
    "caption": (
        ("fastgen setup vllm", "once: an environment for vLLM"),
        ("fastgen caption photos/ -o run", "each picture of a folder"),
        ('fastgen caption photos/ --prompt "Name the main object."', "another question"),
        ("fastgen caption rows.jsonl --base-url http://localhost:8000/v1", "a vLLM server that is already running"),
    ),
    "bench": (
        ("fastgen bench", "each optimization for t2i on GPU 0"),
        ("fastgen bench edit --model tiny --gpus cpu --only plain --rounds 5", "one arm, five rounds"),
    ),
    "demo": (("fastgen demo --count 3", "three prompts, edits and their captions"),),
    "doctor": (("fastgen doctor --json", "one finding per line, for scripts"),),
    "view": (
        ("fastgen view run", "prints the address of the page"),
        ("fastgen view run-fast run-exact", "the same rows of two runs, side by side"),
        ("fastgen view run --export page", "a folder that needs no server"),
    ),
    "check": (("fastgen check run", "every image of a run"),),
    "table": (("fastgen table run --to parquet", "run/results.parquet, also while the run goes on"),),
    "export": (
        ("fastgen export run --to hf", "for datasets.load_dataset"),
        ("fastgen export run --to webdataset -o shards --keep-failed", "tar shards, failed rows included"),
    ),
    "submit": (
        ("fastgen submit --to slurm --parts 16 t2i prompts.jsonl -o run > run.sbatch", "then: sbatch run.sbatch"),
        ("fastgen submit --to ray caption photos/ -o run --max-workers 8 > run.sh", "then: bash run.sh"),
        (
            "fastgen submit --to kuberay --image IMAGE --claim NAME t2i prompts.jsonl > run.yaml",
            "then: kubectl apply -f run.yaml",
        ),
    ),
    "status": (("fastgen status run", "how far each part is"),),
    "merge": (("fastgen merge run", "one table of all parts"),),
    "init": (("fastgen init pipelines", "scripts and example rows in a new folder"),),
}
"""Command ("" for `fastgen` itself) -> examples: what to type, and what it does."""
