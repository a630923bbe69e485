"""What `fastgen init` puts into a working folder: the pipelines as scripts, example rows, pictures for them. Runs
nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import fastgen

HERE = Path(__file__).parent
PICTURES = Path(fastgen.__file__).parent / "examples" / "full" / "pictures"
EXAMPLES = "example_data"
WITH_PICTURES = ("image_gen/image_edit", "image_caption")
PROGRAMS = {
    "t2i-api": "api_pipelines.text_to_image_generation_api_pipeline",
    "edit-api": "api_pipelines.image_editing_api_pipeline",
    "t2i-gpu": "gpu_pipelines.text_to_image_generation_pipeline",
    "edit-gpu": "gpu_pipelines.image_editing_pipeline",
    "caption-api": "api_pipelines.image_caption",
    "caption-gpu": "gpu_pipelines.image2caption",
}


def init(folder: str | Path) -> list[Path]:
    """Make a working folder; a file that is there already stays as it is. Returns what was written. Raises
    SettingsError."""
    folder = Path(folder).expanduser()
    try:
        written = _examples(folder)
        for program in PROGRAMS.values():
            name = f"{program.replace('.', '/')}.py"
            written += _copy(HERE / "pipelines" / name, folder / name)
        return written + _copy(HERE / "README.md", folder / "README.md")
    except OSError as error:
        raise fastgen.SettingsError(f"init {folder}: {error.strerror}: {error.filename}") from None


def example(name: str) -> str:
    """The path of an example file in ./example_data, which is made if it is not there."""
    path = Path(EXAMPLES, name)
    if not path.exists():
        _examples(Path())
    return str(path)


def run(program: str, arguments: list[str]) -> int:
    """Run a pipeline of PROGRAMS as its script would. Returns 0, or 3 where rows failed."""
    from importlib import import_module

    return import_module(f"{__name__}.pipelines.{PROGRAMS[program]}").main(arguments)


def _examples(folder: Path) -> list[Path]:
    written = []
    for path in sorted((HERE / EXAMPLES).rglob("*.json*")):
        written += _copy(path, folder / EXAMPLES / path.relative_to(HERE / EXAMPLES))
    for place in WITH_PICTURES:
        for path in sorted(PICTURES.glob("*.png")):
            written += _copy(path, folder / EXAMPLES / place / path.name)
    return written


def _copy(path: Path, to: Path) -> list[Path]:
    if to.exists():
        return []
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
    return [to]
