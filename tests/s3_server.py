"""An S3-compatible server on this machine that survives its own death: moto, whose objects are in memory, with the
requests that changed something written down and done again at the next start, before it answers anybody.

python -m tests.s3_server PORT FILE     serves; the requests are in FILE
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

CHANGES = ("PUT", "POST", "DELETE")


def serve(port: int, file: Path) -> None:
    """Never returns."""
    os.environ["MOTO_RECORDER_FILEPATH"] = str(file)
    from moto.moto_api import recorder
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    app = DomainDispatcherApplication(create_backend_app)
    inside = make_server("127.0.0.1", 0, app, True, request_handler=MotoRequestHandler)
    threading.Thread(target=inside.serve_forever, daemon=True).start()
    if file.exists():
        file.write_text("".join(f"{line}\n" for line in _changes(file.read_text().splitlines())))
        recorder.replay_recording(f"http://127.0.0.1:{inside.server_port}")
    recorder.start_recording()
    outside = make_server("127.0.0.1", port, app, True, request_handler=MotoRequestHandler)
    print("ready", flush=True)
    outside.serve_forever()


def _changes(lines: list[str]) -> list[str]:
    """Those that changed something; the last one may be torn."""
    found = []
    for line in lines:
        try:
            if json.loads(line)["method"] in CHANGES:
                found.append(line)
        except ValueError:
            assert line is lines[-1]
    return found


class S3Server:
    """Args: folder: for what it writes down. It listens once `start` returns."""

    def __init__(self, folder: Path):
        self._file = folder / "requests"
        self._process: subprocess.Popen | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.s3_server", str(self._port), str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout and self._process.stdout.readline() == "ready\n"

    def make_bucket(self, name: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.address}/{name}", method="PUT")).close()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
