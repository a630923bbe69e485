"""The arguments of `vllm serve` for a run. They are words of vLLM 0.30 to 0.33, which tests/backends/remote/
test_vllm_command.py checks."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from fastgen.config.profile import Serve
from fastgen.config.settings import Settings

CACHE_GB = 4.0
"""For pictures that repeat, vLLM's default, shared by its API servers: each has a cache of its own."""
_VALUES = (
    "dtype",
    "quantization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "api_server_count",
)
_LIMITS = (
    (r"at most \d+ (?:image|picture|multi-?modal)", "--limit-mm-per-prompt.image 8", ""),
    (
        r"max_model_len|maximum (?:context|model) length|context length|longer than the maximum",
        "--max-model-len 16384",
        "; a smaller --max-pixels or --max-tokens helps too",
    ),
    (r"encoder cache|max_num_batched_tokens", "--max-num-batched-tokens 16384", "; a smaller --max-pixels helps too"),
)
"""What vLLM says of a row that is beyond one of its limits, the argument that raises it, and what else helps."""


def raising(message: str, is_ours: bool) -> str:
    """How the limit that a message is about is raised; "" if it is about none.

    Args:
        is_ours: whether fastgen starts the server.
    """
    for words, argument, more in _LIMITS:
        if re.search(words, message, re.IGNORECASE):
            how = f'--vllm-command "vllm serve {argument}"' if is_ours else f"starting that server with {argument}"
            return f"{how} raises the limit{more}"
    return ""


def arguments(settings: Settings, gpus: int, port: int) -> list[str]:
    """The command line of a server. The user's own arguments in --vllm-command win over those of the profile.

    Args:
        gpus: how many one copy of the model is split over; 0 on a CPU.
    """
    command, model = settings.endpoint.command, settings.model
    start = command.index("serve") + 1 if "serve" in command else len(command)
    name = [model.path] if "serve" in command else ["--model", model.path]  # vLLM wants it right after "serve"
    words = [
        *command[:start],
        *name,
        *_of_profile(settings, gpus),
        *command[start:],
    ]  # of two equal ones the last counts
    return [*words, "--served-model-name", model.name, "--host", "127.0.0.1", "--port", str(port)]


def _of_profile(settings: Settings, gpus: int) -> list[str]:
    serve, words = settings.placement.profile.serve, []
    for name in _VALUES:
        if value := getattr(serve, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    if gpus > 1:
        words += ["--tensor-parallel-size", str(gpus)]
    words += _caches(serve, settings.run.pictures_repeat)
    if serve.images_per_prompt:
        most = max(serve.images_per_prompt, settings.run.pictures_per_row)
        words += ["--limit-mm-per-prompt", json.dumps({"image": most})]
    words += _parser(settings)
    return [*words, *(["--enforce-eager"] if serve.enforce_eager else []), *serve.arguments]


PARSERS = (
    (r"qwen-?3[._]?[5-9]|qwen-?3", "qwen3"),
    (r"glm-?4[._]?[1-9]\d*v|glm-?4[._]5", "glm45"),
    (r"kimi", "kimi_k2"),
    (r"gemma-?4", "gemma4"),
    (r"magistral|mistral|ministral|pixtral", "mistral"),
    (r"mimo", "mimo"),
    (r"ernie", "ernie45"),
    (r"step-?3", "step3"),
    (r"minimax-?m2", "minimax_m2"),
    (r"seed-?oss", "seed_oss"),
)
"""Names of models, and what tells their thoughts from their answers in vLLM."""


def _parser(settings: Settings) -> list[str]:
    """For a model that is to think, or always does. Else there is nothing to tell apart, and some parsers would take
    the whole answer for a thought."""
    model, thinking = settings.model, settings.text.thinking
    name = Path(model.path or model.name).name if os.path.isdir(model.path) else model.path or model.name
    if thinking == "off" or not (thinking or re.search(r"thinking", name, re.IGNORECASE)):
        return []
    parser = next((parser for words, parser in PARSERS if re.search(words, name, re.IGNORECASE)), "")
    if not parser and "<think>" in _template(model.path):
        parser = "qwen3"
    return ["--reasoning-parser", parser] if parser else []


def _template(folder: str) -> str:
    """The chat template of a model folder, "" if it has none."""
    for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json", "processor_config.json"):
        try:
            text = (Path(folder) / name).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if "{%" in text:
            return text
    return ""


def _caches(serve: Serve, repeat: bool | None) -> list[str]:
    """Pictures that repeat are prepared and read once. If none does, both caches only cost memory, and the time to hash
    each picture."""
    size = serve.mm_processor_cache_gb
    if repeat and size <= 0:
        size = CACHE_GB / max(1, serve.api_server_count)
    elif repeat is False and size < 0:
        size = 0.0
    words = ["--mm-processor-cache-gb", str(size)] if size >= 0 else []
    if repeat is not None:
        words.append("--enable-prefix-caching" if repeat else "--no-enable-prefix-caching")
    return words
