import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsol.boxes import all_boxes, largest_boxes, published_boxes, published_truth, rescale


def literal(heatmap, threshold):
    """The published protocol (wsolevaluation), step by step, half-open."""
    pixels = (heatmap * 255).astype(np.uint8)
    cut = int(threshold * pixels.max())
    _, binary = cv2.threshold(pixels, cut, 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [0, 0, 0, 0], [[0, 0, 0, 0]]
    boxes = [[x, y, x + w, y + h] for x, y, w, h in map(cv2.boundingRect, contours)]
    areas = [cv2.contourArea(contour) for contour in contours]
    return boxes[areas.index(max(areas))], boxes


@settings(max_examples=200, deadline=None)
@given(
    heatmap=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.sampled_from([0, 0.2, 0.5, 0.7, 1.0]) | st.floats(0, 1, allow_subnormal=False),
    ),
    thresholds=st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=5),
)
def test_boxes_equal_a_literal_reading_of_the_protocol(heatmap, thresholds):
    expected = [literal(heatmap, t) for t in thresholds]
    assert largest_boxes(heatmap, thresholds).tolist() == [largest for largest, _ in expected]
    assert all_boxes(heatmap, thresholds[0]).tolist() == expected[0][1]


def test_the_largest_area_wins_not_the_most_pixels():
    """A one-pixel-wide line has contour area 0, however long."""
    heatmap = np.zeros((20, 20))
    heatmap[0, :] = 1
    heatmap[10:13, 5:8] = 1
    assert largest_boxes(heatmap, [0.5]).tolist() == [[5, 10, 8, 13]]


def test_nothing_above_the_threshold_gives_zeros():
    assert largest_boxes(np.zeros((5, 7)), [0.0, 0.9]).tolist() == [[0] * 4, [0] * 4]
    assert all_boxes(np.ones((5, 7)), 1.0).tolist() == [[0] * 4]


@pytest.mark.parametrize(
    ("heatmap", "thresholds", "message"),
    [
        (np.zeros((2, 2, 2)), [0.5], "shape"),
        (np.full((2, 2), np.nan), [0.5], "NaN"),
        (np.full((2, 2), 1.5), [0.5], r"\[0,1\]"),
        (np.zeros((2, 2)), [1.5], "thresholds"),
        (np.zeros((2, 2)), 0.5, "thresholds"),
    ],
)
def test_bad_maps_and_thresholds_are_refused(heatmap, thresholds, message):
    with pytest.raises(ValueError, match=message):
        largest_boxes(heatmap, thresholds)


def test_conversions_by_hand():
    assert rescale([[1, 2, 3, 4]], (10, 20), (20, 10)).tolist() == [[2, 1, 6, 2]]
    boxes = np.array([[1, 2, 5, 6], [0, 0, 10, 8], [0, 0, 0, 0]])
    assert published_boxes(boxes, (10, 8)).tolist() == [[1, 2, 6, 7], [0, 0, 10, 8], [0, 0, 1, 1]]
    assert published_truth([60, 27, 385, 331], (500, 335), (224, 224)).tolist() == [
        26,
        18,
        173,
        222,
    ]


def test_boxes_equal_the_reference_evaluator(shared):
    archive = np.load(shared / "fixtures" / "boxes" / "boxes.npz")
    names = sorted(name.removesuffix("_map") for name in archive if name.endswith("_map"))
    assert len(names) > 20
    for name in names:
        heatmap = archive[f"{name}_map"] / 255.0
        height, width = heatmap.shape
        last = (width, height, width - 1, height - 1)

        def reference(boxes, last=last):
            return np.where(boxes.any(axis=1, keepdims=True), np.minimum(boxes, last), boxes)

        largest = largest_boxes(heatmap, np.arange(0, 1, 0.01))
        np.testing.assert_array_equal(reference(largest), archive[f"{name}_largest"], name)
        for threshold, key in ((0.2, "_all_at_020"), (0.5, "_all_at_050")):
            boxes = sorted(reference(all_boxes(heatmap, threshold)).tolist())
            assert boxes == archive[name + key].tolist(), (name, threshold)
        counts = [len(all_boxes(heatmap, t)) for t in np.arange(0, 1, 0.01)]
        np.testing.assert_array_equal(counts, archive[f"{name}_count"], name)
