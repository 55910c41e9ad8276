"""Attacks on detectors, against hand-computed networks and trained ones."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, generalized_box_iou

from robust_training.attacks.pgd import PGD
from robust_training.models.creating import create_model
from wsol.data.loaders import DataConfig
from wsol.detectors import Detections, FasterRCNN, Regressor
from wsol.robustness.detector_attack import BoxAttack, attack_detector, best_boxes

SIDE = 32
ATTACK = PGD(eps=4 / 255, step_size=1 / 255, steps=10)


def build(settings, seed=0):
    torch.manual_seed(seed)
    network = settings.build(create_model("test_resnet", 3, image_size=SIDE), ["a", "b", "c"])
    for weight in network.head[-1:].parameters() if isinstance(settings, Regressor) else ():
        torch.nn.init.normal_(weight, std=0.3)
    return network.eval()


def images(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, SIDE, SIDE, generator=generator), torch.arange(count) % 3


class Brightness:
    """A detector whose box is [0.25, 0.28, 0.25 + brightness, 0.65]. Its distance falls with the
    brightness."""

    backbone = SimpleNamespace(device=torch.device("cpu"))

    def detect(self, image):
        ends = 0.25 + image.flatten(1).mean(dim=1)
        boxes = [image.new_tensor([[0.25, 0.28, end, 0.65]]) for end in ends.tolist()]
        return [Detections(box, None, torch.ones(1)) for box in boxes]

    def distance(self, image, box, label):
        return box[:, 2] - image.flatten(1).mean(dim=1)

    def modules(self):
        return []

    parameters = modules


@pytest.mark.parametrize("settings", [Regressor(width=8), FasterRCNN(levels=2, width=8)])
def test_an_attack_moves_boxes_more_than_noise_and_stays_in_its_ball(settings):
    network, (image, label) = build(settings), images()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(0)
    attacked = BoxAttack(ATTACK)(network, image, best_boxes(network, image, label), label)
    assert (attacked - image).abs().max() <= 4 / 255 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    clean, moved, noisy = (
        best_boxes(network, each, label)
        for each in (image, attacked, dataclasses.replace(ATTACK, steps=0).start(image))
    )
    overlap = box_iou(clean, moved).diagonal()
    assert overlap.mean() < box_iou(clean, noisy).diagonal().mean() - 0.03
    for name, value in network.state_dict().items():
        assert value.equal(state[name]), name
    assert not any(module.training for module in network.modules())
    assert all(weight.requires_grad for weight in network.parameters())


def test_the_distance_of_a_regressor_is_its_loss_of_each_image_and_its_mirror_image():
    image, label = images(4)
    network = build(Regressor(width=8, flip=False))
    box = torch.tensor([[0.1, 0.2, 0.6, 0.7]]).repeat(4, 1)
    losses = network.losses(image, box, label)
    each = network.distance(image, box, label)
    assert each.shape == (4,)
    assert each.mean().item() == pytest.approx(sum(losses.values()).item(), rel=1e-5)
    both = build(Regressor(width=8, smooth_l1=0.0))
    found = torch.cat([one.boxes for one in both(image)])
    expected = 1 - generalized_box_iou(found, box).diagonal()
    torch.testing.assert_close(both.distance(image, box, label), expected, atol=1e-5, rtol=1e-4)


def test_scores_before_and_after_an_attack_by_hand(shared_split):
    """The brightness falls by eps everywhere, so the box loses eps of its width."""
    attack = PGD(eps=0.1, step_size=0.05, steps=4, random_start=False)
    result = attack_detector(Brightness(), shared_split, BoxAttack(attack, images=12))
    wider = [item["image"].mean().item() for item in chosen(shared_split, 12)]
    truths = [item["box"].numpy() / SIDE for item in chosen(shared_split, 12)]

    def hits(change):
        boxes = [np.array([0.25, 0.28, 0.25 + b + change, 0.65]) for b in wider]
        return np.mean([overlap(*pair) >= 0.5 for pair in zip(boxes, truths, strict=True)])

    assert 0 < hits(0) < hits(-0.1) < 1  # these boxes are too wide for most birds
    assert result["gt_known_loc"]["clean"]["mean"] == pytest.approx(hits(0))
    assert result["gt_known_loc"]["attacked"]["mean"] == pytest.approx(hits(-0.1))
    shrunk = np.mean([(b - 0.1) / b for b in wider])
    assert result["iou_with_clean"]["mean"] == pytest.approx(shrunk, abs=1e-3)
    assert (result["images"], result["of_images"]) == (12, len(shared_split.dataset))
    assert result == attack_detector(Brightness(), shared_split, BoxAttack(attack, images=12))


def test_a_box_without_area_stays():
    network, (image, label) = build(FasterRCNN(levels=2, width=8)), images(2)
    empty = [Detections(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0))] * 2
    network.forward = lambda _: empty
    clean = best_boxes(network, image, label)
    assert BoxAttack(ATTACK)(network, image, clean, label).equal(image)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="images of a BoxAttack"):
        BoxAttack(images=0)
    with pytest.raises(ValueError, match="attack.steps of a BoxAttack"):
        BoxAttack(PGD(steps=0))


@pytest.fixture
def shared_split(toy):
    return DataConfig(str(toy), image_size=SIDE, num_workers=0, batch_size=4).loader("test")


def chosen(loader, count):
    total = len(loader.dataset)
    return [loader.dataset[i] for i in np.linspace(0, total - 1, count).round().astype(int)]


def overlap(first, second):
    pair = (torch.tensor(each, dtype=torch.float64)[None] for each in (first, second))
    return box_iou(*pair).item()


def test_all_images_are_attacked_if_no_number_is_given(shared_split):
    network, attack = build(Regressor(width=8)), BoxAttack(ATTACK, images=None)
    result = attack_detector(network, shared_split, attack)
    assert result["images"] == result["of_images"] == len(shared_split.dataset)
