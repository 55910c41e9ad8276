"""The anchors that ART aligns attributions with."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from robust_training.attribution.anchors import BorderContrast, Edges


def test_border_contrast_is_zero_on_a_plain_background():
    image = torch.full((2, 3, 20, 40), 0.7, dtype=torch.float64)
    image[1, 1, 5:15, 8:30] = 0.2
    found = BorderContrast(width=0.1)(image)
    assert found[0].abs().max() < 1e-12
    expected = torch.zeros(3, 20, 40, dtype=torch.float64)
    expected[1, 5:15, 8:30] = -0.5
    torch.testing.assert_close(found[1], expected, rtol=0, atol=1e-12)


def test_border_contrast_counts_a_fraction_of_each_side():
    image = torch.arange(20 * 40, dtype=torch.float64).view(1, 1, 20, 40)
    inner = image[..., 2:18, 4:36]
    mean = (image.sum() - inner.sum()) / (image.numel() - inner.numel())
    torch.testing.assert_close(BorderContrast(width=0.1)(image), image - mean)
    torch.testing.assert_close(BorderContrast(width=0.5)(image), image - image.mean())
    with pytest.raises(ValueError, match=r"must lie in \(0,0.5\], not 0.6"):
        BorderContrast(width=0.6)


def test_edges_equal_scipys_sobel():
    image = np.random.default_rng(0).random((2, 3, 7, 9))
    channels = image.reshape(-1, 7, 9)
    slopes = [
        np.stack([ndimage.sobel(each, axis, mode="nearest") / 8 for each in channels])
        for axis in (0, 1)
    ]
    expected = np.hypot(*slopes).reshape(image.shape)
    found = Edges()(torch.from_numpy(image))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_edges_of_a_constant_image_have_a_finite_gradient():
    image = torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    Edges()(image).sum().backward()
    assert torch.isfinite(image.grad).all()
