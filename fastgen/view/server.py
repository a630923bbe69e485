"""The server of `fastgen view`: the page, the rows of the runs, their images by number. It takes no path from a request
and writes nothing into a run folder."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fastgen.errors import InputError, SettingsError
from fastgen.view import guard
from fastgen.view.about import about_run
from fastgen.view.pictures import Picture, Thumbnails, full
from fastgen.view.run_rows import RunRows

if TYPE_CHECKING:
    from fastapi import FastAPI, Response

PAGE = Path(__file__).parent / "page"
FILES = {
    "index.html": "text/html; charset=utf-8",
    "view.css": "text/css; charset=utf-8",
    **dict.fromkeys((f"{path.name}" for path in sorted(PAGE.glob("*.js"))), "text/javascript; charset=utf-8"),
}
PORT = 8765
_TRIED_PORTS = 20
MOST_AT_ONCE = 10_000
"""Rows in one answer."""


class View:
    """The runs of one page, each followed in a thread of its own.

    Args:
        paths: run folders.
        thumbnails: where small images are kept.

    Raises:
        RunFolderError, SettingsError: one of them is no run folder.
    """

    def __init__(self, paths: Sequence[Path], thumbnails: Thumbnails | None = None):
        self.runs = [RunRows(path) for path in paths]
        self.thumbnails = thumbnails or Thumbnails()

    def start(self) -> None:
        for run in self.runs:
            threading.Thread(target=run.follow, name=f"view {run.path.name}", daemon=True).start()

    def close(self) -> None:
        for run in self.runs:
            run.close()

    def about(self) -> list[dict[str, Any]]:
        return [about_run(run) for run in self.runs]

    def rows(self, number: int, generation: int, since: int) -> dict[str, Any]:
        """What changed in a run since the change `since` of its `generation`."""
        run = self.runs[number]
        start = since if generation == run.generation else 0
        end, rows = run.since(max(0, start), MOST_AT_ONCE)
        more = end < len(run.log) or not run.is_read
        return {"generation": run.generation, "since": end, "rows": rows, "more": more, "about": about_run(run)}

    def details(self, number: int, position: int) -> dict[str, Any]:
        run = self.runs[number]
        line = run.line(position)
        counts = {"out": len(run.reading.outputs(line)), "in": len(run.reading.inputs(line))}
        urls = {side: [f"image/{number}/{position}/{side}/{k}" for k in range(n)] for side, n in counts.items()}
        return {**msgspec.structs.asdict(run.reading.details(line)), **urls}

    def path(self, number: int, position: int, side: str, k: int) -> str:
        """The file of an image of a row: `side` is "out" or "in". Raises IndexError, InputError."""
        run = self.runs[number]
        line = run.line(position)
        path = (run.reading.outputs(line) if side == "out" else run.reading.inputs(line))[k]
        if not path or min(number, position, k) < 0:
            raise InputError("is not in the run folder")
        return path

    def picks(self, picked: list[tuple[int, int]]) -> bytes:
        """The lines of rows, as a file of rows."""
        return b"".join(self.runs[number].line(position).rstrip(b"\n") + b"\n" for number, position in picked)


def application(view: View) -> Any:
    """The routes, without the guard. Raises SettingsError if FastAPI is not installed."""
    try:
        from fastapi import FastAPI
    except ImportError as error:
        raise _missing(error) from None
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _add_rows(app, view)
    _add_images(app, view)
    _add_files(app)
    return app


def _add_rows(app: FastAPI, view: View) -> None:
    @app.get("/runs", response_model=None)
    def runs() -> Response:
        return _json(view.about())

    @app.get("/runs/{number}/rows", response_model=None)
    def rows(number: int, generation: int = 0, since: int = 0) -> Response:
        return _json(view.rows(number, generation, since)) if 0 <= number < len(view.runs) else _unknown()

    @app.get("/runs/{number}/rows/{position}", response_model=None)
    def details(number: int, position: int) -> Response:
        try:
            return _json(view.details(number, position))
        except (IndexError, OSError):
            return _unknown()

    @app.post("/picks", response_model=None)
    def picks(picked: list[tuple[int, int]]) -> Response:
        try:
            return _answer(view.picks(picked), "application/x-ndjson", "no-store")
        except (IndexError, OSError):
            return _unknown()


def _add_images(app: FastAPI, view: View) -> None:
    def picture(make: Callable[[str], Picture], number: int, position: int, side: str, k: int) -> Response:
        try:
            made = make(view.path(number, position, side, k))
        except (IndexError, InputError, OSError):
            return _unknown()
        # The address has the number of the row's last change, so what is behind it never changes.
        return _answer(made.data, made.media_type, "private, max-age=86400, immutable")

    @app.get("/image/{number}/{position}/{side}/{k}", response_model=None)
    def image(number: int, position: int, side: str, k: int) -> Response:
        return picture(full, number, position, side, k)

    @app.get("/thumb/{number}/{position}/{side}/{k}", response_model=None)
    def thumb(number: int, position: int, side: str, k: int) -> Response:
        return picture(view.thumbnails.get, number, position, side, k)


def _add_files(app: FastAPI) -> None:
    @app.get("/", response_model=None)
    def index() -> Response:
        return file("index.html")

    @app.get("/{name}", response_model=None)
    def file(name: str) -> Response:
        return _answer((PAGE / name).read_bytes(), FILES[name], "no-cache") if name in FILES else _unknown()


def _answer(content: bytes, media_type: str, cache: str, status: int = 200) -> Response:
    from fastapi import Response

    return Response(content, status, {"cache-control": cache}, media_type)


def _json(value: object) -> Response:
    return _answer(msgspec.json.encode(value), "application/json", "no-store")


def _unknown() -> Response:
    return _answer(b"no such row or image\n", "text/plain", "no-store", 404)


class Server:
    """A bound socket with the page behind it.

    Args:
        host: the address to listen at.
        port: None: 8765, or the next one that is free.

    Raises:
        SettingsError: FastAPI or uvicorn is not installed, or the address cannot be used.
    """

    def __init__(self, view: View, host: str = "127.0.0.1", port: int | None = None):
        try:
            import uvicorn
        except ImportError as error:
            raise _missing(error) from None
        token = secrets.token_urlsafe(12)
        app = guard.Guard(application(view), host, token)
        self._view = view
        self._socket = _bind(host, port)
        shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
        shown = f"[{shown}]" if ":" in shown else shown
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}/{token}/"
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until Ctrl-C, or `stop`."""
        self._view.start()
        try:
            with suppress(KeyboardInterrupt):  # uvicorn ends in order, then raises it
                self._server.run(sockets=[self._socket])
        finally:
            self._view.close()
            self._socket.close()

    def stop(self) -> None:
        self._server.should_exit = True


def _missing(error: ImportError) -> SettingsError:
    return SettingsError(
        f"fastgen view: the package {error.name} is not installed; run `pip install {error.name}`, or write the page "
        "into a folder with --export, which needs no server"
    )


def _bind(host: str, port: int | None) -> socket.socket:
    """Raises SettingsError."""
    tried = [port] if port is not None else [*range(PORT, PORT + _TRIED_PORTS), 0]
    for one in tried:
        try:
            family = socket.getaddrinfo(host, one, type=socket.SOCK_STREAM)[0][0]
            bound = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise SettingsError(f"--host {host}: is no address of this machine: {error.strerror}") from None
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, one))
            bound.listen()  # from now on a browser waits, and is not refused
            return bound
        except (OSError, OverflowError) as error:
            bound.close()
            reason = error
    raise SettingsError(f"--host {host}, --port {port}: {getattr(reason, 'strerror', reason)}; choose another one")
