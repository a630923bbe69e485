"""From the log of a vLLM that did not start: the first error, and what helps."""

from __future__ import annotations

import pytest

from fastgen.backends.remote import vllm_log

LOG = """\
(APIServer pid=1) INFO 11-28 02:54:46 [utils.py:261] Started 2 API server processes
(APIServer pid=1) WARNING 11-28 02:54:47 [x.py:1] ImportError: no such optional thing
(EngineCore pid=2) ERROR 11-28 02:54:50 [core.py:900] Traceback (most recent call last):
(EngineCore pid=2) ERROR 11-28 02:54:50 [core.py:900]   File "core.py", line 1, in run
(EngineCore pid=2) ERROR 11-28 02:54:50 [core.py:900] %s
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        # source: the messages of vLLM 0.32, of torch and of huggingface_hub
        (
            "ValueError: Free memory on device cuda:0 (9.1/23.5 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 21.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other "
            "processes.",
            "another program has memory of this GPU",
        ),
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
            "initializing the engine",
            "--gpus-per-replica",
        ),
        (
            "ValueError: To serve at least one request with the model's max seq len (8192), (1.1 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (0.4 GiB).",
            "--gpus-per-replica",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.9 GiB.", "smaller or quantized one"),
        (
            "ValueError: Total number of attention heads (30) must be divisible by tensor parallel size (4).",
            "usually 2, 4 or 8",
        ),
        ("OSError: You are trying to access a gated repo.", "HF_TOKEN"),
        ("OSError: We couldn't connect to 'https://huggingface.co' to load the files", "give its folder"),
        ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040).", "update the GPU's driver"),
        ("ValueError: something else", ""),
    ],
)
def test_the_first_error_and_what_helps(error, helps):
    log = LOG % error
    assert vllm_log.cause(log) == error
    assert helps in vllm_log.advice(log) and bool(helps) == bool(vllm_log.advice(log))


def test_arguments_that_are_not_known():
    log = "usage: vllm serve [model_tag] [options]\nvllm: error: unrecognized arguments: --api-server-count 2\n"
    assert vllm_log.cause(log) == "" and "vLLM 0.30 or newer" in vllm_log.advice(log)


def test_only_what_this_server_said_counts(tmp_path):
    log = tmp_path / "vllm.log"
    log.write_text(LOG % "ValueError: of the server before")
    start = log.stat().st_size
    assert vllm_log.read(log, start) == ""
    with log.open("a") as file:
        file.write("[Errno 98] error while attempting to bind on address: address already in use\n")
    assert vllm_log.TAKEN.search(vllm_log.read(log, start))
    assert vllm_log.read(tmp_path / "none.log", 0) == vllm_log.advice("") == vllm_log.cause("") == ""
