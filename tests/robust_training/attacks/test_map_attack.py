"""Attacks on maps."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from robust_training.attacks.map_attack import MapAttack, MassCentre, Noise, Region
from robust_training.attacks.pgd import PGD
from robust_training.attribution.class_activation import class_activation
from robust_training.attribution.explanation import (
    ClassActivation,
    Differentiation,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
    input_x_gradient,
    integrated_gradients,
)
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score
from robust_training.attribution.similarity import top_k_intersection
from robust_training.autograd.curvature import Recomputed
from robust_training.models.classifier import Classifier
from wsol.robustness.under_attack import RobustnessConfig


def test_a_linear_map_never_changes(images):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 3))
    net.num_classes = 3
    image, label = images
    found = MapAttack()(Classifier(net), image, label)
    torch.testing.assert_close(found.intersection, torch.ones(6))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_beats_noise_and_keeps_class_radius_and_range(network, images, norm):
    image, label = images
    eps = 8 / 255 if norm == "linf" else 1.0
    attack = MapAttack(PGD(eps, eps / 4, steps=8, norm=norm))
    torch.manual_seed(0)
    found = attack(network, image, label)
    predicted = network(image).argmax(dim=1)
    assert found.kept.any()
    assert (network(found.image).argmax(dim=1) == predicted).all()
    distance = (found.image - image).flatten(1)
    length = distance.abs().amax(1) if norm == "linf" else distance.norm(dim=1)
    assert (length <= eps * (1 + 1e-5)).all()
    assert found.image.min() >= 0
    assert found.image.max() <= 1
    clean = attack.maps(network, image, label).flatten(1)
    moved = attack.maps(network, found.image, label).flatten(1)
    again = top_k_intersection(clean, moved, 102)
    torch.testing.assert_close(again[found.kept], found.intersection[found.kept])
    noise = replace(attack, goal=Noise())(network, image, label)
    assert found.intersection.mean() < noise.intersection.mean() - 0.05
    exact = replace(attack, curvature="exact")(network, image, label)
    assert abs(exact.intersection.mean() - found.intersection.mean()) < 0.1


def test_other_goals_are_reached(network, images):
    """More mass moves into the region than under noise, and the centre moves further away."""
    image, label = images
    attack = MapAttack(PGD(8 / 255, 2 / 255, steps=8))
    clean = attack.maps(network, image, label)
    corner = Region(0, 0, 0.5, 0.5)

    def inside(maps):
        return (maps[:, :16, :16].sum(dim=(1, 2)) / maps.sum(dim=(1, 2))).mean()

    def shift(maps):
        axis = torch.arange(32.0)
        centres = [
            torch.stack([(m.sum(1) @ axis, m.sum(0) @ axis)[i] / m.sum() for i in (0, 1)])
            for pair in (maps, clean)
            for m in pair
        ]
        moved, origin = torch.stack(centres).chunk(2)
        return (moved - origin).norm(dim=1).mean()

    for goal, reached in ((corner, inside), (MassCentre(), shift)):
        results = []
        for each in (goal, Noise()):
            torch.manual_seed(0)
            found = replace(attack, goal=each)(network, image, label)
            results.append(reached(attack.maps(network, found.image, label)))
        assert results[0] > 1.1 * results[1], goal


@pytest.mark.parametrize("curvature", ["exact", "finite_difference"])
def test_images_of_a_batch_do_not_depend_on_each_other(network, images, curvature):
    """A batch and single images from the same start, also after some images were finished."""
    image, label = images[0].double(), images[1]
    model = deepcopy(network).double()
    pgd = PGD(8 / 255, 2 / 255, 4, random_start=False)
    attack = MapAttack(pgd, curvature=curvature, stop_at=0.2)
    together = attack(model, image, label)
    assert len({float(value) <= 0.2 for value in together.intersection}) == 2
    for index in range(len(image)):
        one = attack(model, image[index : index + 1], label[index : index + 1])
        assert (one.image - together.image[index]).abs().max() < 1e-9
        assert one.intersection == together.intersection[index]


def test_a_longer_attack_and_more_starts_are_not_weaker(network, images):
    """From the same starts, the best of more iterates is at least as good as the best of fewer."""
    image, label = images
    intersections = []
    for steps, restarts in ((1, 1), (4, 1), (8, 1), (8, 3)):
        torch.manual_seed(0)
        attack = MapAttack(
            PGD(8 / 255, 2 / 255, steps), attribution=InputXGradient(), restarts=restarts
        )
        intersections.append(attack(network, image, label).intersection)
    for shorter, longer in pairwise(intersections):
        assert (shorter >= longer).all()


@pytest.mark.parametrize("corner", [Region(0.9, 0.9, 0.92, 0.92), Region(0.99, 0.99, 1, 1)])
def test_a_region_contains_at_least_one_pixel(images, corner):
    mass = torch.ones(1, 32, 32) / 1024
    score = corner.score(lambda image: mass, mass, 1)
    assert score(images[0][:1]) > 0


def test_a_larger_radius_lowers_the_intersection(network, images):
    image, label = images
    intersections = []
    for eps in (1 / 255, 4 / 255, 16 / 255):
        torch.manual_seed(0)
        attack = MapAttack(PGD(eps, eps / 4, 8))
        intersections.append(attack(network, image, label).intersection.mean())
    assert intersections == sorted(intersections, reverse=True)


class TwoUnits(torch.nn.Module):
    """relu(a . x - 0.2) + 3 relu(b . x - 0.2): a is zero on the right half, b on the left half."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.zeros(2, 3, 8, 8)
        self.a[:, :, :4] = 0.01 * (1 + torch.rand(3, 8, 4))
        self.b[:, :, 4:] = 0.01 * (1 + torch.rand(3, 8, 4))

    def forward(self, x):
        left, right = ((x * w).sum(dim=(1, 2, 3)) for w in (self.a, self.b))
        score = (left - 0.2).relu() + 3 * (right - 0.2).relu()
        return torch.stack([score, torch.full_like(score, -1.0)], dim=1)


def test_the_attack_finds_the_worst_direction_of_two_units():
    """The left unit is on, the right one just off. Switching it on moves the largest pixels from
    left to right, and the shortest way there is up along b."""
    torch.manual_seed(0)
    net = TwoUnits()
    image = torch.full((1, 3, 8, 8), 0.5)
    image[:, :, :, 4:] *= 0.2 / (0.5 * net.b.sum()) * 0.98
    attack = MapAttack(PGD(0.01, 0.0025, 8, random_start=False), beta=20.0, curvature="exact")
    found = attack(Classifier(net), image, torch.tensor([0]))
    assert found.intersection == 0
    moved = found.image - image
    assert (moved[:, :, :, 4:] > 0).all()
    steps = moved[:, :, :, 4:] / 0.0025
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    too_small = replace(attack, attack=PGD(0.001, 0.0005, 8, random_start=False))
    assert too_small(Classifier(net), image, torch.tensor([0])).intersection == 1


@pytest.mark.parametrize(
    "attribution",
    [InputXGradient(), IntegratedGradients(4), SmoothGrad(3), ClassActivation()],
    ids=lambda each: type(each).__name__,
)
def test_every_explanation_can_be_attacked(network, images, attribution):
    side = 96 if attribution == ClassActivation() else 32  # its last map has 3 x 3 pixels
    image = F.interpolate(images[0], side)
    attack = MapAttack(PGD(8 / 255, 2 / 255, steps=6), attribution=attribution)
    label = network(image).argmax(dim=1)
    torch.manual_seed(0)
    found = attack(network, image, label)
    clean = attack.maps(network, image, label)
    assert clean.shape == (6, side, side)
    assert (clean.amax(dim=(1, 2)) > 1.05 * clean.amin(dim=(1, 2))).all()
    torch.testing.assert_close(attack.maps(network, image, label), clean, rtol=0, atol=0)
    single = attack.maps(network, image[2:3], label[2:3])
    torch.testing.assert_close(single, clean[2:3], rtol=1e-3, atol=1e-4 * float(clean.max()))
    noise = replace(attack, goal=Noise())(network, image, label)
    assert found.intersection.mean() < noise.intersection.mean() - 0.02


def test_maps_equal_the_plain_functions(network, images):
    image, label = images
    score = class_score(network, label)
    pairs = (
        (InputXGradient(), input_x_gradient(score, image)),
        (IntegratedGradients(7), integrated_gradients(score, image, steps=7)),
        (SmoothGrad(2, noise=0.0), input_gradient(score, image)),
    )
    for attribution, expected in pairs:
        maps = attribution.maps(network, label)(image)
        torch.testing.assert_close(maps, expected.abs().sum(dim=1), rtol=1e-4, atol=1e-6)
    coarse = class_activation(network, image, label).relu()
    size = coarse.shape[1:]
    fine = ClassActivation().maps(network, label)(image)
    torch.testing.assert_close(fine.mean(dim=(1, 2)), coarse.mean(dim=(1, 2)), rtol=0.2, atol=0)
    assert fine.shape[1:] == (32, 32) != size


@pytest.mark.parametrize("attribution", [IntegratedGradients(3), SmoothGrad(2), ClassActivation()])
@pytest.mark.parametrize(
    "curvature",
    ["exact", "finite_difference", Recomputed("exact"), Recomputed("finite_difference")],
    ids=str,
)
def test_the_gradient_of_a_map_equals_central_differences(network, images, attribution, curvature):
    image, label = images[0][:2].double(), images[1][:2]
    model = deepcopy(network).double()
    maps = attribution.maps(model, label, Differentiation(curvature=curvature, beta=10.0))
    weight = torch.rand(2, 32, 32, dtype=torch.float64)
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((maps(leaf) * weight).sum(), leaf)
    direction = torch.randn_like(image)
    step = 1e-6 * direction
    ahead, behind = ((maps(point) * weight).sum() for point in (image + step, image - step))
    expected = (ahead - behind).detach() / 2e-6
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=2e-3, atol=0)


class Held:
    """A tensor that a graph stores."""

    kept: ClassVar[int] = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Held.kept += tensor.numel()

    def __del__(self):
        Held.kept -= self.tensor.numel()


def test_a_long_path_stores_only_its_images(network, images):
    """Each point adds images to the graph, but no activations of layers."""
    image, label = images
    held = {}
    for steps in (2, 12):
        explained = IntegratedGradients(steps)
        maps = explained.maps(network, label, Differentiation(curvature=Recomputed("exact")))
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            before, result = Held.kept, maps(image.clone().requires_grad_())
            held[steps] = Held.kept - before
        del result
    assert 0 < held[12] - held[2] <= 10 * 2 * image.numel()


def test_a_radius_of_zero_changes_no_map(network, images):
    image, label = images
    found = MapAttack(PGD(eps=0.0, step_size=1 / 255, steps=2))(network, image, label)
    torch.testing.assert_close(found.image, image)
    assert (found.intersection == 1).all()
    assert found.kept.all()


def test_damaged_weights_and_too_many_pixels_are_named(network, images):
    image, label = images
    with pytest.raises(ValueError, match="2000 pixels, and a map has 1024"):
        MapAttack(top_k=2000)(network, image, label)
    model = deepcopy(network)
    torch.nn.init.constant_(model.backbone.fc.weight, torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        MapAttack()(model, image, label)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: MapAttack(top_k=0.0), "top_k of MapAttack"),
        (lambda: MapAttack(top_k=1.5), "top_k of MapAttack"),
        (lambda: MapAttack(top_k=0), "top_k of MapAttack"),
        (lambda: MapAttack(stop_at=1.5), "stop_at of MapAttack"),
        (lambda: SmoothGrad(samples=0), "SmoothGrad needs"),
        (lambda: RobustnessConfig(images=0), "images of a RobustnessConfig"),
        (lambda: MapAttack(PGD(steps=0)), "attack.steps of MapAttack"),
        (lambda: MapAttack(restarts=0), "restarts of MapAttack"),
        (lambda: MapAttack(PGD(random_start=False), restarts=2), "restarts of MapAttack"),
        (lambda: Region(0.5, 0, 0.5, 1), "Region needs"),
    ],
)
def test_bad_settings_name_the_field(make, word):
    with pytest.raises(ValueError, match=word):
        make()
