"""The command line of vLLM's server: which arguments, and that each version of vLLM knows them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from fastgen.backends.remote.vllm_command import arguments, raising
from fastgen.config import profile
from fastgen.config.profile import Serve
from fastgen.resolver import resolve

KNOWN = {
    *("--served-model-name", "--host", "--port", "--dtype", "--quantization", "--max-model-len", "--max-num-seqs"),
    *("--max-num-batched-tokens", "--gpu-memory-utilization", "--kv-cache-memory-bytes", "--api-server-count"),
    *("--tensor-parallel-size", "--mm-processor-cache-gb", "--enable-prefix-caching", "--no-enable-prefix-caching"),
    *("--limit-mm-per-prompt", "--enforce-eager", "--structured-outputs-config", "--override-generation-config"),
}
"""All of 0.30.0, 0.31.0, 0.32.0 and 0.33.0 know these, so nothing has to be left out for one of them. Source:
vllm/engine/arg_utils.py and cli_args.py (in vllm/entrypoints, launchers or common) in their wheels on PyPI."""
FULL = Serve(
    dtype="bfloat16",
    quantization="fp8",
    max_model_len=4096,
    max_num_seqs=64,
    max_num_batched_tokens=8192,
    gpu_memory_utilization=0.9,
    kv_cache_memory_bytes="64M",
    api_server_count=2,
    mm_processor_cache_gb=0.0,
    images_per_prompt=4,
    enforce_eager=True,
    arguments=("--override-generation-config", '{"top_p": 0.9}'),
)


@pytest.fixture
def words(tmp_path):
    """words(serve, command, gpus, repeat) -> the command line."""
    made = resolve("caption", None, base_url="http://127.0.0.1:9/v1", model="a/vlm", out=tmp_path)

    def make(serve=FULL, command=("vllm", "serve"), gpus=0, repeat=None, most=0) -> list[str]:
        placed = replace(made.placement, profile=replace(made.placement.profile, serve=serve))
        endpoint = replace(made.endpoint, command=command)
        run = replace(made.run, pictures_repeat=repeat, pictures_per_row=most)
        model = replace(made.model, path="/models/a-vlm")
        return arguments(replace(made, placement=placed, endpoint=endpoint, model=model, run=run), gpus, 4321)

    return make


@pytest.mark.parametrize(
    ("command", "start"),
    [
        (("vllm", "serve"), ["vllm", "serve", "/models/a-vlm", "--max-num-seqs", "8"]),
        (("python", "-m", "m", "serve"), ["python", "-m", "m", "serve", "/models/a-vlm", "--max-num-seqs", "8"]),
        (("vllm", "serve", "--seed", "1"), ["vllm", "serve", "/models/a-vlm", "--max-num-seqs", "8", "--seed", "1"]),
        (("./my-server", "-x"), ["./my-server", "-x", "--model", "/models/a-vlm", "--max-num-seqs", "8"]),
    ],
)
def test_the_model_and_the_users_arguments_stand_where_vllm_wants_them(words, command, start):
    rest = ["--served-model-name", "a/vlm", "--host", "127.0.0.1", "--port", "4321"]
    assert words(Serve(max_num_seqs=8), command) == start + rest


@pytest.mark.parametrize(
    ("gpus", "split"), [(0, []), (1, []), (2, ["--tensor-parallel-size", "2"]), (8, ["--tensor-parallel-size", "8"])]
)
def test_a_model_over_several_gpus(words, gpus, split):
    assert words(Serve(), gpus=gpus)[3:-6] == split


@pytest.mark.parametrize(
    ("size", "servers", "repeat", "caches"),
    [
        (-1.0, 0, None, []),
        (0.0, 0, None, ["--mm-processor-cache-gb", "0.0"]),
        (-1.0, 0, False, ["--mm-processor-cache-gb", "0.0", "--no-enable-prefix-caching"]),
        (0.0, 0, False, ["--mm-processor-cache-gb", "0.0", "--no-enable-prefix-caching"]),
        (0.0, 0, True, ["--mm-processor-cache-gb", "4.0", "--enable-prefix-caching"]),
        (0.0, 2, True, ["--mm-processor-cache-gb", "2.0", "--enable-prefix-caching"]),
        (9.0, 2, True, ["--mm-processor-cache-gb", "9.0", "--enable-prefix-caching"]),
        (9.0, 0, False, ["--mm-processor-cache-gb", "9.0", "--no-enable-prefix-caching"]),
    ],
)
def test_caches_are_for_pictures_that_repeat(words, size, servers, repeat, caches):
    serve = Serve(mm_processor_cache_gb=size, api_server_count=servers)
    count = ["--api-server-count", str(servers)] if servers else []
    assert words(serve, repeat=repeat)[3:-6] == count + caches


def test_only_arguments_that_each_version_knows(words):
    lines = [words(gpus=2, repeat=True), words(repeat=False)]
    lines += [words(profile.load(path)[1].serve) for path in profile.FOLDER.glob("vlm*.toml")]
    said = {word for line in lines for word in line if word.startswith("--")}
    assert said == KNOWN


@pytest.mark.parametrize(("found", "limit"), [(0, 4), (3, 4), (7, 7)])
def test_rows_with_many_pictures_are_taken(words, found, limit):
    line = words(most=found)
    assert json.loads(line[line.index("--limit-mm-per-prompt") + 1]) == {"image": limit}


PARSE = """
import json, sys
from vllm.entrypoints.cli.serve import cmd_init
from vllm.utils.argparse_utils import FlexibleArgumentParser
[serve], outer = cmd_init(), FlexibleArgumentParser()
serve.subparser_init(outer.add_subparsers(dest="subparser"))
found = []
for line in sys.stdin:
    args = outer.parse_args(json.loads(line))
    serve.validate(args)
    found.append({name: getattr(args, name) for name in sys.argv[1:]})
print(json.dumps(found))
"""
"""As vllm/entrypoints/cli/main.py does."""


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_itself_reads_them(words, vllm_home):
    lines = [words(gpus=2, repeat=True)[1:], words(repeat=False)[1:]]
    lines += [words(profile.load(path)[1].serve)[1:] for path in sorted(profile.FOLDER.glob("vlm*.toml"))]
    names = ["model_tag", "port", "tensor_parallel_size", "api_server_count", "enable_prefix_caching", "enforce_eager"]
    names += ["mm_processor_cache_gb", "limit_mm_per_prompt", "kv_cache_memory_bytes", "max_num_seqs", "quantization"]
    done = subprocess.run(
        [Path(vllm_home, "vllm", "bin", "python"), "-c", PARSE, *names],
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found[0] == {
        "model_tag": "/models/a-vlm",
        "port": 4321,
        "tensor_parallel_size": 2,
        "api_server_count": 2,
        "enable_prefix_caching": True,
        "enforce_eager": True,
        "mm_processor_cache_gb": 2.0,
        "limit_mm_per_prompt": {"image": 4},
        "kv_cache_memory_bytes": 64 << 20,
        "max_num_seqs": 64,
        "quantization": "fp8",
    }
    assert (found[1]["tensor_parallel_size"], found[1]["enable_prefix_caching"]) == (1, False)
    assert len(found) == len(lines) >= 5


@pytest.mark.parametrize(
    "said, argument",
    [
        ("At most 4 image(s) may be provided in one prompt.", "--limit-mm-per-prompt.image"),
        ("This model's maximum context length is 2048 tokens.", "--max-model-len"),
        ("The decoder prompt (length 3000) is longer than the maximum model length of 2048.", "--max-model-len"),
        ("the multimodal item exceeds the pre-allocated encoder cache size 2048", "--max-num-batched-tokens"),
    ],
)
def test_a_limit_is_named_with_the_flag_that_raises_it(said, argument):
    assert f'--vllm-command "vllm serve {argument}' in raising(said, True)
    assert raising(said, False).startswith(f"starting that server with {argument}")


def test_other_complaints_are_about_no_limit():
    assert raising("System role not supported", True) == "" == raising("cannot identify image file", False)
