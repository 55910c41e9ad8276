"""Detectors: training, folders and refusals."""

import json

import cv2
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch.utils.data import DataLoader
from torchvision.ops import box_iou

from robust_training.models.creating import create_model
from wsol.data.dataset import Example
from wsol.data.inputs import to_pixels
from wsol.data.loaders import DataConfig
from wsol.detectors import Detections, FasterRCNN, Regressor, load_detector, save_detector
from wsol.detectors.training import Training, detect, fit_detector, mean_iou
from wsol.heatmaps.refined import refine_box

SIDE = 32


def rectangles(count, seed=0):
    """Items of a data set: each is a red rectangle on grey noise, with its box."""
    rng = np.random.default_rng(seed)
    items = []
    for index in range(count):
        size = rng.integers(10, 22, 2)
        low = rng.integers(0, SIDE - size)
        x0, y0, x1, y1 = *low, *(low + size)
        image = rng.uniform(0.2, 0.6, (1, SIDE, SIDE)).repeat(3, 0)
        image[:, y0:y1, x0:x1] = [[[1.0]], [[0.1]], [[0.1]]]
        box = torch.tensor([x0, y0, x1, y1], dtype=torch.float32)
        pixels = torch.from_numpy(image).float()
        items.append({"image": pixels, "box": box, "label": index % 3})
    return items


def build(settings, seed=0):
    torch.manual_seed(seed)
    return settings.build(create_model("test_resnet", 3, image_size=SIDE), ["a", "b", "c"])


@pytest.fixture(scope="module")
def learned():
    """A regressor trained on 240 rectangles, and the rows of its log."""
    network = build(Regressor(width=16))
    training = DataLoader(rectangles(240), 16, shuffle=True)
    validation = DataLoader(rectangles(32, seed=1), 32)
    how = Training(epochs=7, lr=0.005, backbone_lr=1.0)
    return network, fit_detector(network, training, validation, how), validation


def test_a_regressor_learns_boxes(learned):
    network, log, _ = learned
    assert mean_iou(network, DataLoader(rectangles(64, seed=2), 32)) > 0.7
    assert log[-1]["giou"] < log[0]["giou"] / 2


def test_a_regressor_can_refine_its_boxes_by_colour(learned, tmp_path):
    """For rectangles of one colour, this improves every box."""
    network, _, _ = learned
    fine = build(Regressor(width=16, refine=True))
    fine.load_state_dict(network.state_dict())
    save_detector(fine, tmp_path / "fine")
    loader = DataLoader(rectangles(32, seed=3), 16)
    plain = torch.stack([found.boxes[0] for found in detect(network, loader)])
    refined = torch.stack(
        [found.boxes[0] for found in detect(load_detector(tmp_path / "fine"), loader)]
    )
    true = torch.stack([item["box"] for item in loader.dataset]) / SIDE
    before, after = (box_iou(boxes, true).diagonal() for boxes in (plain, refined))
    assert (after > before).float().mean() > 0.9
    assert after.mean() > before.mean() + 0.05
    pixels = to_pixels(loader.dataset[0]["image"][None])[0]
    expected = refine_box(pixels, plain[0].double().numpy() * SIDE) / SIDE
    np.testing.assert_allclose(refined[0], expected, atol=1e-6)
    # epochs are compared without refinement
    assert mean_iou(fine.eval(), loader) == pytest.approx(before.mean().item())


def test_the_epoch_that_agrees_best_is_kept(learned):
    network, log, validation = learned
    assert mean_iou(network, validation) == pytest.approx(max(row["val_iou"] for row in log))


def test_the_same_seed_gives_the_same_detector():
    states = []
    for seed in (3, 3, 4):
        network = build(Regressor(width=8), seed)
        loader = DataLoader(rectangles(16), 8, shuffle=True)
        fit_detector(network, loader, loader, Training(epochs=1), seed=seed)
        states.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert states[0].equal(states[1])
    assert not states[0].equal(states[2])


@pytest.mark.parametrize("settings", [Regressor(grid=2, width=8), FasterRCNN(levels=2, width=8)])
def test_a_loaded_detector_equals_the_saved_one(settings, tmp_path):
    network = build(settings)
    for items in (rectangles(4), rectangles(4, seed=1)):  # changes the running statistics
        network.train().losses(*batch(items))
    image = batch(rectangles(5, seed=2))[0]
    with torch.no_grad():
        expected = network.eval()(image)
        save_detector(network, tmp_path / "detector")
        loaded = load_detector(tmp_path / "detector")
        found = loaded(image)
    assert loaded.class_names == ["a", "b", "c"]
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=0)
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=0)
        assert one.labels is None or one.labels.equal(other.labels)
    features = timm.create_model(
        f"local-dir:{tmp_path / 'detector'}", pretrained=True, features_only=True
    ).eval()
    prepared = loaded.backbone.prepare(image)
    with torch.no_grad():
        ours = loaded.backbone.backbone.forward_intermediates(prepared, intermediates_only=True)
        torch.testing.assert_close(features(prepared)[-1], ours[-1])
    with pytest.raises(ValueError, match="exists already"):
        save_detector(network, tmp_path / "detector")
    assert [file.name for file in tmp_path.iterdir()] == ["detector"]


def batch(items):
    image = torch.stack([item["image"] for item in items])
    box = torch.stack([item["box"] for item in items]) / SIDE
    return image, box, torch.tensor([item["label"] for item in items])


@pytest.mark.parametrize("levels", [1, 3])
def test_faster_rcnn_steps_and_finds_boxes_inside_the_image(levels):
    network = build(FasterRCNN(levels=levels, width=8))
    terms = network.train().losses(*batch(rectangles(4)))
    assert set(terms) == {
        *("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
    }
    assert all(torch.isfinite(term) and term >= 0 for term in terms.values())
    sum(terms.values()).backward()
    first = network.backbone.backbone.conv1[0].weight.grad
    assert first.isfinite().all()
    assert first.any()
    for found in detect(network, DataLoader(rectangles(6), 3)):
        assert 0 < len(found.boxes) <= 10
        assert (found.boxes >= 0).all()
        assert (found.boxes <= 1).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert set(found.labels.tolist()) <= {0, 1, 2}
        assert (found.scores.diff() <= 0).all()


def test_the_best_box_has_the_true_class_if_possible():
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    found = Detections(boxes, torch.tensor([2, 0, 0]), torch.tensor([0.9, 0.6, 0.3]))
    assert found.best_box(0).equal(boxes[1])
    assert found.best_box(1).equal(boxes[0])
    assert Detections(boxes[:1], None, torch.ones(1)).best_box(1).equal(boxes[0])
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert nothing.best_box(0).equal(torch.zeros(4))


def test_an_untrained_regressor_predicts_the_centred_box():
    network = build(Regressor(giou=2.0, smooth_l1=3.0, beta=0.1)).eval()
    image = torch.rand(2, 3, SIDE, SIDE)
    assert network(image)[0].boxes.tolist() == [[0.25, 0.25, 0.75, 0.75]]
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.5, 0.25, 1.0, 0.75]])
    terms = network.losses(image, box, torch.zeros(2))
    giou = 1 / 3  # two boxes of area 1/4 share 1/8; hull and union are 3/8
    assert terms["giou"].item() == pytest.approx(2 * (0 + 1 - giou) / 2)
    assert terms["smooth_l1"].item() == pytest.approx(3 * (0.25 - 0.1 / 2) / 8)


def test_a_mirrored_image_has_the_mirrored_box(learned):
    """It is exact if boxes are the mean of both. The network alone is only close."""
    network, _, _ = learned
    image = batch(rectangles(8, seed=3))[0]
    found, mirrored = (
        torch.cat([each.boxes for each in network(images)]) for images in (image, image.flip(3))
    )
    back = torch.stack([1 - mirrored[:, 2], mirrored[:, 1], 1 - mirrored[:, 0], mirrored[:, 3]], 1)
    torch.testing.assert_close(found, back, rtol=0, atol=1e-5)
    assert (found[:, 0] - found[0, 0]).abs().max() > 0.05  # not one box for all


def test_mirrored_images_have_mirrored_boxes(tmp_path):
    """After augmentation, the box still surrounds a rectangle with a red and a blue half."""
    pixels = np.full((48, 64, 3), 128, np.uint8)
    pixels[10:30, 12:24], pixels[10:30, 24:36] = (255, 0, 0), (0, 0, 255)
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    examples = [
        Example(i, "a.png", tmp_path / "a.png", 0, ((12, 10, 36, 30),), None) for i in range(8)
    ]
    data = DataConfig("unused", image_size=64, resize=72, batch_size=8, num_workers=0)
    torch.manual_seed(0)
    mirrored = []
    for item in [i for _ in range(4) for i in data.loader_of(examples, training=True).dataset]:
        red, _, blue = item["image"]
        columns = ((red - blue).abs() > 0.7).any(dim=0).nonzero()[:, 0]
        rows = ((red - blue).abs() > 0.7).any(dim=1).nonzero()[:, 0]
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.array(seen) - item["box"].numpy()).max() <= 1.01
        mirrored.append(bool(blue[rows[3], columns[2]] > red[rows[3], columns[2]]))
    assert {True, False} == set(mirrored)
    whole = next(iter(data.loader_of(examples, training=False)))
    assert whole["box"].tolist() == [pytest.approx([12, 10 * 64 / 48, 36, 30 * 64 / 48])] * 8


def test_a_broken_folder_is_named(tmp_path):
    settings = Regressor(width=8)
    save_detector(build(settings), tmp_path / "d")
    file, head = tmp_path / "d" / "detector.json", tmp_path / "d" / "head.safetensors"
    about, weights = json.loads(file.read_text()), head.read_bytes()
    for change, reason in (
        ({"kind": "Nothing"}, "no kind 'Nothing' among .*Regressor"),
        ({"settings": {"gird": 2}}, "gird"),
        ({"settings": {"grid": 0}}, "grid and width must be"),
        ({"settings": {"width": 10**15}}, "memory"),
        ({"class_names": None}, "class_names"),
        ({"class_names": "abc"}, "class_names"),
        ({"class_names": ["a", "a", "b"]}, "class_names"),
    ):
        file.write_text(json.dumps(about | change))
        match = f"cannot build a detector from .*detector.json: .*{reason}"
        with pytest.raises(ValueError, match=match):
            load_detector(tmp_path / "d")
    file.write_text(json.dumps({"settings": {}}))
    with pytest.raises(ValueError, match="json: no 'kind' in it"):
        load_detector(tmp_path / "d")
    file.write_text(json.dumps(about | {"settings": about["settings"] | {"width": 16}}))
    with pytest.raises(ValueError, match=r"head.safetensors does not fit .*head.0.weight"):
        load_detector(tmp_path / "d")
    file.write_text("{")
    with pytest.raises(ValueError, match="detector.json"):
        load_detector(tmp_path / "d")
    file.write_text(json.dumps(about))
    broken = safetensors.torch.load(weights)
    broken["head.0.weight"][0, 0] = float("nan")
    safetensors.torch.save_file(broken, head)
    with pytest.raises(ValueError, match=r"head.safetensors .* not finite: head.0.weight"):
        load_detector(tmp_path / "d")
    head.write_bytes(weights[:100])
    with pytest.raises(ValueError, match=r"cannot read weights from .*head.safetensors"):
        load_detector(tmp_path / "d")
    head.unlink()
    with pytest.raises(ValueError, match="no head.safetensors in it"):
        load_detector(tmp_path / "d")
    for wrong in (lambda: Regressor(grid=0), lambda: Regressor(giou=0, smooth_l1=0)):
        with pytest.raises(ValueError, match="Regressor"):
            wrong()
    with pytest.raises(ValueError, match="levels of FasterRCNN must be at most 5"):
        build(FasterRCNN(levels=6))
    with pytest.raises(ValueError, match="training"):
        Training(epochs=0)


def test_a_loss_that_is_not_finite_stops():
    network = build(Regressor(width=8))
    torch.nn.init.constant_(network.head[0].weight, float("nan"))
    loader = DataLoader(rectangles(4), 4)
    with pytest.raises(FloatingPointError, match="lower training.lr"):
        fit_detector(network, loader, loader, Training(epochs=1))
