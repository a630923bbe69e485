"""The house drawn from its imports, and the size of what is in it.

python -m tests.test_layout     prints rooms, arrows and floors
"""

from __future__ import annotations

import ast
import statistics
import subprocess
from collections.abc import Iterator

import pytest

from tests.imports import MODULES, PACKAGE, between_files, between_rooms, circle, floors

ROOT = PACKAGE.parent
MOST_ROOMS, MOST_FLOORS = 20, 10
MOST_LINES_OF_A_FUNCTION = 59
MEDIAN_LINES_OF_A_FILE = 110
MOST_UNFORMATTED = 10
"""Tables that are worth a `# fmt: skip`."""

LONG = {
    "resolver/__init__.py:resolve": "its arguments are the public flags",
    "cli/main.py:_command": "a command's flags are its signature",
    "cli/main.py:bench": "a command's flags are its signature",
    "cli/main.py:command": "a command's flags are its signature",
}
"""Functions that may be longer, and why."""


def test_rooms_and_floors():
    rooms = between_rooms()
    assert len(rooms) <= MOST_ROOMS, sorted(rooms)
    assert not circle(rooms)
    assert max(floors(rooms).values()) <= MOST_FLOORS, floors(rooms)


def test_no_two_files_import_each_other_even_by_way_of_others():
    assert not [str(path.relative_to(PACKAGE)) for path in circle(between_files())]


def test_the_drawing_sees_circles_and_heights():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"] and circle({"a": {"b", "c"}, "b": {"c"}}) == []
    assert floors({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": 3, "b": 2, "c": 1}


def functions() -> Iterator[tuple[str, int]]:
    """ "file:name" and lines, from `def` to the end."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno
                yield f"{path.relative_to(PACKAGE)}:{node.name}", node.end_lineno - node.lineno + 1


def test_functions_are_short():
    long = {name: lines for name, lines in functions() if lines > MOST_LINES_OF_A_FUNCTION}
    assert not long.keys() - LONG.keys(), {name: long[name] for name in long.keys() - LONG.keys()}


def test_files_are_short():
    assert statistics.median(len(path.read_text("utf-8").splitlines()) for path in MODULES) < MEDIAN_LINES_OF_A_FILE


def test_few_lines_are_kept_from_the_formatter():
    mark = "# fmt: " + "skip"
    found = subprocess.run(["git", "grep", "-F", mark, "--", "*.py"], cwd=ROOT, capture_output=True, text=True)
    if found.returncode > 1:
        pytest.skip("not a git checkout")
    assert len(found.stdout.splitlines()) <= MOST_UNFORMATTED, found.stdout


ELSEWHERE = {
    "__main__.py": "cli/test_main.py",
    "cli/dataflow.py": "dataflow/test_pipelines.py",
    "cli/run_task.py": "cli/test_main.py",
    "cli/tables.py": "cli/test_check.py",
    "cli/job_files.py": "cli/test_submit.py",
    "backends/base.py": "backends/test_recipe_backend.py",
    "backends/diffusion/": "backends/diffusion/test_engine.py",
    "backends/fake.py": "scheduler/test_run.py",
    "backends/registry.py": "backends/test_recipe_backend.py",
    "backends/remote/attempt.py": "backends/remote/test_openai_api.py",
    "backends/remote/batch_api/service.py": "backends/remote/batch_api/test_courier.py",
    "backends/remote/connections.py": "backends/remote/test_http_client.py",
    "backends/remote/deferred.py": "backends/remote/batch_api/test_collecting.py",
    "backends/remote/dialogue.py": "backends/remote/test_openai_api.py",
    "backends/remote/faults.py": "backends/remote/test_responses.py",
    "backends/remote/gemini_answers.py": "backends/remote/test_responses.py",
    "backends/remote/openai_answers.py": "backends/remote/test_responses.py",
    "backends/remote/captions.py": "backends/remote/test_openai_api.py",
    "backends/remote/text_classifier.py": "backends/remote/test_no_answers.py",
    "backends/remote/schema_form.py": "backends/remote/test_learned.py",
    "backends/remote/sdk_transport.py": "backends/remote/test_redirects.py",
    "backends/remote/supervisor.py": "providers/test_vllm.py",
    "providers/vllm_entry.py": "providers/test_vllm.py",
    "backends/remote/vllm_server.py": "backends/remote/test_vllm.py",
    "bench/": "bench/test_bench.py",
    "backends/remote/chat.py": "backends/remote/test_chat_pictures.py",
    "config/backends.py": "backends/test_recipe_provider.py",
    "config/checks.py": "resolver/test_resolve.py",
    "config/cache.py": "opt/test_quantized_cache.py",
    "config/downloads.py": "config/test_model_cards.py",
    "config/ray_cluster.py": "workers/test_ray.py",
    "config/prompts.py": "scenarios/test_caption.py",
    "dataflow/": "dataflow/test_servings.py",
    "embedded/": "embedded/test_models.py",
    "examples/": "cli/test_main.py",
    "input/color_profiles.py": "input/test_images.py",
    "input/embedded_pictures.py": "input/test_columns.py",
    "input/identities.py": "input/test_requests.py",
    "input/readers/": "input/readers/test_formats.py",
    "opt/": "opt/test_pairs.py",
    "output/export.py": "scenarios/test_exports.py",
    "output/mirror/": "output/test_mirror.py",
    "scheduler/sending.py": "output/test_mirror.py",
    "output/row_spool.py": "output/writers/test_tables.py",
    "output/writers/": "scenarios/test_exports.py",
    "resolver/": "resolver/test_resolve.py",
    "cli/shards.py": "scenarios/test_shards.py",
    "output/shards.py": "scenarios/test_shards.py",
    "scheduler/share.py": "scenarios/test_shards.py",
    "api/plan.py": "test_api.py",
    "scheduler/all_rows.py": "test_api.py",
    "scheduler/batches_out.py": "scheduler/test_run.py",
    "output/parcels.py": "output/test_outbox.py",
    "backends/remote/batch_api/files.py": "backends/remote/batch_api/test_openai.py",
    "scheduler/progress.py": "scheduler/test_watchdog.py",
    "scheduler/results_back.py": "scheduler/test_run.py",
    "scheduler/worker_state.py": "scheduler/test_worker_pool.py",
    "view/about.py": "view/test_server.py",
    "view/sources.py": "view/test_run_rows.py",
    "types.py": "scheduler/test_batching.py",
    "workers/base.py": "workers/test_process.py",
    "workers/messages.py": "workers/test_process.py",
    "workers/messaging.py": "workers/test_process.py",
    "workers/ray_node.py": "workers/test_ray.py",
    "workers/registry.py": "workers/test_recipe_worker.py",
    "workers/worker_main.py": "workers/test_process.py",
}
"""Modules whose tests are not in a file of their own name, by how their path begins, and where those are."""


def test_every_module_has_a_test_of_its_name():
    names = [path.relative_to(PACKAGE) for path in MODULES if path.name != "__init__.py"]
    alone = {str(name) for name in names if not (ROOT / "tests" / name.parent / f"test_{name.name}").exists()}
    assert not {name for name in alone if not name.startswith(tuple(ELSEWHERE))}
    assert all((ROOT / "tests" / place).exists() for place in ELSEWHERE.values())


def _print() -> None:
    rooms = between_rooms()
    heights = floors(rooms)
    for floor in range(max(heights.values()), 0, -1):
        for room in sorted(room for room in rooms if heights[room] == floor):
            print(f"{floor:2}  {room:10} -> {' '.join(sorted(rooms[room]))}")
    print(f"{len(rooms)} rooms, {sum(map(len, rooms.values()))} arrows, {max(heights.values())} floors")


if __name__ == "__main__":
    _print()
