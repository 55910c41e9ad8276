"""Attacks on maps, and what is reported of them."""

import pytest
import torch
from torch.utils.data import DataLoader

from robust_training.attack import PGD
from robust_training.feature_attack import TopKAttack
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
    found = TopKAttack()(Classifier(net), image, label)
    torch.testing.assert_close(found.intersection, torch.ones(6))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_beats_noise_and_keeps_class_ball_and_range(network, images, norm):
    image, label = images
    eps = 8 / 255 if norm == "linf" else 1.0
    pgd = PGD(eps, eps / 4, steps=8, norm=norm)
    attack = TopKAttack(pgd)
    torch.manual_seed(0)
    found = attack(network, image, label)
    predicted = network(image).argmax(dim=1)
    assert found.kept.any()
    assert (network(found.image).argmax(dim=1) == predicted).all()
    distance = (found.image - image).flatten(1)
    length = distance.abs().amax(1) if norm == "linf" else distance.norm(dim=1)
    assert (length <= eps * (1 + 1e-5)).all()
    assert (found.image.min(), found.image.max()) >= (0, 0)
    assert found.image.max() <= 1
    clean = attack.maps(network, image, label)
    k = round(0.1 * 1024)
    again = top_k_intersection(clean, attack.maps(network, found.image, label), k)
    torch.testing.assert_close(again[found.kept], found.intersection[found.kept])
    noise = top_k_intersection(clean, attack.maps(network, pgd.start(image), label), k)
    assert found.intersection.mean() < noise.mean() - 0.05
    exact = TopKAttack(pgd, curvature="exact")(network, image, label)
    assert abs(exact.intersection.mean() - found.intersection.mean()) < 0.1


def test_a_longer_attack_shares_no_more(network, images):
    """From the same start, the best of more steps is the best of fewer, or better."""
    image, label = images
    shares = []
    for steps in (1, 4, 8):
        torch.manual_seed(0)
        attack = TopKAttack(PGD(8 / 255, 2 / 255, steps), attribution=InputXGradient())
        shares.append(attack(network, image, label).intersection)
    assert (shares[0] >= shares[1]).all()
    assert (shares[1] >= shares[2]).all()


def test_scores_of_a_split(network, images):
    image, _ = images
    label = network(image).argmax(dim=1)
    label[0] = (label[0] + 1) % 3  # one image is wrong from the start
    items = [{"image": i, "label": int(y)} for i, y in zip(image, label, strict=True)]
    attack = TopKAttack(PGD(2 / 255, 1 / 255, 3))
    scores = robustness(network, DataLoader(items, 4), attack)["robustness"]
    assert (scores["images"], scores["correct"]) == (6, 5)
    assert 0 < scores["top_k_intersection"] < scores["under_noise"] < 1
    assert scores["accuracy"] <= 5 / 6
    low, high = scores["intervals"]["top_k_intersection"]
    assert low <= scores["top_k_intersection"] <= high
    assert scores["attack"]["attribution"] == "InputGradient"
    assert robustness(network, DataLoader(items, 4), attack)["robustness"] == scores
    wrong = [item | {"label": (item["label"] + 1) % 3} for item in items[1:]]
    scores = robustness(network, DataLoader(wrong, 4), attack)["robustness"]
    assert (scores["correct"], scores["top_k_intersection"]) == (0, None)


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"top_k": 0.0}, "top_k"), ({"top_k": 1.5}, "top_k"), ({"attack": PGD(steps=0)}, "steps")],
)
def test_bad_settings_name_the_field(settings, word):
    with pytest.raises(ValueError, match=f"{word} of TopKAttack"):
        TopKAttack(**settings)
