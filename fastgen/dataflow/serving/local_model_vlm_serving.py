"""Texts about images from a VLM on this machine, with one vLLM server per GPU: the first call starts it, `cleanup` ends
it."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from fastgen.dataflow.services import VLLM
from fastgen.dataflow.serving.local_image_gen_serving import find_model
from fastgen.dataflow.serving.texts import TextServing

MAX_MODEL_LEN = 4096
MEMORY_SHARE = 0.9


class LocalModelVLMServing_vllm(TextServing):
    """Captions, answers, descriptions.

    Args:
        hf_model_name_or_path: local folder, hub id or "tiny" (the embedded VLM); None: fastgen's default.
        hf_cache_dir: accepted without effect; vLLM stores the hub's files where HF_HUB_CACHE says.
        hf_local_dir: searched for the model; nothing is written there.
        vllm_max_tokens: an answer that needs more fails; it is not cut off.
        vllm_max_model_len, vllm_gpu_memory_utilization: at their defaults, the values of the model and of fastgen's
            profile are used.
        strict: raise an error if inputs failed, after all others are done.
        progress: show how far a call is, on stderr or in a notebook.
        flags: of `fastgen.resolve`, such as gpus="0,1" or base_url (of a running vLLM server).
    """

    parameters: ClassVar = {
        "model": "hf_model_name_or_path",
        "max-tokens": "vllm_max_tokens",
        "temperature": "vllm_temperature",
        "seed": "vllm_seed",
    }

    def __init__(
        self,
        hf_model_name_or_path: str | None = None,
        hf_cache_dir: str | None = None,
        hf_local_dir: str | None = None,
        vllm_tensor_parallel_size: int = 1,
        vllm_temperature: float = 0.7,
        vllm_top_p: float = 0.9,
        vllm_max_tokens: int = 1024,
        vllm_top_k: int = 40,
        vllm_repetition_penalty: float = 1.0,
        vllm_seed: int = 42,
        vllm_max_model_len: int = MAX_MODEL_LEN,
        vllm_gpu_memory_utilization: float = MEMORY_SHARE,
        *,
        strict: bool = False,
        progress: bool = True,
        **flags: Any,
    ):
        if vllm_tensor_parallel_size > 1:
            flags = {"gpus_per_replica": vllm_tensor_parallel_size, **flags}
        sampling = {"top_p": vllm_top_p, "top_k": vllm_top_k, "repetition_penalty": vllm_repetition_penalty}
        server = ["--override-generation-config", json.dumps(sampling)]
        if vllm_max_model_len != MAX_MODEL_LEN:
            server += ["--max-model-len", str(vllm_max_model_len)]
        if vllm_gpu_memory_utilization != MEMORY_SHARE:
            server += ["--gpu-memory-utilization", str(vllm_gpu_memory_utilization)]
        super().__init__(
            server=tuple(server),
            strict=strict,
            progress=progress,
            backend=VLLM.name,
            seed=vllm_seed,
            max_tokens=vllm_max_tokens,
            model=find_model(hf_model_name_or_path, None, hf_local_dir),
            temperature=vllm_temperature,
            **flags,
        )
        self._check("caption", **self._flags)

    load_model = __init__
