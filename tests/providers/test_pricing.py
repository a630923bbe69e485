"""Costs are upper bounds before a request, and the vendor's bill after it."""

from __future__ import annotations

import math

import pytest

from fastgen import providers
from fastgen.types import Request, TextParams
from tests.providers.conftest import request_for

pytestmark = pytest.mark.usefixtures("environment")


def test_costs(made):
    openai = made("openai")
    listed = {
        ("low", 1024): 0.006,
        ("medium", 1024): 0.053,
        ("high", 1024): 0.211,
        ("low", 1536): 0.005,
        ("high", 1536): 0.165,
    }
    for (quality, width), usd in listed.items():
        params = request_for(size=(width, 1024), quality=quality).params
        assert providers.price(openai).out_of_picture(params) == pytest.approx(usd, abs=0.0006), "the vendor's list"
    assert providers.estimate(openai, request_for()) > 0.211, "auto is the dearest"
    assert providers.estimate(openai, request_for(n=4)) == pytest.approx(
        4 * providers.estimate(openai, request_for()), rel=0.01
    )
    two = providers.estimate(openai, request_for("edit", ("a", "b"), images=2))
    assert two > 2 * providers.estimate(openai, request_for()) and math.isfinite(two)
    gemini = made("gemini")
    assert providers.estimate(gemini, request_for(resolution="1K")) < providers.estimate(gemini, request_for())
    assert providers.cost_of(gemini, {"image_out": 1120}) == pytest.approx(0.0336)
    caption = made("openai", "caption")
    one = Request("a", "caption", (), TextParams(100, 0.0, 0), dialogue=(("user", "hi"),), images=("a",))
    assert 0 < providers.cost_of(caption, {"text_in": 1000, "text_out": 50}) < providers.estimate(caption, one)
    for settings in (made("fake"), made("openai", model="my-own")):
        assert providers.price(settings) is None and providers.estimate(settings, request_for()) == 0.0
        assert providers.cost_of(settings, {"image_out": 9}) == 0.0


@pytest.mark.parametrize(("quality", "tokens"), [("low", 664), ("high", 1353), ("", 5800)])
def test_what_was_measured_lies_below_what_is_reckoned_with(made, quality, tokens):
    settings = made("openai", model="gpt-image-2.6-sunburst")
    size = (1536, 1024) if quality else (0, 0)
    assert providers.estimate(settings, request_for(size=size, quality=quality)) > tokens * 30e-6
    settings = made("openai", model="gpt-image-2.5-flare")  # low and medium take a third to a quarter there
    assert providers.estimate(settings, request_for(size=(1536, 1024), quality="low")) > 664 / 3 * 30e-6
