"""The files that `fastgen submit` prints start the run that was typed: sbatch's is run with the variables of an array,
the one for Ray with a `ray` of the test, and KubeRay's is read as YAML."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastgen.cli.main import app

PROMPT = 'it\'s "odd" $HOME; rm'
FAKE = ("--backend", "fake", "--gpus", "cpu", "--name", "{id}")


@pytest.fixture
def printed(tmp_path, monkeypatch):
    """printed("--to", "slurm", "t2i", ...) -> what the command prints, in a folder with rows.jsonl."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    lines = [json.dumps({"id": f"r{i}", "prompt": f"picture {i}", "note": PROMPT}) + "\n" for i in range(5)]
    (folder / "rows.jsonl").write_text("".join(lines))

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["submit", *words])
        assert result.exit_code == code, result.output
        return result.output

    return run


def execute(script: str, name: str, **environment: str) -> subprocess.CompletedProcess:
    Path(name).write_text(script)
    assert subprocess.run(["bash", "-n", name]).returncode == 0
    return subprocess.run(
        ["bash", os.path.abspath(name)], env={**os.environ, **environment}, capture_output=True, text=True, cwd="/"
    )


def test_slurm_runs_each_part_and_the_last_one_merges(printed, table):
    script = printed("--to", "slurm", "--parts", "2", "t2i", "rows.jsonl", "-o", "my run", *FAKE)
    assert "#SBATCH --array=1-2\n" in script and "#SBATCH --job-name=fastgen-my-run\n" in script
    assert "--gpus" not in "".join(line for line in script.splitlines() if line.startswith("#SBATCH"))
    for part in ("1", "2"):
        about = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
        done = execute(script, "job.sbatch", **about)
        assert done.returncode == 0, done.stderr
    assert [row["fastgen"]["id"] for row in table(Path("my run/results.jsonl"))] == [f"r{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("flags", "gpus"),
    [((), 1), (("--gpus-per-replica", "4"), 4), (("--gpus", "cpu"), 0), (("--backend", "openai"), 0)],
)
def test_slurm_asks_for_the_gpus_of_one_worker(printed, monkeypatch, flags, gpus):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    script = printed("--to", "slurm", "t2i", "rows.jsonl", *flags)
    assert (f"#SBATCH --gpus={gpus}\n" in script) == bool(gpus) and ("--gpus=" in script) == bool(gpus)
    assert ("needs OPENAI_API_KEY" in script) == ("openai" in flags)


def test_what_was_typed_reaches_the_run_as_it_was(printed):
    """Whatever the shell, and what `ray job submit` makes of it, would do with such words."""
    words = ["edit", "rows.jsonl", "--prompt", PROMPT, "--output-key", "made", "-o", "out $(x)"]
    ray = """import subprocess, sys
sys.exit(subprocess.run(subprocess.list2cmdline(sys.argv[6:]), shell=True).returncode)  # as Ray does it"""
    stub = Path("bin/ray")
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/bash\nexec {sys.executable} -c {shlex.quote(ray)} "$@"\n')
    stub.chmod(0o755)
    python = Path("bin/python")
    shows = "import json, os, sys; print(json.dumps([os.getcwd(), *sys.argv[1:]]))"
    python.write_text(f'#!/bin/bash\nexec {sys.executable} -c {shlex.quote(shows)} "$@"\n')
    python.chmod(0o755)
    done = execute(printed("--to", "ray", *words), "job.sh", PATH=f"{stub.parent.absolute()}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [os.getcwd(), "-m", "fastgen", *words, "--engine", "ray"]


def test_kuberay_has_the_script_the_workers_and_the_keys(printed, monkeypatch):
    yaml = pytest.importorskip("yaml")
    monkeypatch.setenv("GEMINI_API_KEY", "secret-value")
    words = ["edit", "rows.jsonl", "--prompt", PROMPT, "-o", "Run_1", "--fallback", "gemini", "--gpus-per-replica", "2"]
    place = ("--image", "me/fastgen:1", "--claim", "shared", "--mount", os.path.dirname(os.getcwd()))
    text = printed("--to", "kuberay", *place, *words, "--max-workers", "3")
    script, job = yaml.safe_load_all(text)
    lines = script["data"]["run.sh"].splitlines()
    assert shlex.split(lines[1]) == ["cd", os.getcwd()]
    run = lines[2].partition(" || ")[0]
    assert shlex.split(run) == ["python", "-m", "fastgen", *words, "--max-workers", "3", "--engine", "ray"]
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("ray.io/v1", "RayJob", "fastgen-run-1")
    spec = job["spec"]["rayClusterSpec"]
    head, [workers] = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["replicas"], workers["maxReplicas"]) == (1, 3, 3)
    [container] = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 2} and container["image"] == "me/fastgen:1"
    [leader] = head["template"]["spec"]["containers"]
    assert leader["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "fastgen-keys", "key": "GEMINI_API_KEY"}
    assert {mount["mountPath"] for mount in leader["volumeMounts"]} == {os.path.dirname(os.getcwd()), "/fastgen"}
    named = {volume["name"]: volume for volume in head["template"]["spec"]["volumes"]}
    assert named["script"]["configMap"]["name"] == script["metadata"]["name"] == "fastgen-run-1-script"
    assert named["shared"]["persistentVolumeClaim"]["claimName"] == "shared" and "secret-value" not in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "lsf", "t2i", "rows.jsonl"), "--to lsf: give slurm, ray or kuberay"),
        (("--to", "slurm", "view", "run"), "view: a run begins with t2i, edit, caption"),
        (("--to", "slurm", "t2i"), "INPUT: give the file of rows"),
        (("--to", "slurm", "t2i", "nothing.jsonl"), "nothing.jsonl"),
        (("--to", "slurm", "t2i", "rows.jsonl", "--no-such-flag"), "No such option"),
        (("--to", "slurm", "t2i", "rows.jsonl", "--n", "many"), "Invalid value for '--n'"),
        (("--to", "slurm", "t2i", "rows.jsonl", "--shard", "1/2"), "--shard: leave it out"),
        (("--to", "slurm", "t2i", "rows.jsonl", "--fresh"), "--fresh: leave it out"),
        (("--to", "ray", "t2i", "rows.jsonl", "--gpus", "0,1"), "--gpus 0,1: Ray chooses the GPUs"),
        (
            ("--to", "slurm", "t2i", "rows.jsonl", "-o", "s3://bucket/run"),
            "-o: the parts of an array share a run folder",
        ),
        (("--to", "slurm", "t2i", "rows.jsonl", "--backend", "none"), "--backend none: for t2i one of local"),
        (("--to", "ray", "t2i", "rows.jsonl", "--backend", "openai"), "services do all the work of this run"),
        (("--to", "slurm", "t2i", "rows.jsonl", "--base-url", "https://me:hush@host/v1"), "contains a password"),
        (("--to", "slurm", "caption", "rows.jsonl", "--fallback", "openai:m@http://h?api-key=x"), "looks like a key"),
        (
            ("--to", "slurm", "caption", "rows.jsonl", "--vllm-command", "serve --api-key my-own-odd-key"),
            "has a key in it",
        ),
        (("--to", "slurm", "caption", "rows.jsonl", "--extra-body", "[]"), "must be a JSON object"),
        (("--to", "kuberay", "--claim", "c", "t2i", "rows.jsonl"), "--image: a file for kuberay needs it"),
        (
            ("--to", "kuberay", "--claim", "c", "--image", "i", "--mount", "/elsewhere", "t2i", "rows.jsonl"),
            "--mount /elsewhere: the current folder",
        ),
    ],
)
def test_what_could_not_run_there_is_refused(printed, monkeypatch, words, said):
    monkeypatch.setenv("SOME_KEY", "my-own-odd-key")
    refused = printed(*words, code=2)
    assert said in refused and "hush" not in refused and "my-own" not in refused


@pytest.mark.parametrize(
    "odd", ["one\n   \ntwo", "tab\there\r", "at its end ", "\u2028\x07 \x85", "two\n\nlines", "é 好 🦊"]
)
def test_yaml_changes_no_character(printed, odd):
    yaml = pytest.importorskip("yaml")
    words = ["edit", "rows.jsonl", "--output-key", "made", "--prompt", odd]
    script = next(yaml.safe_load_all(printed("--to", "kuberay", "--image", "i", "--claim", "c", *words)))
    run = script["data"]["run.sh"].split("\n", 2)[2].partition(" || ")[0]
    assert shlex.split(run) == ["python", "-m", "fastgen", *words, "--engine", "ray"]
