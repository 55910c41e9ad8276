"""Attacks on maps, and what is reported of them."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.utils.data import DataLoader

from robust_training.attack import PGD
from robust_training.map_attack import MapAttack, MassCentre, Noise, Region
from robust_training.maps import InputXGradient
from robust_training.model import Classifier, create_model
from robust_training.similarity import pearson, top_k_intersection
from wsol.robustness import robustness


def test_top_k_intersection_by_hand():
    first = torch.tensor([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5]])
    second = torch.tensor([[5.0, 1, 4, 2, 3], [1, 2, 3, 4, 5]])
    torch.testing.assert_close(top_k_intersection(first, second, 2), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(top_k_intersection(first, second, 5), torch.ones(2))
    for k in (0, 6):
        with pytest.raises(ValueError, match="1 to the 5 pixels"):
            top_k_intersection(first, second, k)


def test_pearson_equals_numpy_and_a_constant_has_none():
    rows = torch.randn(2, 4, 30, dtype=torch.float64)
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*rows, strict=True)]
    torch.testing.assert_close(pearson(*rows), torch.stack(expected), rtol=1e-6, atol=1e-6)
    assert pearson(torch.ones(5), torch.randn(5)) == 0


@pytest.fixture(scope="module")
def network() -> Classifier:
    torch.manual_seed(0)
    model = create_model("test_resnet", 3, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    return model


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 32, 32, generator=generator), torch.arange(6) % 3


def test_a_linear_map_never_changes(images):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 3))
    net.num_classes = 3
    image, label = images
    found = MapAttack()(Classifier(net), image, label)
    torch.testing.assert_close(found.intersection, torch.ones(6))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_beats_noise_and_keeps_class_ball_and_range(network, images, norm):
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
    """Mass moves into the region, and its centre away, further than under noise."""
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


def test_images_of_a_batch_do_not_meet(network, images):
    """Attacked together or alone, from the same start."""
    image, label = images
    attack = MapAttack(PGD(8 / 255, 2 / 255, 4, random_start=False), curvature="exact")
    together = attack(network, image, label)
    for index in range(3):
        one = attack(network, image[index : index + 1], label[index : index + 1])
        assert abs(one.intersection - together.intersection[index]) < 0.05


def test_a_longer_attack_and_more_starts_share_no_more(network, images):
    """From the same starts, the best of more iterates is the best of fewer, or better."""
    image, label = images
    shares = []
    for steps, restarts in ((1, 1), (4, 1), (8, 1), (8, 3)):
        torch.manual_seed(0)
        attack = MapAttack(
            PGD(8 / 255, 2 / 255, steps), attribution=InputXGradient(), restarts=restarts
        )
        shares.append(attack(network, image, label).intersection)
    for shorter, longer in pairwise(shares):
        assert (shorter >= longer).all()


def test_scores_of_a_split(network, images):
    image, _ = images
    label = network(image).argmax(dim=1)
    label[0] = (label[0] + 1) % 3  # one image is wrong from the start
    box = torch.tensor([4.0, 4.0, 28.0, 28.0])
    items = [{"image": i, "label": int(y), "box": box} for i, y in zip(image, label, strict=True)]

    def scores(items):
        attack = MapAttack(PGD(2 / 255, 1 / 255, 3))
        found = robustness(network, DataLoader(items, 4), threshold=0.3, attack=attack)
        return found["robustness"]

    found = scores(items)
    assert (found["images"], found["correct"]) == (6, 5)
    assert found["accuracy"]["mean"] <= 5 / 6
    for name, measure in found["measures"].items():
        low, high = measure["interval"]
        assert low <= measure["mean"] <= high
        better = -1 if name == "centre_shift" else 1
        assert better * measure["mean"] <= better * measure["under_noise"] + 0.05, name
    assert 0 < found["measures"]["top_k_intersection"]["mean"] < 1
    assert found["attack"]["goal"] == "TopK"
    assert scores(items) == found
    found = scores([item | {"label": (item["label"] + 1) % 3} for item in items[1:]])
    assert found["correct"] == 0
    assert found["measures"]["kendall"]["mean"] is None
    assert found["boxes"]["attacked"]["mean"] is None


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: MapAttack(top_k=0.0), "top_k of MapAttack"),
        (lambda: MapAttack(top_k=1.5), "top_k of MapAttack"),
        (lambda: MapAttack(PGD(steps=0)), "attack.steps of MapAttack"),
        (lambda: MapAttack(restarts=0), "restarts of MapAttack"),
        (lambda: MapAttack(PGD(random_start=False), restarts=2), "restarts of MapAttack"),
        (lambda: Region(0.5, 0, 0.5, 1), "Region needs"),
    ],
)
def test_bad_settings_name_the_field(make, word):
    with pytest.raises(ValueError, match=word):
        make()
