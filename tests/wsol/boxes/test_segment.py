"""Segments by colour: the density of the colour models, sizes, and pixels that are certain."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from wsol.boxes.segment import _colour_models, _negative_log_likelihood, segment


def photo(mask, noise=12, seed=0):
    """uint8 (H,W,3): an object of one colour on another, with noise."""
    rng = np.random.default_rng(seed)
    pixels = np.where(mask[..., None], (200, 60, 60), (60, 90, 160))
    return (pixels + rng.normal(0, noise, pixels.shape)).clip(0, 255).astype(np.uint8)


def test_the_density_is_that_of_opencvs_mixture():
    kinds = np.zeros((40, 40), np.uint8)
    kinds[10:30, 10:30] = 3
    pixels = photo(kinds > 0, noise=30)
    colours = pixels[::7, ::7].reshape(-1, 3).astype(np.float64)
    for model in _colour_models(pixels, kinds):
        weights, means, covariances = np.split(model, [5, 20])
        used = weights > 0
        mixture = MixtureSameFamily(
            Categorical(torch.tensor(weights[used])),
            MultivariateNormal(
                torch.tensor(means.reshape(5, 3)[used]),
                torch.tensor(covariances.reshape(5, 3, 3)[used]),
            ),
        )
        expected = -mixture.log_prob(torch.tensor(colours)).numpy() - 1.5 * np.log(2 * np.pi)
        found = _negative_log_likelihood(colours, model)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_component_without_pixels_does_not_count():
    """An image of one colour has a single cluster."""
    kinds = np.zeros((8, 8), np.uint8)
    kinds[2:6, 2:6] = 3
    models = _colour_models(np.full((8, 8, 3), 50, np.uint8), kinds)
    for model in models:
        assert np.isfinite(_negative_log_likelihood(np.array([[50.0, 50, 50]]), model)).all()


@pytest.mark.parametrize("side", [48, 64, 96, 128, 224, 320])
def test_a_noisy_object_is_found_at_every_size(side):
    mask = np.zeros((side, side), bool)
    mask[round(0.2 * side) : round(0.7 * side), round(0.3 * side) : round(0.8 * side)] = True
    rows, columns = np.mgrid[:side, :side] / side
    heatmap = np.exp(-(((rows - 0.5) ** 2 + (columns - 0.5) ** 2) / 0.05))
    found = segment(photo(mask), heatmap, 0.35)
    assert (found & mask).sum() / (found | mask).sum() > 0.99


def test_a_long_image_keeps_its_shape():
    mask = np.zeros((50, 300), bool)
    mask[15:40, 120:200] = True
    rows, columns = np.mgrid[:50, :300]
    heatmap = np.exp(-(((rows - 26) / 15) ** 2) - ((columns - 158) / 45) ** 2)
    found = segment(photo(mask), heatmap, 0.15)
    assert found.shape == (50, 300)
    assert (found & mask).sum() / (found | mask).sum() > 0.98


def test_pixels_that_are_certain_stay():
    """The border is background, and the largest values are foreground, whatever their colour."""
    pixels = np.full((128, 128, 3), 90, np.uint8)
    heatmap = np.zeros((128, 128))
    heatmap[40:60, 40:60] = 1
    found = segment(pixels, heatmap, 0.1, sure=0.2)
    assert found[:3].sum() + found[-3:].sum() + found[:, :3].sum() + found[:, -3:].sum() == 0
    order = np.argsort(-heatmap, axis=None, kind="stable")[: round(0.1 * 0.2 * heatmap.size)]
    assert found.ravel()[order].all()


def test_a_map_without_a_peak_has_no_segment():
    pixels = photo(np.zeros((32, 32), bool))
    assert segment(pixels, np.zeros((32, 32)), 0.35) is None
    corner = np.zeros((100, 100))
    corner[0, 0] = 1
    assert segment(photo(np.zeros((100, 100), bool)), corner, 0.0001) is None
