"""Who may begin at a smaller size, and what the choice is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fastgen.config import optimizations
from fastgen.config.optimizations import Progressive
from fastgen.errors import SettingsError
from fastgen.resolver import progressive, resolve


def tiny(task="t2i", **flags):
    return resolve(task, model="tiny", gpus="cpu", **flags)


def test_only_the_images_of_flux_1_from_text():
    assert tiny(progressive="0.5").optimizations.progressive == Progressive(0.5, 0.25)
    assert tiny("edit", progressive="none").optimizations.progressive.is_plain
    with pytest.raises(SettingsError, match=r"--progressive 0.5:0.25: only t2i supports it"):
        tiny("edit", progressive="0.5")
    card = SimpleNamespace(family="z_image", name="z-image")
    profile = optimizations.Sets(fast=optimizations.Options(progressive="0.5"))
    chosen = optimizations.resolve("fast", profile, "profile 'p'", {})
    with pytest.raises(
        SettingsError, match=r"\(chosen by profile 'p', quality fast\): only FLUX.1 .* z-image is not one"
    ):
        progressive.check("t2i", card, chosen)


def test_it_is_in_the_fingerprint_only_if_it_is_chosen():
    plain, half = tiny().fingerprint(), tiny(progressive="0.5").fingerprint()
    assert tiny(progressive="none").fingerprint() == plain != half == tiny(progressive="0.5:0.25").fingerprint()
    assert "progressive" not in tiny().optimizations.as_table()
    assert tiny(progressive="0.5").optimizations.as_table()["progressive"] == {"is": "0.5:0.25", "why": "--progressive"}


@pytest.mark.parametrize(
    "word", ["", ":", "1", "0.2", "2", "nan", "half", "0.5:", "0.5:0", "0.5:0.8", "0.5:nan", "-0.5"]
)
def test_what_is_no_scale_and_share(word):
    with pytest.raises(ValueError, match="SCALE:SHARE"):
        Progressive.parse(word)


@pytest.mark.parametrize(("steps", "small"), [(1, 0), (3, 0), (4, 1), (12, 3), (28, 7), (50, 12)])
def test_a_quarter_of_the_steps(steps, small):
    assert Progressive.parse("0.5").steps(steps) == small
