import sys
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from robust_training.attacks.pgd import PGD
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import cross_entropy_score, margin_score
from robust_training.models.classifier import Classifier
from robust_training.models.creating import create_model
from wsol.robustness.adversarial_accuracy import AccuracyCurve, AutoAttackCurve, accuracy_curve
from wsol.robustness.autoattack import AutoAttack
from wsol.robustness.under_attack import RobustnessConfig


def pgd_curve(radii, norm):
    attack = PGD(eps=0.1, step_size=0.1, steps=5, random_start=False, norm=norm)
    return AccuracyCurve(radii, attack)


def autoattack_curve(radii, norm):
    pytest.importorskip("pyautoattack")
    return AutoAttackCurve(radii, AutoAttack(("apgd-ce",), norm))


@pytest.mark.parametrize("make_curve", [pgd_curve, autoattack_curve])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_classifier_fails_at_its_distance_from_the_border(norm, make_curve):
    """With two classes, the exact radius is |margin| / (dual norm of the weights' difference)."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 2))
    net.num_classes = 2
    model = Classifier(net)
    image = 0.3 + 0.4 * torch.rand(12, 3, 3, 3)
    with torch.no_grad():
        logits = model(image)
    label = logits.argmax(dim=1)
    difference = net[1].weight[0] - net[1].weight[1]
    dual = difference.abs().sum() if norm == "linf" else difference.norm()
    distance = ((logits[:, 0] - logits[:, 1]).abs() / dual).detach().numpy()
    radii = [0.0, *np.quantile(distance, [0.3, 0.6]).tolist()]
    items = [{"image": i, "label": int(y)} for i, y in zip(image, label, strict=True)]
    found = accuracy_curve(model, DataLoader(items, 5), make_curve(radii, norm))
    assert found["accuracy"] == pytest.approx([(distance > radius).mean() for radius in radii])
    assert found["eps"] == radii
    for accuracy, (low, high) in zip(found["accuracy"], found["intervals"], strict=True):
        assert low <= accuracy <= high


def test_more_restarts_and_larger_radii_do_not_raise_accuracy(tmp_path):
    torch.manual_seed(0)
    model = create_model("test_resnet", 3, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.fc.weight)
    image = torch.rand(8, 3, 32, 32)
    with torch.no_grad():
        model.backbone.fc.bias -= model(image).mean(dim=0)  # all classes have similar logits
    label = model(image).argmax(dim=1)
    items = [{"image": i, "label": int(y)} for i, y in zip(image, label, strict=True)]
    attack = PGD(eps=2 / 255, step_size=1 / 255, steps=3)
    one, three = (
        accuracy_curve(
            model, DataLoader(items, 8), AccuracyCurve([0, 0.002, 0.004, 0.05], attack, r)
        )
        for r in (1, 3)
    )
    assert one["accuracy"][0] == 1
    assert one["accuracy"] == sorted(one["accuracy"], reverse=True)
    assert one["accuracy"][-1] < 0.5
    assert all(a >= b for a, b in zip(one["accuracy"], three["accuracy"], strict=True))


def test_a_confident_network_can_be_attacked():
    """Its cross-entropy is zero in float32, and so is the gradient. Its margin is not zero."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 2))
    net.num_classes = 2
    net[1].weight.data *= 1e4
    image = 0.3 + 0.4 * torch.rand(12, 3, 3, 3)
    label = net(image).argmax(dim=1)
    assert (cross_entropy_score(net, label)(image) == 0).all()
    items = [{"image": i, "label": int(y)} for i, y in zip(image, label, strict=True)]
    attack = PGD(eps=0.3, step_size=0.1, steps=10, random_start=False)
    curve = AccuracyCurve([0, 0.3], attack)
    assert accuracy_curve(Classifier(net), DataLoader(items, 5), curve)["accuracy"] == [1, 0]


def test_the_margin_is_the_difference_between_logits(tiny, batch):
    image, label = batch
    tiny.eval()
    logits = tiny(image)
    margin = margin_score(tiny, label)(image)
    assert ((margin > 0) == (logits.argmax(dim=1) != label)).all()
    sure = Classifier(tiny.backbone, (0.5,) * 3, (0.3,) * 3).double().eval()
    assert input_gradient(margin_score(sure, label), image).abs().max() > 0


@pytest.mark.parametrize("radii", [[], [0.2, 0.1], [-0.1, 0.1]])
@pytest.mark.parametrize("curve", [lambda r: AccuracyCurve(r, PGD()), AutoAttackCurve])
def test_radii_out_of_order_are_refused(radii, curve):
    with pytest.raises(ValueError, match="rising order"):
        curve(radii)


@pytest.mark.parametrize(
    ("attack", "restarts"),
    [(PGD(eps=0.0), 1), (PGD(steps=0), 1), (PGD(), 0), (PGD(random_start=False), 2)],
)
def test_curves_without_an_attack_are_refused(attack, restarts):
    with pytest.raises(ValueError, match="AccuracyCurve"):
        AccuracyCurve([0, 0.1], attack, restarts)


def test_autoattack_finds_what_weak_pgd_misses():
    pytest.importorskip("pyautoattack")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(27, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4)
    )
    net.num_classes = 4
    net[3].weight.data *= 30
    model = Classifier(net, (0.4,) * 3, (0.2,) * 3)
    image = torch.rand(6, 3, 3, 3)
    label = model(image).argmax(dim=1)
    items = [{"image": i, "label": int(y)} for i, y in zip(image, label, strict=True)]
    radii = [0, 0.04]
    weak = AccuracyCurve(radii, PGD(eps=0.1, step_size=0.02, steps=2, random_start=False))
    strong = AutoAttackCurve(radii)
    expected = accuracy_curve(model, DataLoader(items, 6), weak)["accuracy"]
    found = accuracy_curve(model, DataLoader(items, 4), strong)
    assert found["accuracy"][0] == 1
    assert all(a <= b for a, b in zip(found["accuracy"], expected, strict=True))
    assert found["accuracy"] != expected
    assert found["protocol"] == "AutoAttack linf, apgd-ce, apgd-t"
    attacked = AutoAttack(("apgd-ce",))(model, 0.04, 0, image, label)
    assert (attacked - image).abs().max() <= 0.04 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    with pytest.raises(ValueError, match="needs 4 classes, and the model has 3"):
        strong.attack.require_runnable(3)


def test_autoattack_without_its_package_is_refused_in_one_sentence():
    with (
        mock.patch.dict(sys.modules, {"pyautoattack": None}),
        pytest.raises(ValueError, match=r"pip install 'wsol\[attacks\]'"),
    ):
        RobustnessConfig(autoattack=[AutoAttackCurve([0, 0.1])]).require_runnable(10)
