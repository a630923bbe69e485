"""How long an answer may be, against what services really send."""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image

from fastgen.backends.remote.answer_sizes import of_answer, of_picture
from fastgen.types import ImageParams, Request, TextParams


def pictured(width, height, resolution=""):
    return ImageParams(width, height, 28, 3.5, 0, 1, resolution=resolution)


@pytest.mark.parametrize("side", [256, 1024, 2048])
def test_no_picture_of_the_size_asked_for_is_too_long(side):
    written = io.BytesIO()
    Image.frombytes("RGBA", (side, side), os.urandom(4 * side * side)).save(written, "PNG", compress_level=0)
    assert len(written.getvalue()) < of_picture(pictured(side, side))
    assert len(written.getvalue()) * 4 // 3 * 10 < of_answer(Request("a", "t2i", ("p",), pictured(side, side)), 10)


def test_it_grows_with_what_is_asked_for_and_no_further():
    one = Request("a", "t2i", ("p",), pictured(1024, 1024))
    any_size, large = (Request("a", "t2i", ("p",), pictured(0, 0, word)) for word in ("", "4K"))
    text = Request("a", "caption", (), TextParams(512, 0.0, 0))
    sizes = [of_answer(each, 1) for each in (text, one, any_size, large)]
    assert sizes == sorted(sizes) and sizes[0] < 2e6 and sizes[2] < 80e6 and sizes[3] < 150e6
    assert of_answer(one, 4) > 3 * of_answer(one, 1)
    assert of_answer(text, 1) > 100 * text.params.max_tokens, "no token of any vocabulary is longer"
