"""What is known of the APIs: the data is sound, keys and addresses are found, what cannot be is said, costs are upper
bounds."""

from __future__ import annotations

import math
from datetime import date
from importlib import import_module

import msgspec
import pytest

from fastgen import providers
from fastgen.config import backends
from fastgen.errors import SettingsError
from fastgen.providers import endpoints
from fastgen.resolver import resolve
from fastgen.types import ImageParams, Request, TextParams

VARIABLES = (
    "OPENAI_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "DF_API_KEY",
    "DF_BASE_URL",
    "OPENAI_BASE_URL",
    "GOOGLE_GEMINI_BASE_URL",
    providers.OVERRIDE,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(providers.endpoints, "find_spec", lambda name: name)
    return monkeypatch.setenv


@pytest.fixture
def made(environment):
    """made(backend, task, **flags) -> Settings."""

    def make(backend, task="t2i", **flags):
        environment("OPENAI_API_KEY", "a")
        environment("GEMINI_API_KEY", "b")
        return resolve(task, None, backend=backend, **flags)

    return make


def request(task="t2i", prompts=("a cat",), size=(0, 0), n=1, images=0, mask="", **words):
    params = ImageParams(*size, 28, 3.5, 0, n, **words)
    return Request("a", task, prompts, params, images=tuple("abcdefghijklmnopqrs"[:images]), mask=mask)


def connect(backend, task="t2i", model="auto", base_url=None):
    spec = backends.get(backend)
    module, _, name = spec.locate.partition(":")
    return getattr(import_module(module), name)(spec, task, model, False, base_url, None)


def test_the_data_is_sound():
    date.fromisoformat(providers.as_of())
    for backend in backends.services():
        known = providers.data()[backend]
        for task, name in known["auto"].items():
            model = providers.find(backend, name)
            assert task in model.tasks and model.status == "live" and not model.until
        for name in known["models"]:
            model = providers.find(backend, name)
            assert model.tasks and model.until == (model.until and date.fromisoformat(model.until).isoformat())
            if model.successor:
                assert providers.find(backend, model.successor).status == "live"
            assert not (model.status == "retired" and not model.until)
            assert all(0.1 <= providers.capabilities._ratio(ratio) <= 10 for ratio in model.aspect_ratios)
            assert set(model.resolutions) <= set(providers.PIXELS)
            if model.price:
                words = model.qualities if backend == "openai" else model.resolutions
                assert set(words) == set(model.price.effort or model.price.picture_tokens)


@pytest.mark.parametrize(
    "backend, variables, given, key, url",
    [
        ("openai", {"OPENAI_API_KEY": "k"}, None, "OPENAI_API_KEY", ""),
        (
            "openai",
            {"OPENAI_API_KEY": "k", "DF_API_KEY": "d", "DF_BASE_URL": "http://d/v1"},
            None,
            "OPENAI_API_KEY",
            "",
        ),
        ("openai", {"DF_API_KEY": "d", "DF_BASE_URL": "http://d/v1"}, None, "DF_API_KEY", "http://d/v1"),
        ("openai", {"DF_API_KEY": "d", "OPENAI_BASE_URL": "http://o/v1"}, None, "DF_API_KEY", "http://o/v1"),
        (
            "openai",
            {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://o/v1"},
            "http://g/v1",
            "OPENAI_API_KEY",
            "http://g/v1",
        ),
        ("openai", {}, "http://g:1", "", "http://g:1/v1"),
        ("openai", {}, "http://g:1/other/", "", "http://g:1/other"),
        ("gemini", {"GEMINI_API_KEY": "k", "GOOGLE_API_KEY": "g"}, None, "GEMINI_API_KEY", ""),
        ("gemini", {"GOOGLE_API_KEY": "g", "GOOGLE_GEMINI_BASE_URL": "http://q"}, None, "GOOGLE_API_KEY", "http://q"),
        ("gemini", {"DF_API_KEY": "d", "DF_BASE_URL": "http://d/v1"}, None, "DF_API_KEY", "http://d/v1"),
    ],
)
def test_keys_and_addresses(environment, backend, variables, given, key, url):
    for name, value in variables.items():
        environment(name, value)
    card, endpoint, notes = connect(backend, base_url=given)
    assert (endpoint.key_name, endpoint.base_url) == (key, url)
    assert card.name == providers.data()[backend]["auto"]["t2i"] and (card.family, card.grid) == ("api", 1)
    assert bool(key) or any("without a key" in note for note in notes)


@pytest.mark.parametrize(
    "backend, name", [("openai", "OPENAI_API_KEY"), ("gemini", "DF_API_KEY"), ("vllm", "VLLM_API_KEY")]
)
def test_a_key_that_cannot_be_sent_is_refused_without_telling_it(environment, backend, name):
    for broken in ("se\ncret", "sécret"):
        environment(name, broken)
        with pytest.raises(SettingsError, match=name) as caught:
            connect(backend, "caption", "a-vlm", "http://127.0.0.1:9/v1")
        assert "cret" not in str(caught.value)
    environment(name, " secret\r\n")
    connect(backend, "caption", "a-vlm", "http://127.0.0.1:9/v1")
    assert providers.key_of(name) == "secret", "the line break of the file that it came from is no part of it"


def test_where_a_version_stands_in_an_address():
    cases = {
        "http://a/v1": ("http://a", "v1"),
        "http://a/x/v1beta/": ("http://a/x", "v1beta"),
        "http://a": ("http://a", ""),
        "": ("", ""),
    }
    assert {given: providers.gemini_endpoint(given) for given in cases} == cases


def test_what_is_missing_is_named(environment, monkeypatch):
    for backend, said in (
        ("openai", "OPENAI_API_KEY or DF_API_KEY"),
        ("gemini", "GEMINI_API_KEY or GOOGLE_API_KEY or DF_API_KEY"),
    ):
        with pytest.raises(SettingsError, match=said):
            connect(backend)
    environment("GEMINI_API_KEY", "k")
    with pytest.raises(SettingsError, match="--model"):
        connect("gemini", "caption")
    with pytest.raises(SettingsError, match="--base-url ftp"):
        connect("gemini", base_url="ftp://a")
    for backend in ("openai", "gemini", "vllm"):
        for address, said in (
            ("http://[a", "not an address"),
            ("http://u:secret@a/v1", "password"),
            ("http://a:b/v1", "not an address"),
        ):
            with pytest.raises(SettingsError, match=said) as caught:
                connect(backend, "caption", "a-vlm", address)
            assert "secret" not in str(caught.value)
    monkeypatch.setattr(providers.endpoints, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'fastgen-mm\[api\]'"):
        connect("gemini")


@pytest.mark.parametrize(
    "backend, model, says",
    [
        ("openai", "dall-e-3", "was shut down on 2026-05-12; its successor is gpt-image-2"),
        ("openai", "gpt-image-1", "was shut down on 2026-10-23"),
        ("openai", "gpt-4o", "2027-01-14"),
        ("gemini", "gemini-3-pro-image-preview", "was shut down on 2026-06-25; its successor is gemini-3-pro-image"),
        ("gemini", "gemini-2.5-flash-image", "sources disagree"),
        ("openai", "my-own", "not among the models"),
        ("openai", "gpt-image-2-2026-04-21", ""),
        ("gemini", "models/gemini-3-pro-image", ""),
    ],
)
def test_what_is_said_of_a_model(environment, backend, model, says):
    environment("DF_API_KEY", "k")
    card, _, notes = connect(backend, model=model)
    said = [note for note in notes if note.startswith("--model")]
    assert card.name == model and (says in said[0] if says else not said)


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
    reason = providers.refuse(settings, request(**about))
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
    assert {size: providers.shape(settings, request(size=size).params) for size in cases} == cases
    assert providers.shape(settings, request(size=(1024, 1024), resolution="4K").params) == ("1:1", "4K")
    assert providers.shape(settings, request(aspect_ratio="auto").params) == ("", "")


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
        params = request(size=(width, 1024), quality=quality).params
        assert providers.price(openai).out_of_picture(params) == pytest.approx(usd, abs=0.0006), "the vendor's list"
    assert providers.estimate(openai, request()) > 0.211, "auto is the dearest"
    assert providers.estimate(openai, request(n=4)) == pytest.approx(
        4 * providers.estimate(openai, request()), rel=0.01
    )
    two = providers.estimate(openai, request("edit", ("a", "b"), images=2))
    assert two > 2 * providers.estimate(openai, request()) and math.isfinite(two)
    gemini = made("gemini")
    assert providers.estimate(gemini, request(resolution="1K")) < providers.estimate(gemini, request())
    assert providers.cost_of(gemini, {"image_out": 1120}) == pytest.approx(0.0336)
    caption = made("openai", "caption")
    one = Request("a", "caption", (), TextParams(100, 0.0, 0), dialogue=(("user", "hi"),), images=("a",))
    assert 0 < providers.cost_of(caption, {"text_in": 1000, "text_out": 50}) < providers.estimate(caption, one)
    for settings in (made("fake"), made("openai", model="my-own")):
        assert providers.price(settings) is None and providers.estimate(settings, request()) == 0.0
        assert providers.cost_of(settings, {"image_out": 9}) == 0.0


@pytest.mark.parametrize(("quality", "tokens"), [("low", 664), ("high", 1353), ("", 5800)])
def test_what_was_measured_lies_below_what_is_reckoned_with(made, quality, tokens):
    settings = made("openai", model="gpt-image-2.6-sunburst")
    size = (1536, 1024) if quality else (0, 0)
    assert providers.estimate(settings, request(size=size, quality=quality)) > tokens * 30e-6
    settings = made("openai", model="gpt-image-2.5-flare")  # low and medium take a third to a quarter there
    assert providers.estimate(settings, request(size=(1536, 1024), quality="low")) > 664 / 3 * 30e-6


def test_ones_own_file_goes_over_it(made, environment, tmp_path):
    own = tmp_path / "own.toml"
    environment(providers.OVERRIDE, str(own))
    own.write_text(
        '[openai]\nauto = { t2i = "mine" }\n[openai.models.mine]\nlike = "gpt-image-2"\nqualities = ["odd"]\n'
        "price = { image_out = 1.0 }\n[openai.models.gpt-image-2]\nmost_pictures = 2\n"
    )
    settings = made("openai")
    assert settings.model.name == "mine" and not providers.refuse(settings, request(quality="odd"))
    assert "takes 2 at most" in providers.refuse(settings, request("edit", images=3))
    assert providers.price(settings).image_out == 1.0 and providers.price(settings).effort["high"] == 96
    assert providers.find("openai", "gpt-image-2").qualities == ("low", "medium", "high")
    for text, said in {
        "[openai.models.mine]\nprize = 1": "openai.models.mine: .*prize",
        "[openai]\nmodel = 1": "model",
        "[azure]": "azure",
        "[openai.models.mine]\nmost_n = 'ten'": "openai.models.mine.*most_n",
        "no toml": "own.toml",
    }.items():
        own.write_text(text)
        with pytest.raises(SettingsError, match=said) as caught:
            providers.find("openai", "mine")
        assert str(own) in str(caught.value) and providers.OVERRIDE in str(caught.value)
    environment(providers.OVERRIDE, str(tmp_path / "none.toml"))
    with pytest.raises(SettingsError, match=r"none\.toml"):
        providers.find("openai", "mine")


def test_it_is_only_data(made):
    settings = made("openai", "edit")
    assert msgspec.convert(msgspec.to_builtins(settings), type(settings)) == settings
    assert providers.refuse(settings, request("edit", images=1)) == ""


@pytest.mark.parametrize(
    "url", ["http://user:pa/ss@host:80/v1", "https://user:pa/ss@host:99999/v1", "http://pa-ss@host/v1"]
)
def test_a_password_in_an_address_is_said_nowhere(url):
    with pytest.raises(SettingsError) as error:
        endpoints.path_of(url, "--base-url")
    assert "pa/ss" not in str(error.value) and "pa-ss" not in str(error.value)
