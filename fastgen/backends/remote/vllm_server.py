"""vLLM's server as a program: started on loopback with a free port and a random key, watched, and stopped. Sends no
captions."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from fastgen.backends.remote import vllm_command, vllm_log
from fastgen.backends.remote.faults import Fault
from fastgen.backends.remote.http_client import Client
from fastgen.backends.remote.ports import Port, is_served_by, sessions_of
from fastgen.config.hardware import Device
from fastgen.config.settings import Settings
from fastgen.errors import EngineError
from fastgen.output.artifacts import LOGS, tail

READY_IN_S = 1800.0
"""A large model takes long to load, and the first time also to download."""
STOP_IN_S = 8.0
HEALTH_S = 5.0
MOST_PORTS = 3
"""Ports that are tried, if other programs take them."""


class Server:
    """Args: device: its GPU is chosen by CUDA_VISIBLE_DEVICES, which the worker has set."""

    def __init__(self, settings: Settings, device: Device):
        self.settings = settings
        """The log of the run that it works for now; another run may have started it."""
        self.device = device
        self.log = self._log_of_now()
        self.key = secrets.token_hex(16)
        self.url = ""
        self._log_start = 0
        self.starts = 0
        self._leash: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the server and wait until it answers. Raises EngineError with its last lines."""
        self.starts += 1
        for attempt in range(1, MOST_PORTS + 1):
            with Port(hold=attempt < MOST_PORTS) as port:  # the last without: a program may insist on a free one
                self._launch(port.number)
                try:
                    self._wait()
                except EngineError:
                    if attempt == MOST_PORTS or not vllm_log.TAKEN.search(self._said()):
                        raise
                else:
                    if self._is_ours(port.number):
                        return
                self.stop()
        raise EngineError(
            "vLLM did not come up: another program answers at each port that was chosen for it. If vLLM runs in a "
            "container, start it yourself and give its address with --base-url"
        )

    def _launch(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.log = self._log_of_now()
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._leash = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).with_name("supervisor.py")),
                    *vllm_command.arguments(self.settings, len(self.device.gpus), port),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(),
            )

    def _environment(self) -> dict[str, str]:
        inherited = dict(os.environ)
        for name in ("PYTHONPATH", "OMP_NUM_THREADS"):  # for our worker: vLLM has its own packages and processes
            inherited.pop(name, None)
        environment = {
            **inherited,
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            **self.settings.placement.profile.serve.environment,
            "VLLM_API_KEY": self.key,
        }
        if os.path.isdir(self.settings.model.path):
            environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        return environment

    def _is_ours(self, port: int) -> bool:
        """Whether who answers is the program that was started, by its sockets or, where they cannot be seen, by its
        key."""
        assert self._leash is not None
        owned = is_served_by(self._leash.pid, port)
        if owned or (owned is None and sys.platform != "linux"):
            return True
        direct = Client(self.url, HEALTH_S, at_once=1, direct=True)
        try:
            url = f"{self.url}/models"
            asks = direct.send("GET", url, {}).status in (401, 403)
            return asks and direct.send("GET", url, {"Authorization": f"Bearer {self.key}"}).status == 200
        except Fault:
            return False
        finally:
            direct.close()

    def _log_of_now(self) -> Path:
        return Path(self.settings.run.out) / LOGS / f"vllm-{self.device.name.replace(':', '-')}.log"

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
        leash = self._leash  # another thread may end it meanwhile
        return leash is not None and leash.poll() is None

    def _said(self) -> str:
        """The log since the server was started."""
        return vllm_log.read(self.log, self._log_start)

    def last_words(self) -> str:
        said = self._said()
        first, helps = vllm_log.cause(said), vllm_log.advice(said)
        return "".join(
            (
                f": {first}" if first else "",
                f". To fix it, {helps}" if helps else "",
                f"; the end of {self.log}:\n{tail(self.log)}",
            )
        )

    def stop(self) -> None:
        """End the server and all its processes."""
        if self._leash is None:
            return
        assert self._leash.stdin is not None  # it was started with a pipe
        self._leash.stdin.close()
        try:
            self._leash.wait(STOP_IN_S)
        except subprocess.TimeoutExpired:  # it was stopped itself (SIGSTOP)
            for leader in sessions_of(self._leash.pid):
                with suppress(OSError):
                    os.killpg(leader, signal.SIGKILL)
            self._leash.kill()
            self._leash.wait()
        self._leash = None
