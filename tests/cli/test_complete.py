"""What a shell offers when TAB is pressed."""

from __future__ import annotations

import pytest

from tests.cli.test_help import said


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("fastgen t2i --backend ", {"local", "openai", "gemini"}),
        ("fastgen caption --backend v", {"vllm"}),
        ("fastgen t2i --model k", {"klein", "kontext"}),
        ("fastgen t2i --format webp", {"webp", "webp:80", "webp:lossless"}),
        ("fastgen edit --cache t", {"taylorseer"}),
        ("fastgen export run --to web", {"webdataset"}),
        ("fastgen table run --to p", {"parquet"}),
        ("fastgen t2i --prompt-", {"--prompt-key"}),
        ("fastgen do", {"doctor"}),
        ("fastgen t2i --quality ", {"exact", "high", "fast"}),
        ("fastgen t2i --quantize 8", {"8bit"}),
        ("fastgen t2i --attention na", {"native"}),
        ("fastgen t2i --gpus c", {"cpu"}),
        ("fastgen t2i --dtype b", {"bfloat16"}),
        ("fastgen t2i --offload g", {"group"}),
    ],
)
def test_the_shell_completes(words, offered):
    number = len(words.split(" ")) - 1
    text = said(_FASTGEN_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(number))
    assert set(text.split()) == offered


def test_the_root_offers_completion():
    assert "--install-completion" in said("--help")
