"""From s3:// to s3:// against a real server, which is killed in the middle of the run and started again; then the
command itself is killed and started again. The same as on a disk comes out."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys

import pytest
from PIL import Image

import fastgen
from tests.s3_server import S3Server

ROWS = 80
KEYS = {"AWS_ACCESS_KEY_ID": "key-of-a-test", "AWS_SECRET_ACCESS_KEY": "hush-hush", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def server(tmp_path, monkeypatch):
    (folder := tmp_path / "server").mkdir()
    server = S3Server(folder)
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server.address, "FASTGEN_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    server.start()
    server.make_bucket("bkt")
    yield server
    server.kill()


def files(prefix: str) -> dict[str, bytes]:
    """What is there, asked by another process, as another program would."""
    code = (
        "import sys, s3fs, base64, json\n"
        "fs, prefix = s3fs.S3FileSystem(), sys.argv[1]\n"
        "found = fs.cat(fs.find(prefix)) if fs.find(prefix) else {}\n"
        "print(json.dumps({n[len(prefix) + 1 :]: base64.b64encode(d).decode() for n, d in found.items()}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, prefix], capture_output=True, text=True, check=True)
    return {name: base64.b64decode(data) for name, data in json.loads(done.stdout).items()}


def put(objects: dict[str, bytes]) -> None:
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).pipe(objects)


def rows() -> tuple[list[dict], bytes]:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    made = [{"id": f"r{i}", "image": "a/one.png", "prompt": f"edit {i} slow:0.15"} for i in range(ROWS)]
    made[7]["image"], made[9]["prompt"] = "a/none.png", "refuse"
    return made, buffer.getvalue()


def said(lines: bytes | str) -> list[dict]:
    """A table without what differs from run to run."""
    table = [json.loads(line) for line in lines.splitlines()]
    for row in table:
        row["fastgen"].pop("seconds", None)
        row["fastgen"].get("error", {}).pop("message", None)
    return table


def until(process: subprocess.Popen, words: str, event: str = "warning") -> dict:
    """The first event that has these words in it."""
    for line in process.stdout:
        facts = json.loads(line)
        if facts["event"] == event and words in line:
            return facts
    raise AssertionError(f"{words} was not said: {process.stderr.read()}")


def test_server_and_command_are_killed(server, cli, cli_process, tmp_path):
    given, picture = rows()
    text = "".join(json.dumps(row) + "\n" for row in given).encode()
    put({"bkt/in/rows.jsonl": text, "bkt/in/a/one.png": picture})
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/rows.jsonl").write_bytes(text)
    (tmp_path / "in/a/one.png").write_bytes(picture)
    local_run = fastgen.resolve("edit", tmp_path / "in/rows.jsonl", out=tmp_path / "local", backend="fake", gpus="cpu")
    list(fastgen.generate(local_run))
    where = ("s3://bkt/in/rows.jsonl", "-o", "s3://bkt/out/run")
    command = ("edit", *where, "--backend", "fake", "--gpus", "cpu", "--batch-size", 2, "--json")

    first = cli_process(*command)
    for _ in range(20):
        until(first, "", "row_done")
    server.kill()
    until(first, "does not answer")
    server.start()
    until(first, "answers again")
    first.kill()
    assert files("bkt/out/run"), "what was sent before is there"

    second = cli(*command)
    summary = json.loads(second.stdout.splitlines()[-1])
    assert second.returncode == 3 and summary["state"] == "finished" and summary["out"] == "s3://bkt/out/run"
    there = files("bkt/out/run")
    assert said(there["results.jsonl"]) == said((tmp_path / "local/results.jsonl").read_text())
    assert said(there["failures.jsonl"]) == said((tmp_path / "local/failures.jsonl").read_text())
    local = {f"images/{path.name}": path.read_bytes() for path in (tmp_path / "local/images").glob("*.png")}
    assert {name: data for name, data in there.items() if name.startswith("images/")} == local
    lines = b"".join(there[name] for name in sorted(there) if name.startswith("journal/")).splitlines()
    committed = [json.loads(line)["rec"]["id"] for line in lines]
    assert sorted(committed) == sorted(row["id"] for row in given), "every row once"
    assert "lock.json" not in there
    everything = [*there.values(), *(path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())]
    assert not any(b"hush" in data or b"key-of-a-test" in data for data in everything)
