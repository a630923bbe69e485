"""What `fastgen init` writes into a working folder: the pipelines as scripts, example rows and their images. Runs
nothing.

DataFlow-MM's documentation starts the scripts from several places. They are in `api_pipelines/` and `gpu_pipelines/`;
under `dataflow/statics/` are files of the same names that only run those. The example rows are under `example_data/`;
those that older documentation expects under `data/` are there too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import fastgen
from fastgen.dataflow.statics.program import default_model, program

__all__ = ["default_model", "example", "init", "program", "run"]

HERE = Path(__file__).parent
PICTURES = Path(fastgen.__file__).parent / "examples" / "full" / "pictures"
EXAMPLES = "example_data"
OLDER = "data"
"""Where older documentation has the example rows of captions."""
WITH_PICTURES = ("image_gen/image_edit", "image_caption", "image_vqa")
ALSO_OLDER = ("image_caption", "image_vqa")
PROGRAMS = {
    "t2i-api": "api_pipelines.text_to_image_generation_api_pipeline",
    "edit-api": "api_pipelines.image_editing_api_pipeline",
    "t2i-gpu": "gpu_pipelines.text_to_image_generation_pipeline",
    "edit-gpu": "gpu_pipelines.image_editing_pipeline",
    "caption-api": "api_pipelines.image_caption",
    "caption-gpu": "gpu_pipelines.image2caption",
    "vqa-api": "api_pipelines.image_vqa",
    "vqa-gpu": "gpu_pipelines.image2qa",
}
DOCUMENTED = ("dataflow/statics/pipelines", "dataflow/statics")
"""Where documentation says that the scripts are, besides the top of the folder."""
RUNS_ANOTHER = '''"""Runs {script}, which has the pipeline: change that one."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parents[{up}] / "{script}"), run_name="__main__")
'''


def init(folder: str | Path) -> list[Path]:
    """Make a working folder. Existing files stay as they are. Returns what was written. Raises SettingsError."""
    folder = Path(folder).expanduser()
    try:
        written = _examples(folder)
        for program in PROGRAMS.values():
            name = f"{program.replace('.', '/')}.py"
            written += _copy(HERE / "pipelines" / name, folder / name)
            for place in DOCUMENTED:
                text = RUNS_ANOTHER.format(script=name, up=len(Path(place).parts) + 1)
                written += _write(folder / place / name, text)
        return written + _copy(HERE / "README.md", folder / "README.md")
    except OSError as error:
        raise fastgen.SettingsError(f"init {folder}: {error.strerror}: {error.filename}; name another folder") from None


def example(name: str) -> str:
    """The path of an example file in ./example_data, which is created if necessary."""
    path = Path(EXAMPLES, name)
    if not path.exists():
        _examples(Path())
    return str(path)


def run(program: str, arguments: list[str]) -> int:
    """Run a pipeline of PROGRAMS as its script would. Returns its exit code."""
    from importlib import import_module

    return import_module(f"{__name__}.pipelines.{PROGRAMS[program]}").main(arguments)


def _examples(folder: Path) -> list[Path]:
    written = []
    for path in sorted((HERE / EXAMPLES).rglob("*.json*")):
        name = path.relative_to(HERE / EXAMPLES)
        written += _copy(path, folder / EXAMPLES / name)
        if str(name.parent) in ALSO_OLDER:
            written += _write(folder / OLDER / name, path.read_text("utf-8").replace(f"./{EXAMPLES}/", f"./{OLDER}/"))
    for place in [f"{EXAMPLES}/{name}" for name in WITH_PICTURES] + [f"{OLDER}/{name}" for name in ALSO_OLDER]:
        for path in sorted(PICTURES.glob("*.png")):
            written += _copy(path, folder / place / path.name)
    return written


def _copy(path: Path, to: Path) -> list[Path]:
    if to.exists():
        return []
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
    return [to]


def _write(to: Path, text: str) -> list[Path]:
    if to.exists():
        return []
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(text, "utf-8")
    return [to]
