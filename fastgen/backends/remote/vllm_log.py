"""What a log of vLLM says about a server that did not start: the first error, and what helps against it.

vLLM ends with a traceback of its main process, which only says that another one failed; why is far above.
"""

from __future__ import annotations

import re
from pathlib import Path

MOST_BYTES = 4 << 20
TAKEN = re.compile(r"address already in use", re.IGNORECASE)
_ERROR = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception): \S.*)")
_FOLLOWS = re.compile(r"See root cause above|Engine core initialization failed|EngineDeadError|APIServer\w* .*died")
_MILD = re.compile(r"\b(?:WARNING|INFO|DEBUG) \d\d-\d\d ")
_ADVICE = (
    (
        re.compile(r"less than desired GPU memory utilization"),
        "another program has memory of this GPU: end it, choose another GPU with --gpus, or give vLLM a smaller share, "
        'such as --vllm-command "vllm serve --gpu-memory-utilization 0.5"',
    ),
    (
        re.compile(r"No available memory for the cache blocks|larger than the available KV cache|[Oo]ut of memory"),
        "the model does not fit into this GPU with room for requests: choose a smaller or quantized one with --model, "
        "or split it over several GPUs with --gpus-per-replica",
    ),
    (
        re.compile(r"divisible by tensor parallel size"),
        "this model cannot be split over that many GPUs: choose another --gpus-per-replica, usually 2, 4 or 8",
    ),
    (
        re.compile(r"gated repo|GatedRepoError|401 Client Error|is not a valid model identifier"),
        "check the name in --model; for a gated one, accept its licence on the hub and set HF_TOKEN",
    ),
    (
        re.compile(r"LocalEntryNotFoundError|couldn't connect to|Temporary failure in name resolution|OfflineModeIs"),
        "the model is not in the cache of the hub and cannot be downloaded here: give its folder with --model",
    ),
    (
        re.compile(r"unrecognized arguments|invalid choice"),
        "this vLLM does not know an argument; fastgen needs vLLM 0.30 or newer (`fastgen setup vllm`)",
    ),
    (
        re.compile(r"driver (?:version )?(?:on your system )?is (?:too old|insufficient)|NVIDIA driver .* too old"),
        "update the GPU's driver, or install a vLLM for an older CUDA",
    ),
)


def read(log: Path, start: int) -> str:
    """The log from a byte on; its end, if that is very long."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - MOST_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def cause(text: str) -> str:
    """The first error in a log, on one line; "" if there is none."""
    for line in text.splitlines():
        found = _ERROR.search(line)
        if found and not _MILD.search(line) and not _FOLLOWS.search(line):
            return found[1].strip()
    return ""


def advice(text: str) -> str:
    """What helps against the first error that is known here; "" if none is."""
    found = [(match.start(), words) for pattern, words in _ADVICE if (match := pattern.search(text))]
    return min(found)[1] if found else ""
