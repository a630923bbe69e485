"""Pictures on servers: fetched some rows ahead, each once; one that cannot be fetched fails its row alone."""

from __future__ import annotations

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

import fastgen
from fastgen.backends.remote import http_client
from fastgen.errors import StorageError
from fastgen.input.embedded_pictures import url_name
from fastgen.input.identities import Identity
from fastgen.input.images import Places
from fastgen.input.readers.rows import Row
from fastgen.scheduler import fetching
from tests.conftest import read_lines


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    return buffer.getvalue()


class Pictures(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        flaky = self.path == "/flaky.png" and self.asked.count(self.path) < 3
        status = 503 if flaky else 200 if self.path.endswith(".png") else 404 if self.path == "/none" else 200
        data = picture() if status == 200 and self.path.endswith(".png") else b"<html>no picture</html>"
        self.send_response(302 if self.path == "/moved.png" else status)
        if self.path == "/moved.png":
            self.send_header("Location", "http://elsewhere.invalid/a.png")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_): ...


@pytest.fixture
def server():
    Pictures.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pictures_are_fetched_once_and_rows_fail_alone(server, rows_file, tmp_path, monkeypatch):
    monkeypatch.setattr(http_client, "is_public", lambda address: True)
    (tmp_path / "here.png").write_bytes(picture())
    names = ("a.png", "none", "page", "flaky.png", "moved.png")
    rows = [{"id": name, "image": f"{server}/{name}", "prompt": "p"} for name in names]
    parts = [{"type": "image_url", "image_url": {"url": f"{server}/b.png"}}, {"type": "text", "text": "Which colour?"}]
    rows.append({"id": "part", "messages": [{"role": "user", "content": parts}]})
    rows += [{"id": "again", "image": [f"{server}/a.png"], "prompt": "q"}, {"id": "file", "image": "here.png"}]
    out, given = tmp_path / "out", rows_file(rows)

    def run():
        settings = fastgen.resolve("caption", given, out=out, backend="fake", gpus="cpu")
        list(fastgen.generate(settings))
        return {
            row["id"]: row["fastgen"].get("error", {}).get("message", "done")
            for row in read_lines(out / "results.jsonl")
        }

    said = run()
    assert {id for id, message in said.items() if message == "done"} == {"a.png", "flaky.png", "part", "again", "file"}
    assert "its address answers 404" in said["none"] and "what is there is no picture" in said["page"]
    assert "points to http://elsewhere.invalid" in said["moved.png"] and "row 2, field image" in said["none"]
    assert 1 <= Pictures.asked.count("/a.png") <= 2 and Pictures.asked.count("/flaky.png") == 3
    assert (out / url_name(f"{server}/a.png")).read_bytes() == picture()
    Pictures.asked.clear()
    assert run() == said and "/a.png" not in Pictures.asked, "what is there is not fetched again"


def test_a_part_fetches_the_pictures_of_its_rows_only(server, rows_file, tmp_path, monkeypatch):
    monkeypatch.setattr(http_client, "is_public", lambda address: True)
    given = rows_file([{"id": f"{i}", "image": f"{server}/{i}.png", "prompt": "p"} for i in range(7)])
    settings = fastgen.resolve("caption", given, out=tmp_path / "out", backend="fake", gpus="cpu", shard="2/3")
    assert [result.id for result in fastgen.generate(settings)] == ["1", "4"]
    assert sorted(Pictures.asked) == ["/1.png", "/4.png"]


def test_a_private_network_is_no_place_for_pictures_and_a_plan_fetches_none(server, rows_file, tmp_path):
    given = rows_file([{"id": "a", "image": f"{server}/a.png", "prompt": "p"}])
    settings = fastgen.resolve("edit", given, out=tmp_path / "out", backend="fake", gpus="cpu")
    plan = fastgen.explain(settings)
    assert plan["on_servers"] == 1 and not plan["bad"]
    (failed,) = fastgen.generate(settings)
    assert "its address is in a private network" in failed.message and not Pictures.asked
    assert json.loads((tmp_path / "out/failures.jsonl").read_text())["fastgen"]["error"]["field"] == "image"


def test_only_pictures_that_the_run_needs_are_fetched(server, rows_file, tmp_path, monkeypatch):
    monkeypatch.setattr(http_client, "is_public", lambda address: True)
    rows = [{"id": name, "image": f"{server}/{name}.png", "prompt": "p"} for name in "abcd"]
    rows[3]["caption"] = "there already"
    (tmp_path / "picks.txt").write_text("b\nd\n")
    given, out = rows_file(rows), tmp_path / "out"
    settings = fastgen.resolve("caption", given, out=out, backend="fake", gpus="cpu", only_rows=tmp_path / "picks.txt")
    assert {result.id: result.error for result in fastgen.generate(settings)} == {"b": None, "d": None}
    assert Pictures.asked == ["/b.png"], "not those of rows that are not picked, and not those of filled rows"


def test_many_rows_of_one_picture_fetch_it_once_and_all_wait_for_it(memory, tmp_path, monkeypatch):
    """Two threads that wrote the same file at the same time would give a third row half of it."""
    memory.pipe("/in/a.png", picture())
    go_on, asked = threading.Event(), []

    def read(url, most_bytes, patience):
        asked.append(url)
        assert go_on.wait(30)
        return picture()

    monkeypatch.setattr(fetching.storage, "read", read)
    monkeypatch.setattr(fetching, "PAUSE_S", 0.01)
    places = Places("memory://in", out=str(tmp_path))
    rows = [Row(i, b'{"image": "a.png"}') for i in range(1, 9)]
    items = [(row, Identity("", "", {"image": "a.png"})) for row in rows]
    found = fetching.fetched(items, places, "caption")
    assert next(found) is None, "not there yet; the caller may do something else meanwhile"
    go_on.set()
    ready = [item for item in found if item is not None]
    assert [row.number for row, _ in ready] == list(range(1, 9)) and asked == ["memory://in/a.png"]
    assert (tmp_path / url_name("memory://in/a.png")).read_bytes() == picture() and not places.unfetched


def test_storage_that_stays_away_ends_the_run_and_fails_no_row(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.storage, "DEADLINE_S", 0)
    monkeypatch.setattr(type(memory), "info", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("refused")))
    places = Places("memory://in", out=str(tmp_path))
    items = [(Row(1, b'{"image": "a.png"}'), Identity("", "", {"image": "a.png"}))]
    with pytest.raises(StorageError, match=r"memory://in/a.png does not answer"):
        list(fetching.fetched(items, places, "caption"))
    assert not places.unfetched


def test_a_row_that_names_a_closed_bucket_fails_alone(memory, tmp_path, monkeypatch):
    def closed(self, path, **more):
        raise PermissionError("Forbidden")

    monkeypatch.setattr(type(memory), "info", closed)
    places = Places(str(tmp_path), out=str(tmp_path))
    items = [(Row(1, b'{"image": "memory://b/a.png"}'), Identity("", "", {"image": "memory://b/a.png"}))]
    assert [row.number for row, _ in fetching.fetched(items, places, "caption")] == [1]
    assert places.unfetched == {"memory://b/a.png": "access is denied: Forbidden"}
