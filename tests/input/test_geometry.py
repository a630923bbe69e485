"""The first picture lies on what is rendered, corner on corner; sizes are ones that the model knows, or near them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgen.config import backends
from fastgen.config.families import KONTEXT_SIZES
from fastgen.config.model_cards import TINY, Defaults, locate_fake, read_card
from fastgen.input.geometry import fit, lay_out, stitched_width

FAKE = locate_fake(backends.get("fake"), "t2i", "auto", False, None, None)[0]
KONTEXT = msgspec.structs.replace(FAKE, defaults=Defaults(preferred_sizes=KONTEXT_SIZES))
CARDS = {"plain": FAKE, "kontext": KONTEXT, "tiny": read_card("tiny", TINY)}
sides = st.integers(1, 9000)
shapes = st.tuples(sides, sides)


@given(width=sides, height=sides)
def test_every_shape_fits_the_grid_and_the_budget(width, height):
    w, h = fit((width, height), FAKE)
    assert w % 16 == h % 16 == 0 and min(w, h) >= 16 and w * h <= 2 * 64 * 64
    aspect = min(max(width / height, 1 / 16), 16)
    assert w / h == pytest.approx(aspect, rel=0.55)


def test_kontext_takes_the_size_nearest_in_shape():
    assert fit((1000, 1000), KONTEXT) == (1024, 1024)
    assert fit((1600, 900), KONTEXT) == (1392, 752)
    assert fit((900, 2100), KONTEXT) == (672, 1568)


def test_what_is_wider_than_all_that_it_knows_keeps_its_own_shape():
    """Squashed to the nearest known size a panorama would lose half of its detail in one direction."""
    assert fit((3000, 1000), KONTEXT) == (2016, 672)
    assert fit((500, 2000), KONTEXT) == (672, 2688)
    wide = fit((8000, 1000), KONTEXT)
    assert wide == (3808, 480) and wide[0] * wide[1] == pytest.approx(2688 * 672, rel=0.02)


@given(shape=shapes, masked=st.booleans(), others=st.lists(shapes, max_size=5), name=st.sampled_from(sorted(CARDS)))
def test_the_first_picture_lies_on_what_is_rendered(shape, masked, others, name):
    card = CARDS[name]
    layout = lay_out([shape, *others], None, masked, card)
    assert layout.places[0] == (0, 0, *layout.render)
    assert layout.saved == (shape if masked else layout.render)
    assert all(side % 16 == 0 for side in layout.reference)
    assert layout.reference[1] == layout.render[1] or layout.reference[0] == layout.render[0]
    assert len(layout.places) == 1 + len(others) and (others or layout.reference == layout.render)
    assert layout.render[0] * layout.render[1] <= card.defaults.max_pixels


@given(shape=shapes, asked=st.sampled_from([(64, 64), (256, 64), (64, 512)]), others=st.lists(shapes, max_size=3))
def test_with_a_mask_that_holds_for_a_size_that_is_asked_for_too(shape, asked, others):
    layout = lay_out([shape, *others], asked, True, FAKE)
    assert layout.render == layout.saved == asked and layout.places[0] == (0, 0, *asked)


def test_without_a_mask_the_picture_keeps_its_shape_beside_another_size():
    layout = lay_out([(300, 150)], (64, 64), False, FAKE)
    assert layout.render == layout.saved == (64, 64) and layout.reference == (96, 48) == layout.places[0][2:]
    assert lay_out([(300, 151)], (96, 48), False, FAKE).reference == (96, 48), "nearly that shape is that shape"


@given(first=shapes, others=st.lists(shapes, min_size=1, max_size=15))
def test_further_pictures_lie_beside_it_and_not_on_each_other(first, others):
    layout = lay_out([first, *others], None, True, KONTEXT)
    wide, high = layout.reference
    assert wide * high <= 2.6 * layout.render[0] * layout.render[1], "however many there are, they cost so much at most"
    for number, (left, top, w, h) in enumerate(layout.places):
        assert w >= 1 and h >= 1 and left >= 0 and top >= 0 and left + w <= wide + 1 and top + h <= high + 1
        for x, y, w2, h2 in layout.places[:number]:
            assert min(left + w, x + w2) - max(left, x) <= 1 or min(top + h, y + h2) - max(top, y) <= 1


def test_two_of_a_kind_lie_side_by_side_at_one_height():
    layout = lay_out([(1024, 1024), (500, 500)], None, False, KONTEXT)
    assert layout.reference == (2048, 1024) and layout.places[1] == (1024, 0, 1024, 1024)
    five = lay_out([(1024, 1024)] * 5, None, False, KONTEXT)
    tall = lay_out([(500, 1000), (500, 500)], None, False, KONTEXT)
    assert tall.places[1] == (0, 1456, 720, 720) and tall.reference == (720, 2176), "a tall one has them below"
    assert five.reference == (2048, 1024) and [place[2:] for place in five.places[1:]] == [(512, 512)] * 4


def test_stitched_width():
    assert stitched_width((30, 10), 20) == 60 and stitched_width((1, 9000), 1) == 1
