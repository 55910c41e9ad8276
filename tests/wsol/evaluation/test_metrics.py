import numpy as np
import pytest

from wsol.evaluation.metrics import (
    best_threshold,
    bootstrap,
    class_means,
    max_box_acc,
    max_box_acc_v2,
    middle_argmax,
)


def test_worked_example():
    """Two images, three thresholds."""
    ious = np.array([[0.6, 0.5, 0.1], [0.2, 0.7, 0.4]])
    assert max_box_acc(ious) == 1.0
    assert best_threshold(ious) == 1
    assert max_box_acc(ious, 0.65) == 0.5
    assert max_box_acc_v2(ious) == pytest.approx((1.0 + 1.0 + 0.5) / 3)


def test_of_equal_thresholds_the_middle_one_is_taken():
    table = np.array([[0, 3, 1, 3, 3, 0], [2, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 1]])
    assert middle_argmax(table).tolist() == [3, 3, 5]
    assert best_threshold(np.array([[0.1, 0.6, 0.6, 0.6, 0.2]])) == 2


def test_class_means_by_hand():
    means = class_means([True, False, True, True], np.array([0, 0, 2, 2]), 3)
    np.testing.assert_array_equal(means, [0.5, np.nan, 1.0])


def test_an_interval_is_that_of_the_binomial():
    """The share of hits in a resample is binomial, whose quantiles SciPy knows."""
    from scipy.stats import binom

    hits = (np.arange(400) < 120).astype(np.float32)
    low, high = bootstrap(lambda drawn: drawn @ hits / 400, 400, resamples=4000)
    expected = binom.ppf([0.025, 0.975], 400, 0.3) / 400
    np.testing.assert_allclose([low, high], expected, atol=0.006)
    again = bootstrap(lambda drawn: drawn @ hits / 400, 400, resamples=4000)
    np.testing.assert_array_equal([low, high], again)
    assert (bootstrap(lambda drawn: drawn @ hits / 400, 400, seed=1) != [low, high]).any()


def test_an_interval_stays_within_what_is_possible():
    """5,794 hits of 5,794 are 1, not 1.0000013."""
    hits = np.ones((5794, 3), np.float32)
    ends = bootstrap(lambda drawn: (drawn @ hits).max(axis=1) / 5794, 5794, resamples=200)
    assert ends.tolist() == [1, 1]


def test_a_resample_without_a_value_is_left_out():
    values = bootstrap(lambda drawn: np.where(drawn[:, 0] > 0, 0.5, np.nan), 3)
    assert values.tolist() == [0.5, 0.5]
