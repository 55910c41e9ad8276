import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch

from robust_training.attribution.anchors import BorderContrast, Image
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score, cross_entropy_score
from robust_training.models.creating import create_model
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.heatmaps.heatmap import CAM, AnchorMap, CentredBox, Gradient, attribution_heatmap


def published(attribution: np.ndarray) -> np.ndarray:
    """The steps of util_eval.py and util_bbox.py, on a batch of one, with SciPy's filters."""
    values = np.abs(attribution).mean(axis=0)
    values = (values - values.min()) / (values.max() - values.min())
    values = (values - values.mean()) / values.std(ddof=1)
    values = np.clip(values, np.percentile(values, 2), np.percentile(values, 98))
    values = (values - values.min()) / (values.max() - values.min())
    values = scipy.ndimage.uniform_filter(values, 3, mode="constant")
    values = scipy.ndimage.gaussian_filter(values, sigma=3)
    return (values - values.min()) / (values.max() - values.min())


@pytest.mark.parametrize("shape", [(64, 64), (33, 47), (9, 9)])
def test_heatmaps_follow_the_published_steps(shape):
    attribution = torch.randn(3, 3, *shape, generator=torch.Generator().manual_seed(0)).double()
    for actual, row in zip(attribution_heatmap(attribution), attribution, strict=True):
        np.testing.assert_allclose(actual, published(row.numpy()), atol=1e-7)


def test_an_image_does_not_depend_on_its_batch_mates():
    attribution = torch.randn(4, 3, 20, 20) * torch.tensor([1, 10, 100, 0.1])[:, None, None, None]
    single = np.concatenate([attribution_heatmap(row[None]) for row in attribution])
    np.testing.assert_array_equal(attribution_heatmap(attribution), single)


def test_constant_and_broken_attributions_give_zeros():
    attribution = torch.zeros(3, 3, 8, 8)
    attribution[1] = 2.0
    attribution[2, 0, 0, 0] = float("nan")
    assert attribution_heatmap(attribution, sigma=0)[0].max() == 0
    assert not attribution_heatmap(attribution)[2].any()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=64).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    return model


def test_gradient_maps_differentiate_the_score_they_name(model):
    image, label = torch.rand(2, 3, 64, 64), torch.tensor([1, 3])
    for score, make in (("logit", class_score), ("cross_entropy", cross_entropy_score)):
        expected = attribution_heatmap(input_gradient(make(model, label), image))
        np.testing.assert_array_equal(Gradient(score=score)(model, image, label), expected)


def test_cam_is_the_classifiers_weights_on_the_features(model):
    image, label = torch.rand(2, 3, 64, 64), torch.tensor([1, 3])
    features = model.backbone.forward_features(model.normalize(image)).detach()
    weights = model.backbone.fc.weight[label].detach()
    for actual, f, w in zip(CAM()(model, image, label), features, weights, strict=True):
        expected = cv2.resize(
            (w[:, None, None] * f).sum(0).double().numpy(), (64, 64), interpolation=cv2.INTER_CUBIC
        )
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["mobilenetv2_035", "mobilenetv3_small_050", "convnext_atto", "densenet121"]
)
def test_cam_works_for_convolutional_networks(name):
    torch.manual_seed(0)
    network = create_model(name, 3, image_size=64).eval()
    torch.nn.init.normal_(network.backbone.get_classifier().weight)
    heatmaps = CAM()(network, torch.rand(1, 3, 64, 64), torch.tensor([2]))
    assert heatmaps.shape == (1, 64, 64)
    assert heatmaps.max() == 1


def test_cam_refuses_a_network_without_a_feature_map():
    network = create_model("vit_tiny_patch16_224", 2, image_size=32).eval()
    with pytest.raises(ValueError, match="no .*feature map"):
        CAM()(network, torch.rand(1, 3, 32, 32), torch.tensor([0]))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.63])
def test_the_threshold_is_the_size_of_the_centred_box(model, threshold):
    heatmap = CentredBox()(model, torch.rand(1, 3, 100, 200), torch.tensor([0]))[0]
    (box,) = largest_boxes(heatmap, [threshold])
    side = 1 - threshold
    expected = [100 * (1 - side), 50 * (1 - side), 100 * (1 + side), 50 * (1 + side)]
    np.testing.assert_allclose(box, expected, atol=2)


@pytest.mark.parametrize("background", [0.0, 0.9])
def test_the_map_of_the_border_contrast_is_the_object(model, background):
    """The image itself marks a background of another brightness than the mean instead."""
    image = torch.full((1, 3, 64, 64), background)
    image[..., 20:40, 10:44] = 0.5
    found = AnchorMap(BorderContrast(), sigma=0)(model, image, torch.tensor([0]))[0]
    (box,) = largest_boxes(found, [0.5])
    np.testing.assert_allclose(box, [10, 20, 44, 40], atol=1)
    same = AnchorMap(Image())(model, image, torch.tensor([0]))[0]
    assert same[5, 5] > same[30, 30]
