import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsol.benchmarks.opencv_reference import reference_largest_boxes
from wsol.boxes.component_tree import boxes_by_cut, largest_by_cut
from wsol.boxes.geometry import iou, published_boxes, published_truth, rescale
from wsol.boxes.heatmap_boxes import (
    all_boxes,
    best_of_all_boxes,
    cuts,
    largest_boxes,
    outer_boxes,
    to_bytes,
    to_float32,
)


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


def assert_as_opencv(pixels):
    largest, (boxes, spans) = largest_by_cut(pixels), boxes_by_cut(pixels)
    for cut in sorted({0, 254, *np.unique(pixels).tolist(), *(np.unique(pixels) - 1).clip(0)}):
        binary = (pixels > cut).astype(np.uint8)
        contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        expected = [[x, y, x + w, y + h] for x, y, w, h in map(cv2.boundingRect, contours)]
        there = (spans[:, 0] <= cut) & (cut <= spans[:, 1])
        assert sorted(boxes[there].tolist()) == sorted(expected)
        areas = [cv2.contourArea(contour) for contour in contours]
        first = expected[areas.index(max(areas))] if expected else [0, 0, 0, 0]
        assert largest[cut].tolist() == first


def test_boxes_of_all_cuts_equal_opencvs_on_many_kinds_of_map():
    """Shapes from one pixel up: plateaus, single pixels, holes in holes, smooth blobs, lines."""
    rng = np.random.default_rng(0)
    for _ in range(400):
        shape = tuple(rng.integers(1, 24, 2))
        values = rng.choice([2, 3, 6, 20, 256])
        noise = rng.integers(0, values, shape) * (255 // (values - 1))
        assert_as_opencv(noise.astype(np.uint8))
        assert_as_opencv((noise * (rng.random(shape) < 0.2)).astype(np.uint8))
        assert_as_opencv(np.where(rng.random(shape) < 0.7, noise.max(), noise).astype(np.uint8))
        assert_as_opencv(cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 1).astype(np.uint8))
        lines = np.zeros(shape, np.uint8)
        for _ in range(rng.integers(1, 6)):
            ends = [tuple(map(int, rng.integers(0, shape[::-1]))) for _ in range(2)]
            cv2.line(lines, *ends, int(rng.integers(1, 256)))
            cv2.rectangle(lines, *ends, int(rng.integers(1, 256)))
        assert_as_opencv(lines)


@settings(max_examples=300, deadline=None)
@given(
    hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.sampled_from([0, 1, 100, 254, 255]) | st.integers(0, 255),
    )
)
def test_boxes_of_all_cuts_equal_opencvs(pixels):
    assert_as_opencv(pixels)


def test_a_constant_map_and_a_large_one():
    for value in (0, 1, 255):
        assert_as_opencv(np.full((5, 300), value, np.uint8))
    hill = np.hypot(*np.mgrid[-1:1:700j, -1:1:900j])
    pixels = ((1 - hill / hill.max()) * 255).astype(np.uint8)
    assert largest_by_cut(pixels)[0].tolist() == literal(pixels / 255.0, 0)[0]


def test_among_equal_areas_the_contour_that_begins_last_counts():
    """Lines that grow upwards have area 0, so another one of the equal areas counts."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        pixels = np.zeros((12, 12), np.uint8)
        for x in range(0, 12, 2):
            y = rng.integers(2, 12)
            pixels[y, x] = rng.integers(100, 104)
            pixels[y - rng.integers(0, 3) : y, x] = rng.integers(90, 100)
        assert_as_opencv(pixels)


@settings(max_examples=100, deadline=None)
@given(
    pixels=hnp.arrays(np.uint8, (6, 8), elements=st.sampled_from([0, 60, 120, 255])),
    truth=st.tuples(*[st.integers(0, 5)] * 4),
)
def test_the_best_iou_of_all_boxes_at_each_cut(pixels, truth):
    x0, y0, width, height = truth
    truths = np.array([[x0, y0, x0 + width + 1, y0 + height + 1], [1, 1, 4, 3]])
    best = best_of_all_boxes(pixels, truths)
    for cut in (0, 59, 60, 130, 254):
        boxes = [literal_boxes(pixels, cut)]
        expected = iou(published_boxes(np.array(boxes[0]), (8, 6))[:, None], truths).max()
        assert best[cut] == expected


def literal_boxes(pixels, cut):
    binary = (pixels > cut).astype(np.uint8)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    boxes = [[x, y, x + w, y + h] for x, y, w, h in map(cv2.boundingRect, contours)]
    return boxes or [[0, 0, 0, 0]]


def test_iou_by_hand():
    assert iou([0, 0, 2, 2], [1, 1, 3, 3]) == pytest.approx(1 / 7)
    assert iou([[0, 0, 2, 2]] * 2, [[5, 5, 6, 6], [0, 0, 2, 1]]).tolist() == [0, 0.5]
    assert iou([0, 0, 0, 0], [[0, 0, 2, 2], [0, 0, 0, 0]]).tolist() == [0, 0]
    # disjoint on both axes: the published ART code calls this 0.23
    assert iou([0, 0, 101, 101], [150, 150, 201, 201]) == 0


@pytest.mark.parametrize("box", [[3, 0, 1, 2], [0, 3, 2, 1], [3, 3, 1, 1]])
def test_iou_refuses_boxes_that_are_upside_down(box):
    good = [[0, 0, 2, 2], [1, 1, 1, 4]]
    for pair in ((box, good), (good, box), ([good[0], box], good), (np.array(box), np.array(box))):
        with pytest.raises(ValueError, match=f"x0 <= x1 and y0 <= y1, not .{box[0]}, {box[1]}, "):
            iou(*pair)


def test_float32_keeps_every_byte():
    """Also of values that would round across the limit between two bytes."""
    limits = np.arange(256) / 255
    near = [np.nextafter(limits, side) for side in (0, 1)]
    heatmap = np.stack(
        [limits, *near, limits * (1 - 1e-9), *np.random.default_rng(0).random((2, 256))]
    )
    rounded = to_float32(heatmap)
    assert rounded.dtype == np.float32
    np.testing.assert_array_equal(to_bytes(rounded), to_bytes(heatmap))
    assert (to_bytes(heatmap.astype(np.float32)) != to_bytes(heatmap)).any()  # not vacuous
    np.testing.assert_allclose(rounded, heatmap, rtol=0, atol=2**-23)
    assert (rounded.min(), rounded.max()) == (0, 1)
    np.testing.assert_array_equal(to_float32(rounded), rounded)


def test_bytes_and_cuts_are_truncated():
    assert to_bytes(np.array([[0.5, 0.999, 1.0]])).tolist() == [[127, 254, 255]]
    assert cuts([0, 0.5, 0.999, 1], 255).tolist() == [0, 127, 254, 255]
    assert cuts([0.5, 1], [10, 0]).tolist() == [[5, 10], [0, 0]]


def test_the_largest_area_counts_not_the_most_pixels():
    """A line one pixel wide has contour area 0."""
    heatmap = np.zeros((20, 20))
    heatmap[0, :] = 1
    heatmap[10:13, 5:8] = 1
    assert largest_boxes(heatmap, [0.5]).tolist() == [[5, 10, 8, 13]]


def test_without_pixels_above_the_threshold_the_box_is_zeros():
    assert largest_boxes(np.zeros((5, 7)), [0.0, 0.9]).tolist() == [[0] * 4, [0] * 4]
    assert all_boxes(np.ones((5, 7)), 1.0).tolist() == [[0] * 4]


@pytest.mark.parametrize(
    ("heatmap", "thresholds", "message"),
    [
        (np.zeros((2, 2, 2)), [0.5], "shape"),
        (np.zeros((0, 2)), [0.5], "shape"),
        (np.zeros((1, 40000)), [0.5], "sides"),
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
        _, spans = boxes_by_cut(to_bytes(heatmap))
        at = cuts(np.arange(0, 1, 0.01), to_bytes(heatmap).max())[:, None]
        counts = ((spans[:, 0] <= at) & (at <= spans[:, 1])).sum(axis=1).clip(min=1)
        np.testing.assert_array_equal(counts, archive[f"{name}_count"], name)


def literal_outer(heatmap, threshold):
    """OpenCV's outer contours, the largest contour area first, as published."""
    pixels = (heatmap * 255).astype(np.uint8)
    binary = (pixels > int(threshold * pixels.max())).astype(np.uint8)
    contours, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    ordered = sorted(contours, key=cv2.contourArea, reverse=True)
    return [[x, y, x + w, y + h] for x, y, w, h in map(cv2.boundingRect, ordered)] or [[0] * 4]


def test_all_functions_give_opencvs_box():
    """One box, several boxes, and every threshold, on smooth maps, ties and holes in holes."""
    rng = np.random.default_rng(2)
    thresholds = np.array([0, 0.2, 0.5, 0.8, 0.99, 1])
    for _ in range(150):
        shape = tuple(rng.integers(1, 40, 2))
        noise = rng.random(shape)
        few_values = rng.integers(0, 3, shape) / 2
        smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
        for heatmap in (noise, few_values, noise * (noise > 0.8), smooth, np.float64(noise > 0.3)):
            largest = largest_boxes(heatmap, thresholds)
            np.testing.assert_array_equal(largest, reference_largest_boxes(heatmap, thresholds))
            for threshold, expected in zip(thresholds, largest, strict=True):
                found = outer_boxes(heatmap, threshold)
                np.testing.assert_array_equal(found[0], expected)
                assert found.tolist() == literal_outer(heatmap, threshold)


def test_several_boxes_by_hand():
    heatmap = np.zeros((20, 30))
    heatmap[1:4, 1:4] = heatmap[8:18, 10:28] = heatmap[1:6, 20:26] = 1
    heatmap[10:14, 14:20] = 0  # a hole is no object
    heatmap[11:13, 16:18] = 1  # nor is what lies in a hole
    assert outer_boxes(heatmap, 0.5).tolist() == [[10, 8, 28, 18], [20, 1, 26, 6], [1, 1, 4, 4]]
    assert outer_boxes(np.zeros((5, 5)), 0.5).tolist() == [[0, 0, 0, 0]]
