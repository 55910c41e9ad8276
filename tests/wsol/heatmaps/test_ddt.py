"""Deep descriptor transforming: the component by linear algebra, and boxes of real birds."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from torch import nn

from robust_training.models.creating import create_model, wrap_model
from robust_training.models.saving import save_model
from tests.helpers.commands import tool
from wsol.boxes.geometry import iou
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.loaders import DataConfig
from wsol.heatmaps.averaged import Averaged, Product
from wsol.heatmaps.ddt import DDT, Component, descriptors, principal_component
from wsol.heatmaps.heatmap import Gradient, min_max
from wsol.heatmaps.methods import find_method
from wsol.heatmaps.refined import Refined
from wsol.localizer.localizer import Localizer


def test_descriptors_are_the_last_stage_input_over_the_root_of_its_length(network, images):
    found = descriptors(network, images[0]).detach().numpy()
    backbone = network.backbone
    with torch.no_grad():
        x = backbone.maxpool(
            backbone.act1(backbone.bn1(backbone.conv1(network.prepare(images[0]))))
        )
        expected = backbone.layer3(backbone.layer2(backbone.layer1(x))).double()
    lengths = np.linalg.norm(found, axis=1)
    assert found.shape == expected.shape
    np.testing.assert_allclose(lengths**2, expected.norm(dim=1), rtol=1e-6)
    np.testing.assert_allclose(found * lengths[:, None], expected, rtol=1e-5, atol=1e-6)


def test_the_component_is_the_largest_eigenvector_of_the_covariance(network, images):
    batches = images[0].split(4)
    component = principal_component(network, batches)
    found = descriptors(network, images[0]).detach().numpy()
    rows = found.transpose(0, 2, 3, 1).reshape(-1, found.shape[1])
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    np.testing.assert_allclose(component.mean, rows.mean(axis=0), atol=1e-9)
    assert abs(vectors[:, -1] @ component.axis) == pytest.approx(1, abs=1e-6)
    assert values[-1] > 1.01 * values[-2]  # or the eigenvector would be no one's
    heights = (found - rows.mean(axis=0)[:, None, None]) * np.array(component.axis)[:, None, None]
    side = found.shape[2] // 4
    inner = heights[:, :, side : found.shape[2] - side, side : found.shape[3] - side]
    assert inner.sum(axis=1).mean() >= heights.sum(axis=1).mean()


class Tiles(nn.Module):
    """A network whose features are the image itself, in tiles of 4 x 4."""

    def __init__(self):
        super().__init__()
        self.feature_info = [{"module": "head"}]
        self.pool, self.head, self.num_classes = nn.AvgPool2d(4), nn.Flatten(), 3 * 8 * 8

    def forward(self, image):
        return self.head(self.pool(image))


def test_a_bright_square_is_the_object_wherever_it_is():
    """Both signs of the square's contrast, since the axis follows the middle of the images."""
    model = wrap_model(Tiles(), image_size=32, mean=(0, 0, 0), std=(1, 1, 1))
    for object_colour, ground in (
        ((0.9, 0.8, 0.1), (0.1, 0.2, 0.3)),
        ((0.1, 0.1, 0.1), (0.8, 0.8, 1)),
    ):
        photos = torch.tensor(ground).view(1, 3, 1, 1).repeat(3, 1, 32, 32)
        corners = ((8, 8), (12, 4), (4, 12))
        for photo, (x, y) in zip(photos, corners, strict=True):
            photo[:, y : y + 12, x : x + 16] = torch.tensor(object_colour).view(3, 1, 1)
        method = DDT(principal_component(model, [photos]))
        assert method.fits(model)
        maps = method(model, photos, torch.zeros(3, dtype=torch.long))
        assert (maps.min(), maps.max()) == (0, 1)
        for found, (x, y) in zip(maps, corners, strict=True):
            box = largest_boxes(found, [0.5])[0]
            assert iou(box, np.array([x, y, x + 16, y + 12])) > 0.7


def test_the_attacked_map_is_the_heatmap_before_it_is_stretched(network, images):
    image, label = images
    method = DDT(principal_component(network, [image]))
    maps = method.maps(network, label)(image)
    assert maps.min() >= 0
    np.testing.assert_allclose(min_max(maps.double().numpy()), method(network, *images), atol=1e-5)
    moved = image.clone().requires_grad_()
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)) / 100
    total = method.maps(network, label)(moved).sum()
    (slope,) = torch.autograd.grad(total, moved)
    with torch.no_grad():
        ends = [method.maps(network, label)(image + s * direction).sum() for s in (1e-2, -1e-2)]
    assert (slope * direction).sum() == pytest.approx((ends[0] - ends[1]).item() / 2e-2, rel=0.05)


def test_an_attack_moves_its_boxes(run, tmp_path):
    """The component is the run's, the threshold is ddt's, and wrong predictions count as well."""
    copy, attack = shutil.copytree(run, tmp_path / "run"), tmp_path / "attack.yaml"
    attack.write_text(
        "accuracy: []\nimages: null\nmaps:\n"
        "- attribution: {class_path: wsol.heatmaps.ddt.DDT}\n"
        "  attack: {eps: 0.1, step_size: 0.03, steps: 5}\n"
    )
    status, _, error = tool("evaluate.py", copy, "--methods", "cam", "--robustness", attack)
    assert status == 0, error
    metrics = json.loads((copy / "metrics.json").read_text())
    (found,) = metrics["robustness"]["maps"]
    assert found["attack"]["attribution"] == {"class": "DDT"}
    assert found["boxes"]["heatmap"] == "ddt"
    assert found["boxes"]["threshold"] == metrics["headline"]["ddt"]["threshold"]
    rows = [row for row in metrics["localization"] if row["heatmap"] == "ddt"]
    assert found["boxes"]["gt_known_loc"]["clean"]["mean"] == rows[0]["gt_known_loc"]
    assert found["compared"] + found["without_map"] == metrics["robustness"]["images"]
    top = found["measures"]["top_k_intersection"]
    assert top["mean"] < top["under_noise"]


def test_the_component_reaches_the_methods_within():
    component = Component((0.0, 1.0), (1.0, 0.0))
    given = [
        DDT(),
        Refined(Averaged(DDT())),
        Product(Gradient(), DDT()),
        find_method("refined ddt"),
    ]
    filled = [method.with_component(lambda: component) for method in given]
    assert filled[0].component == component
    assert filled[1].method.method.component == component
    assert filled[2].second.component == component
    assert filled[3] == find_method("refined_ddt")  # the name still denotes it

    def never():
        raise AssertionError("no component is needed")

    assert Refined(Gradient()).with_component(never) == Refined(Gradient())
    own = DDT(component)
    assert own.with_component(never).component == component


def test_what_cannot_work_is_said(network, images):
    with pytest.raises(ValueError, match="ddt has no principal component: it needs a run"):
        DDT()(network, *images)
    with pytest.raises(ValueError, match="component of ddt has 2 channels"):
        DDT(Component((0.0, 1.0), (1.0, 0.0)))(network, *images)
    with pytest.raises(ValueError, match="as many numbers in mean as in axis, not 1 and 2"):
        Component((0.0,), (1.0, 0.0))
    with pytest.raises(ValueError, match="there is no image"):
        principal_component(network, [])
    torch.manual_seed(0)
    transformer = wrap_model(
        timm.create_model("test_vit", num_classes=3, img_size=32), image_size=32
    )
    assert not DDT().fits(transformer)
    with pytest.raises(ValueError, match="timm lists no stages"):
        descriptors(transformer, images[0])


def test_a_run_keeps_its_component(run, tmp_path):
    """`evaluate` finds it, and the localizer uses it without the data set."""
    copy = shutil.copytree(run, tmp_path / "run")
    status, text, error = tool("evaluate.py", copy, "--methods", "ddt")
    assert status == 0, error
    assert "ddt" in text
    kept = json.loads((copy / "best" / "ddt.json").read_text())
    assert len(kept["mean"]) == len(kept["axis"])
    (copy / "config.yaml").unlink()
    localizer = Localizer.load(copy, "ddt")
    assert list(localizer.method.component.axis) == kept["axis"]
    photo = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    (found,) = localizer.predict(photo)
    assert found.heatmap.shape == (localizer.image_size,) * 2
    (copy / "best" / "ddt.json").write_text('{"mean": [1], "axis": []}')
    with pytest.raises(ValueError, match="is not a principal component"):
        Localizer.load(copy, "ddt")


def test_a_model_alone_has_no_component(tmp_path):
    save_model(create_model("test_resnet", 2, image_size=32), tmp_path)
    with pytest.raises(ValueError, match="ddt needs training images"):
        Localizer.load(tmp_path, "ddt")


@pytest.mark.slow
def test_real_birds_are_found_by_pretrained_features(shared):
    """60 validation images of CUB-200-2011: the docs' score on all 600 is above 90."""
    weights = shared / "weights" / "tf_efficientnet_lite0.imagenet.safetensors"
    model = create_model("tf_efficientnet_lite0", 200, weights=str(weights), image_size=320).eval()
    data = DataConfig(str(shared / "data" / "cub200"), 320, batch_size=20, num_workers=0)

    def some(split, count):
        images = data.dataset(split)
        rows = np.linspace(0, len(images) - 1, count).astype(int)
        return torch.utils.data.DataLoader(torch.utils.data.Subset(images, rows), 20), images, rows

    method = DDT(principal_component(model, (b["image"] for b in some("train", 60)[0])))
    loader, dataset, rows = some("val", 60)
    maps = np.concatenate([method(model, b["image"], b["label"]) for b in loader])
    hits = []
    for heatmap, row in zip(maps, rows, strict=True):
        x0, y0, x1, y1 = dataset.examples[row].boxes[0]
        height, width = dataset.pixels(row).shape[:2]
        scale = np.array([width, height, width, height]) / 320
        hits.append(
            iou(largest_boxes(heatmap, [0.3])[0] * scale, np.array([x0, y0, x1, y1])) >= 0.5
        )
    assert np.mean(hits) >= 0.85
