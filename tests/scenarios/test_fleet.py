"""A fleet of servers through a whole run: one dies and comes back, and every row is done once."""

from __future__ import annotations

import json
import threading

import pytest
from PIL import Image

from fastgen.errors import RunFolderError
from fastgen.resolver import resolve
from tests.backends.remote.conftest import chat_answer, serving

ROWS = 150


def test_a_server_that_dies_and_comes_back(tmp_path, go, monkeypatch):
    """It drops every connection from its 5th request on, until the others have done 60 rows."""
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": str(i), "image": "a.png"}) + "\n" for i in range(ROWS)))
    lock, counts = threading.Lock(), {"a": 0, "b": 0, "c": 0}
    asked = {"a": 0, "b": 0, "c": 0}
    back = threading.Event()

    def answering(name):
        def answer(handler, body):
            with lock:
                asked[name] += 1
                is_down = name == "a" and asked["a"] >= 5 and counts["b"] + counts["c"] < 60
                counts[name] += not is_down
                if name == "a" and asked["a"] >= 5 and not is_down:
                    back.set()
                waits = name != "a" and counts["b"] + counts["c"] >= 60
            if waits:  # the others wait for it then, so that there are rows left for it
                back.wait(60)
            if is_down:
                handler.connection.close()
                raise ConnectionResetError
            handler.reply(200, chat_answer(f"A red house, says {name}."))

        return answer

    with serving(answering("a")) as a, serving(answering("b")) as b, serving(answering("c")) as c:
        urls = [f"{server.url}/v1" for server in (a, b, c)]
        run = go(resolve("caption", rows, out=tmp_path / "out", base_url=urls, model="m", max_inflight=24))
    assert run.counts["done"] == ROWS == len(run.table) and not run.failures
    assert sum(counts.values()) == ROWS, "no row was answered twice"
    assert all(counts[name] > 4 for name in counts), counts
    assert asked["a"] - counts["a"] <= 24, "a server that is down is left alone"


def test_another_model_behind_the_same_address_is_refused(tmp_path, go):
    """With `--model auto` the model that answers belongs to the run."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    rows = tmp_path / "rows.jsonl"
    served = ["alpha"]

    def answer(handler, body):
        listed = json.dumps({"data": [{"id": served[0]}]}).encode()
        handler.reply(200, listed if handler.path.endswith("/models") else chat_answer())

    def run(count, **flags):
        rows.write_text("".join(json.dumps({"id": str(i), "image": "a.png"}) + "\n" for i in range(count)))
        return go(resolve("caption", rows, out=tmp_path / "out", base_url=server.url, max_inflight=4, **flags))

    with serving(answer) as server:
        run(2)
        seen = len(server.seen)
        served[0] = "beta"
        with pytest.raises(RunFolderError, match=r"now serves beta, but .* has results of alpha"):
            run(4)
        assert len(server.seen) == seen + 1, "no row was sent"
        served[0] = "alpha"
        assert run(4).counts["new"] == 2
        served[0] = "beta"
        assert run(4, fresh=True).table[0]["fastgen"]["model"] == "beta"
        assert json.loads((tmp_path / "out" / "run.json").read_text())["served"] == {"vllm": "beta"}
