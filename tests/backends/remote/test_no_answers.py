"""Refusals and error texts are told from captions: labelled texts of many languages, and what is not about words."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fastgen.backends.remote import text_classifier
from fastgen.backends.remote.no_answers import kind_of
from tests.backends.remote import answers


@pytest.mark.parametrize("path", answers.TRAINED, ids=lambda path: path.stem)
def test_labelled_texts(path):
    """At least 99% of good texts are kept, and at least 95% of bad ones named, as what they are."""
    judged = answers.judge(path)
    good, bad = judged.counts
    assert len(judged.lost) <= 0.01 * good, judged.lost
    assert judged.right_kind >= 0.95 * bad, judged.passed


@pytest.mark.parametrize("path", answers.UNSEEN, ids=lambda path: path.stem)
def test_texts_that_it_was_not_trained_on(path):
    """At least 97% of good texts are kept, and at least 90% of bad ones named."""
    judged = answers.judge(path)
    good, bad = judged.counts
    assert good >= 60 and bad >= 90
    assert len(judged.lost) <= 0.03 * good, judged.lost
    assert len(judged.passed) <= 0.1 * bad, judged.passed


def test_there_are_enough_of_them_in_every_language():
    found = [one for path in answers.TRAINED for one in answers.read(path)]
    assert len(found) >= 400 and len({text for _, _, text in found}) == len(found)
    for is_good in (True, False):
        counts = {lang: sum((one[0] == "good") == is_good and one[1] == lang for one in found) for _, lang, _ in found}
        assert all(counts[lang] >= 20 for lang in ("en", "zh", "ja", "ko", "de", "fr", "es", "ru")), counts
    trained = {text for _, _, text in found}
    assert not trained & {text for path in answers.UNSEEN for label, _, text in answers.read(path) if label == "good"}


def test_the_weights_are_those_of_the_texts():
    """After a change of the texts: python -m bench.answers --train"""
    with np.load(text_classifier.WEIGHTS) as file:
        assert str(file["digest"]) == answers.digest()
        assert file["weights"].shape == (2**text_classifier.BITS, len(text_classifier.CLASSES))


@pytest.mark.parametrize(
    "text, kind",
    [
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("**I'm sorry**, but I can’t help with that.", "refusal"),
        ("Internal Server Error", "error"),
        ('```json\n{"error": "out of memory"}\n```', "error"),
        ("<!DOCTYPE html><title>502</title>", "error"),
        ("Traceback (most recent call last):\n" + "  File x\n" * 900, "error"),
        ("N/A", "nothing"),
        ('{"name": "zoom", "arguments": {"box": [0, 0, 9, 9]}}', "nothing"),
        ('[{"id": "1", "type": "function", "function": {"name": "look"}, "args": {}}]', "nothing"),
        ("<tool_call>\n{}\n</tool_call>", "nothing"),
        ("Thought: I should look.\nAction: look\nAction Input: {}", "nothing"),
        ('{"name": "a cat", "colour": "black"}', ""),
        ("Action: a man jumps over a fence.", ""),
        ("!" * 300, "nothing"),
        ("house " * 200, "nothing"),
        ("A house. " + "It is red and has a garden. " * 100, ""),
        ('{"error": null, "caption": "a house"}', ""),
        ('{"message": "hello"}', ""),
        ('{"message": "The request timed out"}', "error"),
        ("Sorry.", "refusal"),
        ("Safety", ""),
        ("passengers", ""),
        ("«No puedo ayudar con eso.»", "refusal"),
        ('"Sorry", says a sign next to "Closed"', ""),
    ],
)
def test_kinds(text, kind):
    assert kind_of(text) == kind


@pytest.mark.parametrize(
    "said",
    [
        "I can't identify the people. The photo shows a man in a grey suit who shakes hands with a woman in an office.",
        "I'm not able to say who this is, but the picture shows an old man with a beard who holds a fishing rod.",
        "无法辨认照片中的人。画面里一位老人坐在河边的长椅上，手里拿着一根鱼竿，旁边有一只黄色的小狗。",
        "Die Personen kann ich nicht benennen. Im Bild steht ein Mann im grauen Anzug neben einer Frau in einem Büro.",
    ],
)
def test_a_description_with_a_caution_in_it_is_an_answer(said):
    assert kind_of(said) == ""


def test_long_texts_that_explain_are_answers():
    """They have many of the words of refusals, and are none."""
    said = (
        "Experiments can be designed to answer specific questions. When you plan one, you must identify the supplies "
        "that are necessary, and you cannot compare results that were not measured alike. Please note that the image "
        "shows only a part of the model. The answer is B."
    )
    assert kind_of(said) == "" == kind_of(said * 3)


@pytest.mark.parametrize(
    "piece", ["sorry, ", "i'm sorry, but ", "for a ", "as an ai, ", "抱歉，", "a(", "je ne ", "nicht "]
)
def test_no_text_takes_long(piece):
    """Expressions with repetitions inside repetitions could take for ever."""
    began = time.process_time()
    for length in (1400, 3000, 100_000):
        kind_of((piece * length)[:length])
    assert time.process_time() - began < 5
