import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wsol.boxes.geometry import iou
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.inputs import to_pixels
from wsol.data.loaders import DataConfig
from wsol.heatmaps.heatmap import CentredBox, HeatmapMethod, min_max
from wsol.heatmaps.refined import Refined, refine_box

LABEL = torch.tensor([0])


class Blob(HeatmapMethod):
    """A rough map: a blob around a place, whatever the image."""

    def __init__(self, row, column, sigma=8):
        self.centre, self.sigma = (row, column), sigma

    def __call__(self, model, image, label):
        height, width = image.shape[2:]
        rows, columns = np.arange(height) - self.centre[0], np.arange(width) - self.centre[1]
        blob = np.exp(-(rows[:, None] ** 2 + columns**2) / (2 * self.sigma**2))
        return np.stack([min_max(blob)] * len(image))


class Flat(HeatmapMethod):
    def __call__(self, model, image, label):
        return np.zeros((len(image), *image.shape[2:]))


def two_colours(mask, inside=(200, 40, 40), outside=(40, 90, 160), noise=4, seed=0):
    """(1,3,H,W): an object of one colour on another, both with a little noise."""
    grain = np.random.default_rng(seed).normal(0, noise, (*mask.shape, 3))
    pixels = (np.where(mask[..., None], inside, outside) + grain).clip(0, 255).round()
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]


@pytest.mark.parametrize("place", [(32, 38), (36, 50), (33, 44)])
def test_an_object_of_one_colour_is_found_exactly(place):
    mask = np.zeros((64, 80), bool)
    mask[20:48, 25:62] = True
    image = two_colours(mask)
    (rough,), (fine,) = (m(None, image, LABEL) for m in (Blob(*place), Refined(Blob(*place))))
    np.testing.assert_array_equal(fine > 0, mask)
    np.testing.assert_allclose(fine[mask], (1 + rough[mask]) / 2)
    assert largest_boxes(fine, [0, 0.2, 0.49]).tolist() == [[25, 20, 62, 48]] * 3
    assert largest_boxes(rough, [0.2]).tolist() != [[25, 20, 62, 48]]
    assert largest_boxes(fine, [0.9])[0, 2] < 62  # the hot part


@pytest.mark.parametrize("box", [(20, 16, 70, 52), (30, 24, 56, 44), (18, 12, 60, 50)])
def test_a_box_goes_halfway_to_the_object_it_is_on(box):
    mask = np.zeros((64, 80), bool)
    mask[20:48, 25:62] = True
    (pixels,) = to_pixels(two_colours(mask))
    found = refine_box(pixels, np.array(box, np.float64))
    np.testing.assert_array_equal(found, (np.array(box) + [25, 20, 62, 48]) / 2)


@pytest.mark.parametrize(
    ("side", "box"), [(64, (5, 5, 5, 9)), (64, (0, 0, 0, 0)), (2, (0, 0, 2, 2))]
)
def test_a_box_that_nothing_grows_from_stays(side, box):
    """An empty one, or one of an image that is all border, which is background."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    assert refine_box(pixels, np.array(box, np.float64)).tolist() == list(box)


@given(
    corners=st.tuples(*[st.integers(0, 96)] * 4), pixels=st.sampled_from(["noise", "flat", "tiny"])
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_refined_box_lies_in_the_image(corners, pixels):
    side = 3 if pixels == "tiny" else 24
    image = np.full((side, side, 3), 7, np.uint8)
    if pixels == "noise":
        image = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    x0, x1, y0, y1 = (corner / 4 for corner in (*sorted(corners[:2]), *sorted(corners[2:])))
    found = refine_box(image, np.clip(np.array([x0, y0, x1, y1]), 0, side))
    assert ((found >= 0) & (found <= side)).all()
    assert (found[2:] >= found[:2]).all()


def test_shapes_other_than_boxes():
    mask = np.zeros((96, 96), np.uint8)
    cv2.ellipse(mask, (44, 50), (30, 16), 30, 0, 360, 1, -1)
    (found,) = Refined(Blob(50, 44))(None, two_colours(mask > 0), LABEL)
    np.testing.assert_array_equal(found > 0, mask > 0)


def test_images_do_not_touch_each_other_and_repeat():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.random((3, 3, 40, 40), np.float32))
    method = Refined(CentredBox())
    together = method(None, image, LABEL.expand(3))
    for index in range(3):
        single = method(None, image[index : index + 1], LABEL)[0]
        np.testing.assert_array_equal(single, together[index])
    assert together.min() >= 0
    assert together.max() <= 1


def test_a_map_without_a_peak_stays_empty():
    image = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    assert not Refined(Flat())(None, image, LABEL).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 2), (8, 8)])
def test_tiny_images_and_peaks_in_the_border_pass(size):
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    corner = Blob(0, 0, sigma=1)
    (found,) = Refined(corner, fraction=0.05)(None, image, LABEL)
    assert found.shape == size
    assert np.isfinite(found).all()


def test_settings_out_of_range_are_refused():
    for settings in ({"fraction": 0.0}, {"fraction": 1.0}, {"sure": -0.1}, {"sure": 1.1}):
        with pytest.raises(ValueError, match="Refined: fraction must lie"):
            Refined(CentredBox(), **settings)


def test_a_centred_seed_finds_real_birds(shared):
    """The baseline without a model, which any refined map must beat."""
    data = DataConfig(str(shared / "data" / "cub10"), image_size=128).dataset("test")
    hits = []
    for item in (data[index] for index in range(0, len(data), 6)):
        (found,) = Refined(CentredBox())(None, item["image"][None], LABEL)
        box = largest_boxes(found, [0.2])
        hits.append(iou(box, item["box"].numpy())[0] >= 0.5)
    assert len(hits) == 21
    assert np.mean(hits) > 0.7
