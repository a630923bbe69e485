"""The shape of the house: who imports whom, what the command line offers, what stays light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import fastgen
from fastgen import errors
from fastgen.cli import main
from fastgen.config import profile

PACKAGE = Path(fastgen.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def rooms_of_the_page() -> list[set[str]]:
    """The rooms in docs/design.md, from the top down: a module imports its own line and those below."""
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    block = page.partition("<!-- rooms, from the top down -->")[2].split("```")[1]
    return [set(line.split()) for line in block.splitlines() if line.strip()]


LAYERS = rooms_of_the_page()
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "peft", "safetensors"}
MAY_BE_HEAVY = ("backends/diffusion/", "opt/", "embedded/", "bench/baselines.py", "bench/peak.py")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside functions, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide who imports whom"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def ours(path: Path) -> set[str]:
    """Modules of fastgen that a file imports, without the package's own name; names inside them are left out."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "fastgen" or len(parts) == 1:
            continue
        place = PACKAGE.joinpath(*parts[1:])
        if place.is_dir() or place.with_suffix(".py").exists():
            found.add(".".join(parts[1:]))
    return found


def layer(part: str) -> int:
    depths = [depth for depth, parts in enumerate(LAYERS) if part in parts]
    assert depths, f"{part} has no place among the rooms of docs/design.md yet"
    return depths[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_downwards(path):
    part = part_of(path)
    for wanted in ours(path):
        assert layer(wanted.split(".")[0]) >= layer(part), f"{name_of(path)} imports {wanted}, which is above it"


SHARED = {
    "backends": {"base", "registry"},
    "opt": {
        "base",
        "blackwell",
        "block_scaled",
        "compiler",
        "context",
        "norm_rope_kernel",
        "parked",
        "quantize",
        "quantize_8bit",
        "quantized_file",
        "quantized_state",
        "stages",
        "ulysses",
        "xformers_build",
    },
}
"""What every file of a room may use; besides that a backend knows no other, and no optimization another one."""


def test_siblings_do_not_know_each_other():
    for path in MODULES:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("backends", "opt") or parts[1] == "__init__":
            continue
        for wanted in ours(path):
            other = wanted.split(".")
            if other[0] == parts[0] and len(other) > 1:
                assert other[1] in (parts[1], *SHARED[parts[0]]), f"{name_of(path)} imports {wanted}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_libraries_stay_in_the_engine(path):
    if not name_of(path).startswith(MAY_BE_HEAVY):
        assert not HEAVY & {name.split(".")[0] for name in imports(path)}


NETWORK = {"urllib3", "urllib.request", "http.client", "httpx", "httpx2", "requests", "aiohttp", "ftplib"}
MAY_SPEAK = {f"backends/remote/{name}.py" for name in ("connections", "http_client", "sdk_transport")}
"""The one place that says how long a request may take, how large its answer may be and where it may be sent on to."""


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p) not in MAY_SPEAK], ids=name_of)
def test_one_place_speaks_http(path):
    assert not NETWORK & imports(path), "use fastgen.backends.remote.http_client"


THREADS_AND_SUCH = {"threading", "concurrent", "asyncio", "multiprocessing", "queue", "tenacity", "ray"}


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(p) == "dataflow"], ids=name_of)
def test_the_dataflow_face_is_thin(path):
    """It uses fastgen's public names, as any user could, and has no engine, threads, retries or batches of its own."""
    found = imports(path)
    assert not (HEAVY | THREADS_AND_SUCH) & {name.split(".")[0] for name in found}
    assert {name for name in found if name.split(".")[0] == "fastgen"} <= {"fastgen"} | {
        name for name in found if name.startswith("fastgen.dataflow")
    }
    used = {
        f"{n.value.id}.{n.attr}"
        for n in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
    }
    assert "time.sleep" not in used
    assert {name for name in used if name.startswith("fastgen.")} <= {
        f"fastgen.{name}" for name in (*fastgen.__all__, "__file__")
    }


SHOW_MODULES = """
import json, sys
from fastgen.__main__ import main
sys.argv = ["fastgen", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["t2i", "--help"], ["--version"], ["dataflow", "t2i-gpu", "--help"]], ids=" ".join
)
def test_help_is_light(arguments):
    result = subprocess.run(
        [sys.executable, "-c", SHOW_MODULES, *arguments], capture_output=True, text=True, timeout=60
    )
    code, modules = json.loads(result.stdout.splitlines()[-1])
    assert not code and result.stdout.strip()
    heavy = HEAVY | {
        "pandas",
        "pyarrow",
        "PIL",
        "numpy",
        "huggingface_hub",
        "multiprocessing",
        "fastgen.scheduler.run",
        "fastgen.config.model_cards",
    }
    assert not heavy & set(modules)


def test_the_main_process_never_loads_the_engine(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    command = [
        "t2i",
        str(tmp_path / "rows.jsonl"),
        "-o",
        str(tmp_path / "out"),
        "--backend",
        "fake",
        "--gpus",
        "cpu",
        "-q",
    ]
    result = subprocess.run([sys.executable, "-c", SHOW_MODULES, *command], capture_output=True, text=True, timeout=60)
    code, modules = json.loads(result.stdout.splitlines()[-1])
    assert code == 0 and not HEAVY & set(modules)


API_FLAGS = {
    "--batch-api",
    "--batch-rows",
    "--base-url",
    "--fallback",
    "--fallback-on-refusal",
    "--max-inflight",
    "--rpm",
    "--timeout",
    "--max-cost",
}
RUN_FLAGS = {
    "--out",
    "--state",
    "-o",
    "--model",
    "--gpus",
    "--backend",
    "--seed",
    "--output-key",
    "--image-root",
    "--prompt-key",
    "--image-key",
    "--id-key",
    "--strict",
    "--table",
    "--webdataset",
    "--limit",
    "--rows",
    "--fresh",
    "--retry-failed",
    "--engine",
    "--ray-address",
    "--min-workers",
    "--max-workers",
    "--shard",
    "--dry-run",
    "--json",
    "--quiet",
    "-q",
    "--metrics-port",
}
PICTURE_FLAGS = (
    RUN_FLAGS
    | API_FLAGS
    | {
        "--cuda-graphs",
        "--no-cuda-graphs",
        "--gpus-per-replica",
        "--parallel",
        "--prompt",
        "--mask-key",
        "--name",
        "--size",
        "--steps",
        "--guidance",
        "--n",
        "--dtype",
        "--batch-size",
        "--format",
        "--lora",
        "--transformer",
        "--max-sequence-length",
        "--quality",
        "--background",
        "--aspect-ratio",
        "--resolution",
        "--extra-body",
        "--allow-image-hosts",
        "--attention",
        "--compile",
        "--no-compile",
        "--quantize",
        "--cache",
        "--progressive",
        "--offload",
        "--profile",
    }
)
CAPTION_FLAGS = (
    RUN_FLAGS
    | API_FLAGS
    | {
        "--prompt",
        "--system",
        "--max-tokens",
        "--temperature",
        "--max-pixels",
        "--schema",
        "--thinking",
        "--accept-refusals",
        "--extra-body",
        "--vllm-command",
        "--gpus-per-replica",
    }
)


BENCH_FLAGS = {
    "-o",
    "--out",
    "--model",
    "--gpus",
    "--gpus-per-replica",
    "--size",
    "--steps",
    "--batch-size",
    "--dtype",
    "--profile",
    "--vllm-command",
    "--only",
    "--rounds",
    "--rows",
    "--synthetic",
    "--compare",
    "--tune",
    "-q",
    "--quiet",
}


def test_the_flags_are_frozen():
    command = typer.main.get_command(main.app)
    assert set(command.commands) == {
        *("t2i", "edit", "caption", "check", "doctor", "table", "export", "status", "merge", "bench", "demo", "setup"),
        *("view", "submit"),
        *("dataflow", "init"),
    }
    frozen = {"t2i": PICTURE_FLAGS, "edit": PICTURE_FLAGS, "caption": CAPTION_FLAGS, "bench": BENCH_FLAGS}
    for task, wanted in frozen.items():
        parameters = command.commands[task].params
        flags = {flag for p in parameters if p.param_type_name == "option" for flag in (*p.opts, *p.secondary_opts)}
        assert flags - {"--help", "-h"} == wanted
        assert [p.name for p in parameters if p.param_type_name == "argument"] == [
            "task" if task == "bench" else "input"
        ]
        assert all(p.help for p in parameters if p.param_type_name == "option" and p.name != "help")


def test_the_public_names_are_frozen():
    assert set(fastgen.__all__) == {
        "generate",
        "generate_async",
        "explain",
        "Session",
        "resolve",
        "Settings",
        "Request",
        "ImageParams",
        "TextParams",
        "Done",
        "Failed",
        "FastgenError",
        "SettingsError",
        "ModelError",
        "RunFolderError",
        "InputError",
        "EngineError",
        "BudgetError",
        "DiskError",
        "StorageError",
        "__version__",
    }
    assert all(getattr(fastgen, name) is not None for name in fastgen.__all__)
    assert set(dir(fastgen)) >= set(fastgen.__all__)
    with pytest.raises(AttributeError):
        fastgen.nonsense  # noqa: B018


def test_every_error_is_drawn_with_its_exit_code():
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, Exception):
            assert name in errors.__doc__ and error.__doc__
            assert error.exit_code == (2 if issubclass(error, errors.SettingsError) else 1)


def test_every_profile_loads():
    paths = sorted(profile.FOLDER.glob("*.toml"))
    assert "default.toml" in [path.name for path in paths]
    for path in paths:
        assert profile.load(path)[1].batch_for(1) >= 1


def test_every_backend_can_be_imported_by_its_name():
    from fastgen.config.backends import ALL, get, names

    specs = [get(name) for task in ALL for name in (*names(task), "fake")]
    for place in {place for spec in specs for place in spec.engines.values()}:
        module, _, name = place.partition(":")
        path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
        classes = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef) and node.name == name
        ]
        assert {"open", "run", "reconfigure", "cancel_pending", "close"} <= {
            f.name for c in classes for f in c.body if isinstance(f, ast.FunctionDef)
        }


def test_no_file_knows_the_machine_it_was_written_on():
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    places = [f"/{name}/".encode() for name in ("work", "root", "home")]
    for name in filter(None, listing.stdout.decode().split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if b"\0" not in content:
            assert not [place for place in places if place in content], f"{name} names a place on one machine"
