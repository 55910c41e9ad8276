import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsol.metrics import (
    best_iou,
    best_threshold,
    largest_box_ious,
    localization_scores,
    max_box_acc,
    max_box_acc_v2,
    published_box_ious,
)


def test_iou_by_hand():
    assert best_iou([[0, 0, 2, 2]], [[1, 1, 3, 3]])[0] == pytest.approx(1 / 7)
    assert best_iou([[0, 0, 2, 2]], [[5, 5, 6, 6], [0, 0, 2, 1]])[0] == pytest.approx(0.5)
    assert best_iou([[0, 0, 0, 0]], [[0, 0, 2, 2]])[0] == 0
    assert best_iou([[0, 0, 0, 0]], [[0, 0, 0, 0]])[0] == 0
    # disjoint on both axes: the published ART code calls this 0.23
    assert best_iou([[0, 0, 101, 101]], [[150, 150, 201, 201]])[0] == 0


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


def test_a_planted_square_is_found_at_every_threshold():
    heatmap = np.zeros((40, 40))
    heatmap[10:20, 5:30] = 1
    ious = largest_box_ious(heatmap, np.arange(0, 1, 0.1), [[5, 10, 30, 20]])
    np.testing.assert_array_equal(ious, np.ones(10))


def test_scores_equal_the_reference_evaluator(shared):
    folder = shared / "fixtures" / "boxes"
    expected = json.loads((folder / "cub_test_scores.json").read_text())
    archive = np.load(folder / "cub_test_scores.npz")
    metadata = shared / "data" / "cub_metadata" / "test"
    sizes, truths = (_numbers(metadata / f) for f in ("image_sizes.txt", "localization.txt"))
    thresholds = np.arange(0, 1, expected["cam_threshold_interval"])
    rows = [
        published_box_ious(pixels / 255.0, thresholds, truths[name], sizes[name])
        for name, pixels in zip(archive["image_ids"], archive["scoremaps"], strict=True)
    ]
    largest, any_ = map(np.array, zip(*rows, strict=True))
    assert 100 * max_box_acc(largest) == expected["MaxBoxAcc"][0]
    assert [100 * max_box_acc(any_, t) for t in (0.3, 0.5, 0.7)] == expected["MaxBoxAccV2"]
    assert 100 * max_box_acc_v2(any_) == pytest.approx(np.mean(expected["MaxBoxAccV2"]))


def _numbers(file):
    rows = (line.split(",") for line in file.read_text().splitlines())
    return {name: tuple(map(int, values)) for name, *values in rows}
