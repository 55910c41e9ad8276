import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsol.metrics import (
    best_threshold,
    bootstrap,
    class_means,
    localization_scores,
    max_box_acc,
    max_box_acc_v2,
)


def test_worked_example():
    """Two images, three thresholds."""
    ious = np.array([[0.6, 0.5, 0.1], [0.2, 0.7, 0.4]])
    assert max_box_acc(ious) == 1.0
    assert best_threshold(ious) == 1
    assert max_box_acc(ious, 0.65) == 0.5
    assert max_box_acc_v2(ious) == pytest.approx((1.0 + 1.0 + 0.5) / 3)
    scores = localization_scores(ious[:, 0], np.array([False, True]), np.array([True, True]))
    assert scores == {"gt_known_loc": 0.5, "top1_loc": 0.0, "top5_loc": 0.5}


@given(
    st.lists(
        st.tuples(st.floats(0, 1, allow_subnormal=False), st.integers(0, 9)),
        min_size=1,
        max_size=30,
    ),
)
def test_identities(images):
    iou, ranks = (np.array(column) for column in zip(*images, strict=True))
    scores = localization_scores(iou, ranks == 0, ranks < 5)
    assert scores["top1_loc"] <= min(scores["gt_known_loc"], np.mean(ranks == 0))
    assert scores["top1_loc"] <= scores["top5_loc"] <= scores["gt_known_loc"]


def test_class_means_by_hand():
    means = class_means([True, False, True, True], np.array([0, 0, 2, 2]), 3)
    np.testing.assert_array_equal(means, [0.5, np.nan, 1.0])


def test_an_interval_is_that_of_the_binomial():
    """The share of hits in a resample is binomial, whose quantiles SciPy knows."""
    from scipy.stats import binom

    hits = (np.arange(400) < 120).astype(np.float32)
    low, high = bootstrap(lambda weights: weights @ hits, 400, resamples=4000)
    expected = binom.ppf([0.025, 0.975], 400, 0.3) / 400
    np.testing.assert_allclose([low, high], expected, atol=0.006)
    again = bootstrap(lambda weights: weights @ hits, 400, resamples=4000)
    np.testing.assert_array_equal([low, high], again)
    assert (bootstrap(lambda weights: weights @ hits, 400, seed=1) != [low, high]).any()
