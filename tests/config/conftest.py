from __future__ import annotations

import pytest

from fastgen.config import nvidia


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """tool({"first words of the arguments": (exit code, text)}): the driver's tool answers like that; "" is any other
    question."""
    bin = tmp_path / "bin"
    bin.mkdir()

    def install(answers: dict[str, tuple[int, str]]) -> None:
        cases = [
            f"'{words}'*) cat <<'END'\n{text}\nEND\nexit {code};;" for words, (code, text) in answers.items() if words
        ]
        code, text = answers.get("", (0, ""))
        body = "\n".join([*cases, f"*) cat <<'END'\n{text}\nEND\nexit {code};;"])
        path = bin / "nvidia-smi"
        path.write_text(f'#!/bin/sh\ncase "$*" in\n{body}\nesac\n')
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{bin}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvidia, "DEVICES", tmp_path / "dev")
    return install


@pytest.fixture
def driver(tool):
    """driver(text): the driver's tool prints that."""
    return lambda text, code=0: tool({"": (code, text)})
