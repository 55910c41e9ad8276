"""Implausible boxes are told from plausible ones without a true box."""

import numpy as np
import pytest

from wsol.boxes.plausibility import doubt

SIZES = [(200, 100)] * 5


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((5, 5, 195, 97), "the median box covers 87 % of its photo"),
        ((100, 50, 110, 60), "the median box covers 0.5 % of its photo"),
        ((0, 0, 0, 0), "the median box covers 0 % of its photo"),
        ((0, 0, 100, 50), "nearly all boxes touch two sides"),
        ((0, 20, 100, 50), None),
        ((50, 20, 150, 80), None),
    ],
)
def test_boxes_of_a_size_or_place_that_no_object_has_are_doubted(box, expected):
    said = doubt([box] * 5, SIZES)
    assert said is None if expected is None else expected in said
    assert doubt([box] * 4, SIZES[:4]) is None  # too few to say so
    mixed = [box] * 2 + [(50, 20, 150, 80)] * 3
    assert doubt(np.array(mixed), SIZES) is None
