"""The server, asked as a browser would and as an attacker would. No sockets: the application is called."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from fastgen.errors import SettingsError
from fastgen.view import server
from fastgen.view.guard import Guard
from fastgen.view.pictures import Thumbnails
from fastgen.view.server import Server, View, application
from tests.view.folders import everything, scenes

HOST = b"127.0.0.1:8765"


class Client:
    def __init__(self, view):
        self.app = Guard(application(view), "127.0.0.1", "token")

    def __call__(self, path, host=HOST, method="GET", body=b"", raw=False):
        sent = []
        path, _, query = path.partition("?")
        headers = [(b"host", host), (b"content-type", b"application/json")] if host is not None else []
        whole = path if raw else f"/token{path}"
        scope = {"type": "http", "method": method, "path": whole, "raw_path": whole.encode(), "headers": headers}
        scope |= {"query_string": query.encode(), "http_version": "1.1", "scheme": "http", "root_path": ""}

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        asyncio.run(self.app(scope | {"client": None, "server": None}, receive, send))
        start = sent[0]
        return start["status"], dict(start["headers"]), b"".join(m.get("body", b"") for m in sent[1:])


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    place = tmp_path_factory.mktemp("view")
    view = View([scenes(place / "one"), scenes(place / "two", 3)], Thumbnails(place / "cache"))
    for run in view.runs:
        run.read()
    yield view
    view.close()


@pytest.fixture(scope="module")
def ask(view):
    return Client(view)


def test_the_page_and_its_files(ask):
    status, headers, body = ask("/")
    assert status == 200 and b"<title>fastgen view</title>" in body
    assert (
        b"default-src 'none'" in headers[b"content-security-policy"]
        and headers[b"x-content-type-options"] == b"nosniff"
    )
    for name in server.FILES:
        assert ask(f"/{name}")[0] == 200
    assert ask("/main.js")[1][b"content-type"].startswith(b"text/javascript")


def test_rows_come_in_parts_with_what_changed(ask, monkeypatch):
    monkeypatch.setattr(server, "MOST_AT_ONCE", 5)
    first = json.loads(ask("/runs/0/rows?since=0")[2])
    assert [position for position, _ in first["rows"]] == [0, 1, 2, 3, 4] and first["more"] and first["since"] == 5
    second = json.loads(ask(f"/runs/0/rows?since={first['since']}")[2])
    assert [row[0] for _, row in second["rows"]] == ["row-5", "row-6", "row-7"] and not second["more"]
    assert json.loads(ask("/runs/0/rows?since=8")[2])["rows"] == []
    again = json.loads(ask("/runs/0/rows?since=8&generation=3")[2])
    assert len(again["rows"]) == 5, "the page has the rows of another run"
    assert first["about"]["counts"] == {"done": 7, "failed": 1} and first["about"]["state"] == "finished"


def test_details_and_images_are_found_by_number(ask, view):
    details = json.loads(ask("/runs/0/rows/3")[2])
    assert details["prompts"] == ["a orange fox number 3"] and json.loads(details["line"])["id"] == "row-3"
    assert details["out"] == ["image/0/3/out/0", "image/0/3/out/1"] and details["in"] == []
    status, headers, body = ask("/" + details["out"][1])
    assert status == 200 and headers[b"content-type"] == b"image/png" and b"immutable" in headers[b"cache-control"]
    assert body == (view.runs[0].path / "images/orange.png").read_bytes()
    assert ask("/thumb/1/0/out/0?v=0.1")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/runs/2/rows", "/runs/-1/rows", "/runs/0/rows/8", "/runs/0/rows/-1", "/runs/x/rows"),
        *("/image/0/0/out/1", "/image/0/0/out/-1", "/image/-1/0/out/0", "/image/0/2/out/0", "/image/0/0/in/0"),
        *("/thumb/0/99/out/0", "/run.json", "/server.py", "/../run.json", "/..%2frun.json", "/images/red.png"),
        *("/image/0/0/out/..%2f..%2frun.json", "/page/../server.py", "/docs", "/openapi.json"),
    ],
)
def test_nothing_else_is_served(ask, path):
    status, _, body = ask(path)
    assert status in (404, 422) and b"fastgen" not in body


def test_only_the_whole_address_and_this_machine_are_answered(ask):
    assert ask("/", raw=True)[0] == ask("/tokenx/", raw=True)[0] == ask("/token", raw=True)[0] == 404
    assert ask("/", host=b"evil.example:8765")[0] == 421 and ask("/", host=None)[0] == 421
    assert ask("/image/0/0/out/0", host=b"evil.example")[0] == 421


def test_picks_are_lines_of_the_table(ask):
    status, _, body = ask("/picks", method="POST", body=b"[[0, 3], [1, 0]]")
    assert status == 200 and [json.loads(line)["fastgen"]["id"] for line in body.splitlines()] == ["row-3", "row-0"]
    for bad in (b"[[0, 99]]", b"[[7, 0]]", b"{}", b"[[0]]", b"[[0, -1]]"):
        assert ask("/picks", method="POST", body=bad)[0] in (404, 422)


def test_looking_writes_nothing_into_the_run_folder(ask, view):
    before = everything(view.runs[0].path)
    for path in ("/", "/runs", "/runs/0/rows", "/runs/0/rows/0", "/image/0/0/out/0", "/thumb/0/0/out/0"):
        assert ask(path)[0] == 200
    assert everything(view.runs[0].path) == before


def test_a_port_that_is_taken_is_named(view):
    first = Server(view, port=0)
    port = first._socket.getsockname()[1]
    first._socket.listen()
    with pytest.raises(SettingsError, match=rf"--port {port}: Address already in use; choose another one"):
        Server(view, port=port)
    with pytest.raises(SettingsError, match=r"--host nowhere\.invalid: is no address of this machine"):
        Server(view, host="nowhere.invalid")
    assert Server(view).url != first.url, "each has a token of its own"
    first._socket.close()


def test_without_fastapi_the_fix_is_named(view, monkeypatch):
    for name in ("uvicorn", "fastapi"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(SettingsError, match=f"the package {name} is not installed; run `pip install {name}`"):
            Server(view)
        monkeypatch.delitem(sys.modules, name)
