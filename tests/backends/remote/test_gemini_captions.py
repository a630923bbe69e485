"""What a model of Gemini's refuses of every request is learned from the first one. A run of many rows is in
tests/scenarios/test_refused_parameters.py."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("google.genai")

from google.genai import types

from fastgen.backends.remote.gemini_captions import GeminiCaptions
from fastgen.backends.remote.responses import ProviderError
from fastgen.types import Request, TextParams

DIALOGUE = (("system", "Be short."), ("user", "What?"), ("assistant", "A cat."), ("user", "Sure?"))
SCHEMA = json.dumps({"type": "object"})


def attempt(schema: str = "", thinking: str = "") -> SimpleNamespace:
    text = SimpleNamespace(system="unused", schema=schema, thinking=thinking, max_pixels=9)
    request = Request("a", "caption", (), TextParams(64, 0.5, 2**31 + 7), dialogue=DIALOGUE)
    settings = SimpleNamespace(text=text, run=SimpleNamespace(accept_refusals=False))
    return SimpleNamespace(
        settings=settings, request=request, at_most=lambda _: 0.0, warnings=[], not_sent=[], answer=None
    )


class Model:
    """Refuses a request as long as it has what `refuses` names in its config; then it answers."""

    def __init__(self, refuses: str = "", says: str = "", answer: str = "Yes."):
        self.refuses, self.says, self.answer = refuses, says, answer
        self.asked: list[tuple[list, types.GenerateContentConfig]] = []

    def ask(self, attempt, contents, config, at_most):
        self.asked.append((contents, config))
        if self.refuses and getattr(config, self.refuses) is not None:
            raise ProviderError("input", f"400 INVALID_ARGUMENT: {self.says}")
        content = types.Content(role="model", parts=[types.Part.from_text(text=self.answer)])
        return types.GenerateContentResponse(candidates=[types.Candidate(content=content, finish_reason="STOP")])


def texts(contents: list) -> list[tuple[str, list[str]]]:
    return [(turn.role, [part.text for part in turn.parts]) for turn in contents]


TURNS = [("user", ["What?"]), ("model", ["A cat."]), ("user", ["Sure?"])]


def test_everything_is_sent():
    model, one = Model(answer="{}"), attempt(SCHEMA, "off")
    GeminiCaptions("m", model.ask).make(one)
    ((contents, config),) = model.asked
    assert texts(contents) == TURNS and [part.text for part in config.system_instruction.parts] == ["Be short."]
    assert (config.seed, config.temperature, config.max_output_tokens) == (7, 0.5, 64)
    assert config.response_json_schema == {"type": "object"} and config.thinking_config.thinking_budget == 0
    assert one.answer.text == "{}" and not one.warnings and not one.not_sent


@pytest.mark.parametrize(
    "refuses, says, gone",
    [
        ("seed", "Seed is not supported by this model", "seed"),
        ("thinking_config", "Budget 0 is invalid. This model only works in thinking mode.", "thinking"),
        ("thinking_config", "Unable to submit request because thinking is not supported by this model.", "thinking"),
    ],
)
def test_a_parameter_is_left_out(refuses, says, gone):
    model = Model(refuses, says)
    captions = GeminiCaptions("m", model.ask)
    for number in range(3):
        one = attempt(thinking="off")
        captions.make(one)
        assert one.answer.text == "Yes." and one.not_sent == [gone], number
    assert len(model.asked) == 4


def test_a_system_instruction_begins_the_first_turn():
    model, one = (
        Model("system_instruction", "Developer instruction is not enabled for models/gemma-3-27b-it"),
        attempt(),
    )
    GeminiCaptions("m", model.ask).make(one)
    assert texts(model.asked[-1][0]) == [("user", ["Be short.", "What?"]), *TURNS[1:]]
    assert "no system role" in one.warnings[0]


def test_a_schema_is_said_at_the_end():
    model = Model("response_json_schema", "JSON mode is not enabled for models/gemma-3-27b-it", "```json\n{}\n```")
    one = attempt(SCHEMA)
    GeminiCaptions("m", model.ask).make(one)
    contents, config = model.asked[-1]
    assert config.response_mime_type is None and SCHEMA in texts(contents)[-1][1][-1] and one.answer.text == "{}"
    assert one.not_sent == ["response_format"]


def test_other_complaints_are_about_the_row():
    model = Model("seed", "Unable to process input image.")
    with pytest.raises(ProviderError, match="input image"):
        GeminiCaptions("m", model.ask).make(attempt())
    assert len(model.asked) == 1
