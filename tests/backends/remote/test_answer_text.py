"""Answers with reasoning, in whatever place, and what of a failed one is kept."""

from __future__ import annotations

import json

import pytest

from fastgen.backends.remote.answer_text import Text, text_of, words_instead
from fastgen.backends.remote.chat import read
from fastgen.backends.remote.http_client import Answer
from fastgen.backends.remote.responses import ProviderError

SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


def failure(*given, **more) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        text_of(*given, **more)
    return caught.value


def test_reasoning_from_a_field_and_from_markup_is_kept_apart():
    assert text_of("<think>b</think>A house.", "stop", None, "", "a") == Text("A house.", "a\nb")
    assert text_of('<think>x</think>\n```json\n{"n": 1}\n```', "stop", None, SCHEMA) == Text(
        '{"n": 1}', "x", ("```json",)
    )


@pytest.mark.parametrize(
    "content, reason, reasoning, kind, says",
    [
        ("<think>a house", "stop", "", "truncated", "--thinking off"),
        ("<think>a house</think>", "stop", "", "empty", "only markup"),
        (None, "stop", "a house", "empty", "only thought"),
        ("", "length", "a house", "truncated", "--max-tokens"),
        ("<|im_end|>", "stop", "", "empty", "only markup"),
        ("<unused49><unused49>", "stop", "", "empty", "only markup"),
    ],
)
def test_reasoning_alone_is_no_answer(content, reason, reasoning, kind, says):
    error = failure(content, reason, None, "", reasoning)
    assert error.kind == kind and says in str(error) and error.answer == (content or reasoning)


def test_what_came_stays_with_the_failure():
    assert failure("A cat and", "length", None).answer == "A cat and"
    assert failure("I'm sorry, but I can't help with that.", "stop", None).answer.startswith("I'm sorry")
    assert failure(None, "stop", "No.").answer == "No."
    assert failure("half \ud83d", "stop", None).answer == "half ?"
    assert failure('{"n": "x"}', "stop", None, SCHEMA).answer == '{"n": "x"}'


def test_refusals_may_be_accepted():
    for said in ("I'm sorry, but I can't help with that.", "Error: rate limit reached", "null"):
        assert text_of(said, "stop", None, accept_refusals=True).text == said
    assert text_of(None, "stop", "No.", accept_refusals=True).text == "No."
    assert failure("A cat and", "length", None, accept_refusals=True).kind == "truncated"


MESSAGES = [
    ({"content": [{"type": "text", "text": "A red "}, {"type": "text", "text": "house."}]}, ""),
    (
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "A red house."},
            ]
        },
        "hm",
    ),
    ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "output_text", "text": "A red house."}]}, "hm"),
    ({"content": "A red house.", "reasoning_content": "hm"}, "hm"),
    ({"content": "A red house.", "reasoning": "hm"}, "hm"),
    ({"content": "A red house.", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, "hm"),
    ({"content": ["A red house."]}, ""),
]


@pytest.mark.parametrize("message, reasoning", MESSAGES)
def test_contents_a_little_off_the_form(message, reasoning):
    body = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": None}
    reply = read(Answer(200, {}, json.dumps(body).encode()))
    assert (reply.content, reply.reasoning, reply.usage) == ("A red house.", reasoning, {})


def test_a_refusal_among_the_parts():
    body = {"choices": [{"message": {"content": [{"type": "refusal", "refusal": "No."}]}}]}
    assert read(Answer(200, {}, json.dumps(body).encode())).refusal == "No."


def test_words_instead_of_an_image():
    """An announcement may be followed by an image next time; a refusal will not."""
    assert words_instead("I will now generate an image of a cat.", str).kind == "empty"
    assert words_instead("Here is your image:", str).kind == "empty"
    assert words_instead("I'm unable to create this image.", str).kind == "refused"
    assert words_instead("Not that.", str).kind == "refused"
    assert words_instead("Not that.", str).answer == "Not that."
