"""vLLM's server as a program: started on loopback with a free port and a random key, watched, and stopped. Sends no
captions."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.http_client import Client
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import EngineError
from fastgen.output.artifacts import LOGS, tail

READY_IN_S = 1800.0
"""A large model takes long to load, and the first time also to download."""
STOP_IN_S = 8.0
HEALTH_S = 5.0


class Server:
    """Args: device: its GPU is chosen by CUDA_VISIBLE_DEVICES, which the worker has set."""

    def __init__(self, settings: Settings, device: Device):
        self.settings = settings
        """The log of the run that it works for now; another run may have started it."""
        self.device = device
        self.log = self._log_of_now()
        self.key = secrets.token_hex(16)
        self.url = ""
        self._leash: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the server and wait until it answers. Raises EngineError with its last lines."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        self.log = self._log_of_now()
        profile = self.settings.placement.profile.serve
        environment = {
            **os.environ,
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            **profile.environment,
            "VLLM_API_KEY": self.key,
        }
        if os.path.isdir(self.settings.model.path):
            environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)  # this is for our worker; vLLM may be in another environment
        with self.log.open("ab") as log:
            self._leash = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("supervisor.py")), *self._command(port)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self._wait()

    def _log_of_now(self) -> Path:
        return Path(self.settings.run.out) / LOGS / f"vllm-{self.device.name.replace(':', '-')}.log"

    def _command(self, port: int) -> list[str]:
        command, model, serve = (
            self.settings.endpoint.command,
            self.settings.model,
            self.settings.placement.profile.serve,
        )
        words = [*command, *([model.path] if command[-1] == "serve" else ["--model", model.path])]
        words += ["--served-model-name", model.name, "--host", "127.0.0.1", "--port", str(port)]
        for flag in (
            "dtype",
            "quantization",
            "max_model_len",
            "max_num_seqs",
            "max_num_batched_tokens",
            "gpu_memory_utilization",
            "kv_cache_memory_bytes",
            "api_server_count",
        ):
            if value := getattr(serve, flag):
                words += [f"--{flag.replace('_', '-')}", str(value)]
        if serve.mm_processor_cache_gb >= 0:
            words += ["--mm-processor-cache-gb", str(serve.mm_processor_cache_gb)]
        if serve.images_per_prompt:
            words += ["--limit-mm-per-prompt", json.dumps({"image": serve.images_per_prompt})]
        return [*words, *(["--enforce-eager"] if serve.enforce_eager else []), *serve.arguments]

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_IN_S
        direct = Client(self.url, HEALTH_S, at_once=1, direct=True)  # requests to this machine use no proxy
        while time.monotonic() < deadline:
            if not self.alive:
                raise EngineError(f"vLLM did not come up{self.last_words()}")
            with suppress(Fault):
                if direct.send("GET", f"{self.url.removesuffix('/v1')}/health", {}).status == 200:
                    direct.close()
                    return
            time.sleep(0.25)
        self.stop()
        raise EngineError(f"vLLM was not ready after {READY_IN_S:.0f} s{self.last_words()}")

    @property
    def alive(self) -> bool:
        return self._leash is not None and self._leash.poll() is None

    def last_words(self) -> str:
        return f"; the end of {self.log}:\n{tail(self.log)}"

    def stop(self) -> None:
        """End the server and all its processes."""
        if self._leash is None:
            return
        assert self._leash.stdin is not None  # it was started with a pipe
        self._leash.stdin.close()
        try:
            self._leash.wait(STOP_IN_S)
        except subprocess.TimeoutExpired:
            self._leash.kill()  # this ends the server too; see supervisor.py
            self._leash.wait()
        self._leash = None
