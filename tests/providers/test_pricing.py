"""Costs are upper bounds before a request, and the vendor's bill after it."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from fastgen import providers
from fastgen.resolver import resolve
from fastgen.types import Done, ImageParams, Request, TextParams
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


def done(request, usage: dict[str, int], cost: float) -> Done:
    return Done(request.id, "openai", "m", (), request.params, 1.0, usage=usage, cost=cost)


def test_an_answer_tells_what_the_same_request_cost_another_time(made):
    """Never less than it may have cost, and exactly that where nothing is left to the model."""
    openai = made("openai")
    used = {"text_in": 20, "image_out": 196}
    cost = providers.cost_of(openai, used)
    for fixed in (request_for(size=(1024, 1024), quality="low"), request_for(n=2, size=(1024, 1024), quality="low")):
        assert providers.cost_of_another(openai, fixed, done(fixed, used, cost)) == pytest.approx(cost)
    for free in (
        request_for(quality="low"),
        request_for(size=(1024, 1024)),
        request_for(size=(1024, 1024), quality="auto"),
    ):
        another = providers.cost_of_another(openai, free, done(free, used, cost))
        assert another == pytest.approx(cost + providers.price(openai).out_of_picture(free.params) - 196 * 30e-6)
        assert another < providers.estimate(openai, free)
    gemini = made("gemini")
    request, used = request_for(resolution="1K"), {"text_in": 20, "image_out": 1120, "text_out": 300}
    cost = providers.cost_of(gemini, used)
    most = cost + 3700 * 7.5e-6
    assert providers.cost_of_another(gemini, request, done(request, used, cost)) == pytest.approx(most), "it may think"
    caption = made("openai", "caption")
    said = Request("a", "caption", (), TextParams(100, 0.0, 0), dialogue=(("user", "hi"),), images=("a",))
    used = {"text_in": 1000, "text_out": 50}
    cost = providers.cost_of(caption, used)
    twice = providers.cost_of(caption, used | {"text_out": 100})
    assert providers.cost_of_another(caption, said, done(said, used, cost)) == pytest.approx(twice)
    assert providers.cost_of_another(caption, said, done(said, {}, 0.5)) == 0.5, "counted at its maximum already"


def test_the_same_request_is_known_by_what_decides_its_cost(made, tmp_path):
    openai, picture = made("openai"), tmp_path / "a.png"
    picture.write_bytes(b"x")
    one = replace(request_for("edit", ("a",), images=1), images=(str(picture),), content="c")
    asks = {providers.ask_of(openai, one), providers.ask_of(openai, replace(one, row=7))}
    assert len(asks) == 1
    asks |= {providers.ask_of(openai, replace(one, content="d")), providers.ask_of(made("gemini"), one)}
    asks.add(providers.ask_of(openai, replace(one, params=replace(one.params, quality="high"))))
    picture.write_bytes(b"xy")
    asks.add(providers.ask_of(openai, one))
    picture.unlink()
    asks.add(providers.ask_of(openai, one))
    assert len(asks) == 6


def test_a_batch_api_costs_its_share(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    own = tmp_path / "own.toml"
    own.write_text('[openai.models.less]\nlike = "gpt-image-2"\nprice = { batch = 0.25 }\n')
    monkeypatch.setenv("FASTGEN_SERVICES", str(own))
    usage = {"text_in": 1000, "image_in": 1000, "image_out": 1000}
    for model, share in (("gpt-image-2", 0.5), ("less", 0.25)):
        flags = {"out": tmp_path, "backend": "openai", "model": model}
        direct, batched = (resolve("t2i", None, batch_api=by_file, **flags) for by_file in (False, True))
        row = Request("a", "t2i", ("a cat",), ImageParams(1024, 1024, 20, 3.5, 0, 1))
        assert providers.cost_of(batched, usage) == pytest.approx(share * providers.cost_of(direct, usage), abs=0)
        assert providers.estimate(batched, row) == pytest.approx(share * providers.estimate(direct, row), abs=0)
