import numpy as np
import pytest
import torch

from robust_training.attribution.explanation import SmoothGrad
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score
from robust_training.models.creating import create_model
from wsol.heatmaps.averaged import Averaged, Product
from wsol.heatmaps.heatmap import (
    CAM,
    Attributed,
    CentredBox,
    Gradient,
    HeatmapMethod,
    attribution_heatmap,
    min_max,
)


class Red(HeatmapMethod):
    """A planted map that looks at each pixel by itself."""

    def __call__(self, model, image, label):
        return np.stack([min_max(each) for each in image[:, 0].double().numpy()])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    return model


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([1, 3, 0])


def test_a_map_that_mirrors_with_its_image_stays_as_it_is(model, images):
    for method in (Red(), CentredBox()):
        averaged = Averaged(method, scales=(1,))(model, images, LABELS)
        np.testing.assert_allclose(averaged, method(model, images, LABELS), atol=1e-12)


def test_mirror_images_are_mirrored_back(model, images):
    found = Averaged(Gradient(), scales=(1,))(model, images, LABELS)
    mirrored = Gradient()(model, torch.flip(images, [3]), LABELS)[:, :, ::-1]
    mean = (Gradient()(model, images, LABELS) + mirrored) / 2
    np.testing.assert_allclose(found, [min_max(each) for each in mean], atol=1e-6)
    again = Averaged(Gradient(), scales=(1,))(model, torch.flip(images, [3]), LABELS)
    np.testing.assert_allclose(again, found[:, :, ::-1], atol=1e-6)


def test_without_sizes_or_mirrors_nothing_changes(model, images):
    same = Averaged(Gradient(), scales=(1,), flip=False)(model, images, LABELS)
    np.testing.assert_array_equal(same, Gradient()(model, images, LABELS))


def test_maps_of_other_sizes_lie_over_the_image(model):
    """A smooth blob in a corner is found there at any size, to a pixel."""
    rows = torch.arange(48.0)
    blob = torch.exp(-((rows[:, None] - 12) ** 2 + (rows[None] - 30) ** 2) / 50)
    image = blob.expand(1, 3, 48, 48)
    for scales in ((2.0,), (0.5,), (0.75, 1.25)):
        (found,) = Averaged(Red(), scales=scales)(model, image, LABELS[:1])
        assert found.shape == (48, 48)
        peak = np.unravel_index(found.argmax(), found.shape)
        assert np.abs(np.subtract(peak, (12, 30))).max() <= 1
        assert np.abs(found - blob.numpy()).max() < 0.1


def test_sizes_are_refused_where_the_network_has_one(images):
    vit = create_model("test_vit", 4, image_size=32).eval()
    assert not Averaged(Gradient()).fits(vit)
    with pytest.raises(ValueError, match=r"fixed input size.*scales=\(1,\)"):
        Averaged(Gradient())(vit, images, LABELS)
    flipped = Averaged(Gradient(), scales=(1,))
    assert flipped.fits(vit)
    assert flipped(vit, images, LABELS).shape == (3, 32, 32)
    for scales in ((), (0.0,), (float("nan"),)):
        with pytest.raises(ValueError, match="numbers above 0"):
            Averaged(Gradient(), scales=scales)


def test_smoothgrad_without_noise_is_the_gradient(model, images):
    found = Attributed(SmoothGrad(samples=3, noise=0.0))(model, images, LABELS)
    np.testing.assert_allclose(found, Gradient()(model, images, LABELS), atol=1e-5)


def test_smoothgrad_is_the_mean_over_noise_and_ignores_the_batch(model, images):
    method = Attributed(SmoothGrad(samples=3, noise=0.2))
    before = torch.get_rng_state()
    found = method(model, images, LABELS)
    assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator().manual_seed(0)
    noise = 0.2 * torch.cat([torch.randn(1, 3, 32, 32, generator=generator) for _ in range(3)])
    for image, label, actual in zip(images, LABELS, found, strict=True):
        gradients = input_gradient(class_score(model, label.expand(3)), image + noise)
        expected = attribution_heatmap(gradients.mean(0, keepdim=True))[0]
        np.testing.assert_allclose(actual, expected, atol=1e-5)
    (single,) = method(model, images[1:2], LABELS[1:2])
    np.testing.assert_allclose(single, found[1], atol=1e-6)


def test_a_product_is_one_pixel_by_pixel(model, images):
    (found,) = Product(Red(), CentredBox())(model, images[:1], LABELS[:1])
    red, centre = (method(model, images[:1], LABELS[:1])[0] for method in (Red(), CentredBox()))
    np.testing.assert_allclose(found, red * centre / (red * centre).max(), atol=1e-12)
    assert Product(Gradient(), CAM()).fits(model)
    assert not Product(Gradient(), CAM()).fits(create_model("test_vit", 4, image_size=32))
