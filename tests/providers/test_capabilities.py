"""What a row or a flag may ask of an API, and what is said where it cannot."""

from __future__ import annotations

import msgspec
import pytest

from fastgen import providers
from fastgen.errors import SettingsError
from tests.providers.conftest import request_for

pytestmark = pytest.mark.usefixtures("environment")


@pytest.mark.parametrize(
    "backend, flags, about, says",
    [
        ("openai", {}, {"size": (1536, 864)}, ""),
        ("openai", {}, {"size": (1000, 1000)}, "multiples of 16; the nearest is 992x992"),
        ("openai", {}, {"size": (2048, 512)}, "a factor of 3"),
        ("openai", {}, {"size": (4096, 2048)}, "3840"),
        ("openai", {}, {"size": (512, 512)}, "655,360 at least"),
        ("openai", {"model": "gpt-image-1.5"}, {"size": (1536, 864)}, "supports 1024x1024, 1536x1024, 1024x1536"),
        ("openai", {}, {"quality": "max"}, "supports low, medium, high"),
        ("openai", {"model": "gpt-image-2.6-flare"}, {"quality": "max"}, ""),
        ("openai", {}, {"quality": "auto", "background": "auto"}, ""),
        ("openai", {"format": "jpeg"}, {"background": "transparent"}, "JPEG has no transparency"),
        ("openai", {}, {"aspect_ratio": "16:9"}, "use size"),
        ("openai", {}, {"aspect_ratio": "16:9", "size": (1536, 864)}, ""),
        ("openai", {}, {"resolution": "2K"}, "use size"),
        ("openai", {}, {"task": "edit", "images": 16}, ""),
        ("openai", {}, {"task": "edit", "images": 17}, "takes 16 at most"),
        ("openai", {}, {"prompts": ("a" * 32001,)}, "32,001 characters"),
        ("openai", {"model": "my-own"}, {"size": (77, 77), "quality": "odd"}, ""),
        ("gemini", {}, {"aspect_ratio": "21:9", "resolution": "4K"}, ""),
        ("gemini", {}, {"resolution": "512"}, "supports 1K, 2K, 4K"),
        ("gemini", {"model": "gemini-3-pro-image"}, {"aspect_ratio": "1:8"}, "aspect_ratio 1:8"),
        ("gemini", {}, {"quality": "high"}, "does not support it"),
        ("gemini", {}, {"size": (1024, 768)}, ""),
        ("gemini", {}, {"size": (1000, 50)}, "none of its aspect ratios"),
        ("gemini", {}, {"size": (1024, 768), "aspect_ratio": "1:1"}, "leave one out"),
        ("gemini", {}, {"task": "edit", "images": 14, "mask": "m"}, "the mask is one of them"),
        ("gemini", {}, {"n": 50}, ""),
        ("fake", {}, {"quality": "high"}, "only APIs support it"),
        ("fake", {}, {"resolution": "auto", "size": (64, 64)}, ""),
    ],
)
def test_what_a_row_may_ask_for(made, backend, flags, about, says):
    settings = made(backend, about.get("task", "t2i"), **flags)
    reason = providers.refuse(settings, request_for(**about))
    assert says in reason if says else not reason


@pytest.mark.parametrize(
    "backend, flags, says",
    [
        ("openai", {"size": "1000x1000"}, "--size 1000x1000"),
        ("openai", {"quality": "odd"}, "--quality odd"),
        ("openai", {"aspect_ratio": "1:1"}, "--aspect-ratio 1:1"),
        ("openai", {"model": "gpt-6-luna"}, "is for caption, not for t2i"),
        ("gemini", {"format": "webp"}, "--format webp"),
        ("gemini", {"background": "transparent"}, "--background transparent"),
        ("fake", {"quality": "high"}, "--quality high"),
    ],
)
def test_what_flags_may_ask_for(made, backend, flags, says):
    with pytest.raises(SettingsError, match=says):
        made(backend, **flags)


def test_a_size_becomes_a_shape(made):
    settings = made("gemini")
    cases = {
        (1024, 1024): ("1:1", "1K"),
        (2048, 1152): ("16:9", "2K"),
        (2160, 3840): ("9:16", "4K"),
        (64, 64): ("1:1", "1K"),
    }
    assert {size: providers.shape(settings, request_for(size=size).params) for size in cases} == cases
    assert providers.shape(settings, request_for(size=(1024, 1024), resolution="4K").params) == ("1:1", "4K")
    assert providers.shape(settings, request_for(aspect_ratio="auto").params) == ("", "")


def test_it_is_only_data(made):
    settings = made("openai", "edit")
    assert msgspec.convert(msgspec.to_builtins(settings), type(settings)) == settings
    assert providers.refuse(settings, request_for("edit", images=1)) == ""
