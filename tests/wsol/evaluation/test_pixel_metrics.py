"""Heatmaps against masks."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.birds import THRESHOLDS, birds, planted
from wsol.annotations.ground_truth import MaskFiles
from wsol.evaluation.box_table import box_row, split_row, stack_rows
from wsol.evaluation.pixel_metrics import bin_edges, pixel_counts, pixel_scores, read_mask
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scores import score_heatmaps


def test_perfect_and_constant_maps_against_masks():
    rng = np.random.default_rng(0)
    mask = (rng.random((30, 20)) < 0.3).astype(np.int8)
    edges = bin_edges(np.arange(0, 1, 0.001))
    perfect = pixel_scores(pixel_counts(mask.astype(float), mask, edges))
    assert perfect == {"pxap": 1.0, "piou": 1.0}
    for value in (0.0, 0.5, 1.0):
        constant = pixel_scores(pixel_counts(np.full(mask.shape, value), mask, edges))
        assert constant["pxap"] == pytest.approx(mask.mean())
        assert constant["piou"] == pytest.approx(mask.mean())
    # two object pixels at .9 and .1, two of background at .5 and .1: by hand
    heatmap, mask = np.array([[0.9, 0.1, 0.5, 0.1]]), np.array([[1, 1, 0, 0]], np.int8)
    by_hand = pixel_scores(pixel_counts(heatmap, mask, edges))
    assert by_hand["pxap"] == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert by_hand["piou"] == pytest.approx(0.5)
    ignored = np.array([[1, 1, -1, 0]], np.int8)
    assert pixel_counts(heatmap, ignored, edges).sum() == 3
    everything = pixel_scores(pixel_counts(heatmap, np.ones((1, 4), np.int8), edges))
    assert everything == {"pxap": 1, "piou": 1}
    assert np.isnan(pixel_scores(pixel_counts(heatmap, np.zeros((1, 4), np.int8), edges))["pxap"])


def test_masks_are_read_as_published(tmp_path):
    soft = np.array([[0, 51, 204, 255]] * 4, np.uint8)
    ignore = np.array([[255, 0, 255, 0]] * 4, np.uint8)
    for name, pixels in (("mask.png", soft), ("ignore.png", ignore)):
        cv2.imwrite(str(tmp_path / name), pixels)
    files = MaskFiles((tmp_path / "mask.png",), tmp_path / "ignore.png")
    assert read_mask(files, (2, 4), (400, 400)).tolist() == [[-1, 0, 1, 1]] * 2
    loose = replace(files, cut=0)
    assert read_mask(loose, (4, 8), (4, 4))[0].tolist() == [-1, -1, 1, 1, 1, 1, 1, 1]
    with pytest.raises(ValueError, match=r"no mask .*nowhere.png"):
        read_mask(MaskFiles((tmp_path / "nowhere.png",)), (2, 2), (4, 4))
    with pytest.raises(
        ValueError, match=r"mask .*mask.png has 4 x 4 pixels, but its image has 8 x 4"
    ):
        read_mask(files, (2, 2), (8, 4))


def test_one_image_without_an_object_spoils_no_interval():
    """Most resamples of six images leave out the only one whose mask is not empty."""
    truth = birds([(2, 2, 10, 12)] * 6)
    masks = [np.zeros((16, 20), np.int8) for _ in range(6)]
    masks[3][2:12, 2:10] = 1
    edges = bin_edges(THRESHOLDS)
    maps = stack_rows(
        box_row(planted((2, 2, 10, 12)), mask=mask, edges=edges, truths=None) for mask in masks
    )
    truth = replace(truth, masks=(MaskFiles((Path("a"),)),) * 6)
    result = score_heatmaps(SplitOutput(truth, None, {"maps": maps}), thresholds=THRESHOLDS).metrics
    assert result["pixels"]["maps"]["pxap"] == pytest.approx(1 / 6)
    empty = stack_rows(box_row(planted((2, 2, 4, 4)), mask=m * 0, edges=edges) for m in masks)
    with pytest.raises(ValueError, match="no pixel is above 127"):
        score_heatmaps(SplitOutput(truth, None, {"maps": empty}), thresholds=THRESHOLDS)


def test_images_without_a_mask_do_not_count_for_pixels(tmp_path):
    """CUB-200-2011 has masks of 458 of its 5,794 test images in some distributions."""
    rng = np.random.default_rng(0)
    edges = bin_edges(THRESHOLDS)
    files = []
    for index in range(3):
        mask = (255 * (rng.random((16, 20)) < 0.3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.png"), mask)
        files.append(MaskFiles((tmp_path / f"{index}.png",)))
    heatmaps = rng.random((6, 16, 20))
    all_images = birds([(2, 2, 10, 12)] * 6)
    masked = birds([(2, 2, 10, 12)] * 3)

    def pixels(truth, maps):
        rows = (
            split_row(heatmap, truth, index, edges=edges, every_box=False)
            for index, heatmap in enumerate(maps)
        )
        output = SplitOutput(truth, None, {"maps": stack_rows(rows)})
        return score_heatmaps(output, thresholds=THRESHOLDS).metrics["pixels"]["maps"]

    some = (None, files[0], None, files[1], files[2], None)
    found = pixels(replace(all_images, masks=some), heatmaps)
    assert found == pixels(replace(masked, masks=tuple(files)), heatmaps[[1, 3, 4]])
    assert found["images"] == 3
