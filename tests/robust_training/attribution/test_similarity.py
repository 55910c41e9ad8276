"""Similarity of two maps: rows of tensors, and the measures of reports."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from robust_training.attribution.similarity import (
    MEASURES,
    centre_shift,
    local_top_k_intersection,
    pearson,
    similarities,
    top_k_intersection,
)

MAPS = arrays.arrays(float, (12, 13), elements=st.integers(0, 9).map(float))


def test_top_k_intersection_by_hand():
    first = torch.tensor([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5]])
    second = torch.tensor([[5.0, 1, 4, 2, 3], [1, 2, 3, 4, 5]])
    torch.testing.assert_close(top_k_intersection(first, second, 2), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(top_k_intersection(first, second, 5), torch.ones(2))
    for k in (0, 6):
        with pytest.raises(ValueError, match="1 to the 5 pixels"):
            top_k_intersection(first, second, k)


def test_pearson_equals_numpy_and_is_zero_for_a_constant():
    rows = torch.randn(2, 4, 30, dtype=torch.float64)
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*rows, strict=True)]
    torch.testing.assert_close(pearson(*rows), torch.stack(expected), rtol=1e-6, atol=1e-6)
    assert pearson(torch.ones(5), torch.randn(5)) == 0


def test_equal_pixels_are_ranked_in_their_order():
    zeros, corner = torch.zeros(1, 100), torch.zeros(1, 100)
    corner[:, :10] = 1
    assert top_k_intersection(zeros, corner, 10) == 1
    assert top_k_intersection(zeros, corner.flip(1), 10) == 0


@settings(max_examples=40, deadline=None)
@given(first=MAPS, second=MAPS, k=st.integers(1, 156))
def test_every_measure_is_defined_symmetric_and_one_for_equal_maps(first, second, k):
    found, back = similarities(first, second, k), similarities(second, first, k)
    assert all(np.isfinite(value) for value in found.values())
    assert found == pytest.approx(back)
    assert found["local_top_k_intersection"] >= found["top_k_intersection"]
    same = similarities(first, first, k)
    assert same.pop("centre_shift") == 0
    assert same == pytest.approx(dict.fromkeys(same, 1.0))


def test_rank_measures_equal_scipys():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, (2, 20, 20)).astype(float)
    found = similarities(first, second, 10)
    expected = stats.kendalltau(first.ravel(), second.ravel(), variant="b").statistic
    assert found["kendall"] == pytest.approx(expected)
    expected = stats.spearmanr(first.ravel(), second.ravel()).statistic
    assert found["spearman"] == pytest.approx(expected)


def test_top_k_of_two_maps_by_hand():
    first, second = np.zeros((2, 5, 5))
    first[1, 1], first[3, 3] = 2, 1
    second[1, 2], second[3, 3] = 2, 1
    assert similarities(np.pad(first, 1), np.pad(second, 1), 2)["top_k_intersection"] == 0.5
    assert local_top_k_intersection(first, second, 2) == 1
    second = np.roll(first, 2, axis=1)
    assert local_top_k_intersection(first, second, 2, radius=1) == 0
    assert local_top_k_intersection(first, second, 2, radius=2) == 1


def test_centre_shift_by_hand():
    first, second = np.zeros((2, 8, 9))
    first[2, 3] = 5
    second[5, 7] = 0.1
    assert centre_shift(first, second, 1) == 5
    assert centre_shift(np.zeros((8, 9)), first, 1) == pytest.approx(np.hypot(3 - 2, 4 - 3))


def test_constant_maps_have_no_nan():
    constant, other = np.ones((12, 12)), np.arange(144.0).reshape(12, 12)
    for pair in ((constant, other), (np.zeros((12, 12)), other), (constant, constant)):
        assert all(np.isfinite(value) for value in similarities(*pair, 5).values())
    assert similarities(constant, other, 5)["kendall"] == 0
    assert similarities(constant, 2 * constant, 5)["spearman"] == 1


@pytest.mark.parametrize(
    ("first", "second", "k", "word"),
    [
        (np.ones((6, 6)), np.ones((6, 7)), 1, "compared"),
        (np.ones((6, 6)), np.ones((6, 6)), 37, "1 to the 36 pixels"),
        (np.ones((6, 6)), np.ones((6, 6)), 0, "1 to the 36 pixels"),
        (np.ones((5, 9)), np.ones((5, 9)), 1, "at least 6 pixels"),
        (np.ones((6, 6)), -np.ones((6, 6)), 1, "at least 0"),
        (np.ones((6, 6)), np.full((6, 6), np.nan), 1, "finite"),
    ],
)
def test_maps_that_cannot_be_compared(first, second, k, word):
    with pytest.raises(ValueError, match=word):
        similarities(first, second, k)
    assert len(MEASURES) == 7
