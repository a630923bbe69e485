"""Thoughts and other markup in answers: what is left, and what is kept apart."""

from __future__ import annotations

import pytest

from fastgen.backends.remote.markup import json_in, split


@pytest.mark.parametrize(
    "content, text, reasoning",
    [
        ("A red house.", "A red house.", ""),
        ("<think>hm</think>\n\nA red house.", "A red house.", "hm"),
        ("<think></think>A red house.", "A red house.", ""),
        ("I see a house.\n</think>\n\nA red house.", "A red house.", "I see a house."),
        ("a</think>b</think>A red house.", "A red house.", "a\nb"),
        ("<think>a<think>b</think>A red house.", "A red house.", "a\nb"),
        ("<thinking>hm</thinking>A red house.", "A red house.", "hm"),
        ("<seed:think>hm</seed:think>A red house.", "A red house.", "hm"),
        ("<|think|>hm<|/think|>A red house.", "A red house.", "hm"),
        ("◁think▷hm◁/think▷A red house.", "A red house.", "hm"),
        ("hm◁/think▷A red house.", "A red house.", "hm"),
        ("[THINK]hm[/THINK]A red house.", "A red house.", "hm"),
        ("<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>A red house.<|END_RESPONSE|>", "A red house.", "hm"),
        ("<unused94>thought\nhm<unused95>A red house.", "A red house.", "hm"),
        (
            "<|channel|>analysis<|message|>hm<|end|>"
            "<|start|>assistant<|channel|>final<|message|>A red house.<|return|>",
            "A red house.",
            "hm",
        ),
        (
            "<think>hm</think><answer><|begin_of_box|>A red house.<|end_of_box|></answer>",
            "A red house.",
            "hm",
        ),
        ("It is <|begin_of_box|>red<|end_of_box|>.", "It is red.", ""),
        ("Let me look.\n<answer>A red house.</answer>", "A red house.", ""),
        ("<answer>A red house.", "A red house.", ""),
        ("A red house.</answer>", "A red house.", ""),
        ("<caption>A red house.</caption>", "A red house.", ""),
        ("A red house.<|im_end|>", "A red house.", ""),
        ("A red house.</s>", "A red house.", ""),
        ("A red house.<end_of_turn>\n<eos>", "A red house.", ""),
        ("A red house.<|eot_id|><|start_header_id|>user<|end_header_id|>\nAnd?", "A red house.", ""),
        ("<|im_start|>assistant\nA red house.<|im_end|>", "A red house.", ""),
        ("A red house.<｜end▁of▁sentence｜>", "A red house.", ""),
        ("```\nA red house.\n```", "A red house.", ""),
        ("```markdown\n# A house\n```", "# A house", ""),
        # What an answer is about stays.
        ("A slide about the <think> tag of models.", "A slide about the <think> tag of models.", ""),
        ('A page of code with "</think>" in it.', 'A page of code with "</think>" in it.', ""),
        ("```python\nprint(1)\n```", "```python\nprint(1)\n```", ""),
        ("a < b and b > c on a blackboard", "a < b and b > c on a blackboard", ""),
        ("<|object_ref_start|>a dog<|object_ref_end|><|box_start|>(1,2)<|box_end|>",) * 2 + ("",),
        ("HTML: <div>hello</div>", "HTML: <div>hello</div>", ""),
    ],
)
def test_what_is_left_of_an_answer(content, text, reasoning):
    found = split(content)
    assert (found.text, found.reasoning, found.is_cut) == (text, reasoning, False)


@pytest.mark.parametrize(
    "content", ["<think>\nOkay, I see a house", "◁think▷ a house", "a</think><think>b", "[THINK]x"]
)
def test_a_thought_without_end_is_no_answer(content):
    assert split(content).is_cut


def test_what_was_removed_is_kept():
    assert split("Look. <answer>A house.</answer> Bye.").removed == ["<answer>", "Look.", "Bye."]
    assert split("A house.<|im_end|>\n<|im_start|>user\nWhy?").removed == ["<|im_end|>\n<|im_start|>user\nWhy?"]
    assert split("only <unused49>").removed == ["<unused49>"]


@pytest.mark.parametrize(
    "text, removed",
    [
        ('{"a": 1}', []),
        ('```json\n{"a": 1}\n```', ["```"]),
        ('Here it is:\n```json\n{"a": 1}\n```\nEnjoy.', ["Here it is:", "```", "Enjoy."]),
        ('The answer: {"a": 1}', ["The answer:"]),
        ('{"a": 1} is it', ["is it"]),
    ],
)
def test_json_between_words(text, removed):
    found: list[str] = []
    assert json_in(text, found) == {"a": 1} and found == removed


@pytest.mark.parametrize("text", ["none", '{"a": 1', '{"a": 1} or {"a": 2}', "```json\n{}\n``` ```json\n{}\n```"])
def test_no_json_or_two(text):
    with pytest.raises(ValueError):
        json_in(text, [])
