"""What is reported of attacks on maps."""

import json
from copy import deepcopy

import pytest
import torch
from torch.utils.data import DataLoader

from robust_training.attack import PGD
from robust_training.map_attack import MapAttack
from robust_training.maps import InputXGradient
from robust_training.model import Classifier
from wsol.adversarial_accuracy import AccuracyCurve
from wsol.cells import markdown
from wsol.robustness import RobustnessConfig, robustness
from wsol.robustness_tables import robustness_tables


def test_maps_without_a_pixel_that_differs_are_counted_apart(network, images):
    model = deepcopy(network)
    torch.nn.init.zeros_(model.backbone.fc.weight)
    torch.nn.init.zeros_(model.backbone.fc.bias)
    box = torch.tensor([4.0, 4.0, 28.0, 28.0])
    items = [{"image": each, "label": 0, "box": box} for each in images[0]]
    config = RobustnessConfig([MapAttack(PGD(steps=1))], [], images=None)
    found = robustness(model, DataLoader(items, 4), 0.3, config)
    (under,) = found["robustness"]["maps"]
    assert (under["correct"], under["without_map"]) == (6, 6)
    assert under["measures"]["kendall"]["mean"] is None
    json.dumps(found, allow_nan=False)
    assert "nan" not in table_text(found).lower()


def table_text(found) -> str:
    return "".join(markdown(*each) for each in robustness_tables({"run": found}))


def test_scores_of_a_split(network, images):
    image, _ = images
    label = network(image).argmax(dim=1)
    label[0] = (label[0] + 1) % 3  # one image is wrong from the start
    box = torch.tensor([4.0, 4.0, 28.0, 28.0])
    items = [{"image": i, "label": int(y), "box": box} for i, y in zip(image, label, strict=True)]
    pgd = PGD(2 / 255, 1 / 255, 3)
    config = RobustnessConfig(
        [MapAttack(pgd), MapAttack(pgd, attribution=InputXGradient(), top_k=50)],
        [AccuracyCurve([0, 2 / 255], pgd)],
        images=None,
    )

    def scores(items):
        found = robustness(network, DataLoader(items, 4), 0.3, config)
        json.dumps(found, allow_nan=False)
        assert "nan" not in table_text(found)
        return found["robustness"]

    found = scores(items)
    first, second = found["maps"]
    assert (found["images"], first["correct"], second["correct"]) == (6, 5, 5)
    assert found["accuracy"][0]["accuracy"][0] == pytest.approx(5 / 6)
    for name, measure in first["measures"].items():
        low, high = measure["interval"]
        assert low <= measure["mean"] <= high
        better = -1 if name == "centre_shift" else 1
        assert better * measure["mean"] <= better * measure["under_noise"] + 0.05, name
    assert 0 < first["measures"]["top_k_intersection"]["mean"] < 1
    assert first["attack"]["goal"]["class"] == "TopK"
    assert second["attack"]["top_k"] == 50
    for kind in ("gt_known_loc", "top1_loc"):
        drop = first["boxes"][kind]
        change = drop["attacked"]["mean"] - drop["clean"]["mean"]
        assert drop["change"]["mean"] == pytest.approx(change)
    again = scores(items)
    for one, other in zip(found["maps"], again["maps"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    assert found["accuracy"] == again["accuracy"]
    (first, _) = scores([item | {"label": (item["label"] + 1) % 3} for item in items[1:]])["maps"]
    assert first["correct"] == 0
    assert first["measures"]["kendall"]["mean"] is None
    assert first["boxes"]["top1_loc"]["attacked"]["mean"] == 0


def test_scores_of_a_linear_model_are_those_of_equal_maps(images):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 3))
    net.num_classes = 3
    model = Classifier(net)
    label = model(images[0]).argmax(dim=1)
    box = torch.tensor([4.0, 4.0, 28.0, 28.0])
    items = [
        {"image": i, "label": int(y), "box": box} for i, y in zip(images[0], label, strict=True)
    ]
    config = RobustnessConfig([MapAttack(PGD(8 / 255, 2 / 255, 3))], [], images=4)
    found = robustness(model, DataLoader(items, 4), 0.3, config)["robustness"]
    assert (found["images"], found["of_images"]) == (4, 6)
    for name, measure in found["maps"][0]["measures"].items():
        expected = 0 if name == "centre_shift" else 1
        assert measure["mean"] == pytest.approx(expected, abs=1e-6), name
    assert found["maps"][0]["boxes"]["gt_known_loc"]["change"]["mean"] == 0
