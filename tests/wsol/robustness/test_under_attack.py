"""The scores of attacks on maps."""

import json
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from robust_training.attacks.map_attack import Attacked, MapAttack, Noise
from robust_training.attacks.pgd import PGD
from robust_training.attribution.explanation import InputXGradient
from robust_training.attribution.similarity import is_constant, similarities
from robust_training.models.classifier import Classifier
from wsol.boxes.geometry import iou
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.dataset import Example
from wsol.heatmaps.heatmap import Gradient
from wsol.heatmaps.refined import Refined
from wsol.report.number_format import markdown
from wsol.report.robustness_tables import robustness_tables
from wsol.robustness.adversarial_accuracy import AccuracyCurve
from wsol.robustness.under_attack import RobustnessConfig, measure_robustness


class Split(list):
    """Items of a data set. Files have the size of the items, and each has one box."""

    def __init__(self, items):
        frame = torch.tensor(items[0]["image"].shape[:0:-1])
        super().__init__(item | {"index": i, "size": frame} for i, item in enumerate(items))
        self.examples = [
            Example(i, f"{i}", Path(f"{i}"), item["label"], (tuple(item["box"].tolist()),), None)
            for i, item in enumerate(items)
        ]


def test_constant_maps_are_left_out_and_counted(network, images):
    model = deepcopy(network)
    torch.nn.init.zeros_(model.backbone.fc.weight)
    torch.nn.init.zeros_(model.backbone.fc.bias)
    box = torch.tensor([4.0, 4.0, 28.0, 28.0])
    items = [{"image": each, "label": 0, "box": box} for each in images[0]]
    config = RobustnessConfig([MapAttack(PGD(steps=1))], [], images=None)
    found = measure_robustness(model, DataLoader(Split(items), 4), 0.3, config)
    (under,) = found["maps"]
    assert (under["correct"], under["without_map"]) == (6, 6)
    assert under["measures"]["kendall"]["mean"] is None
    json.dumps(found, allow_nan=False)
    assert "nan" not in table_text(found).lower()


def table_text(found) -> str:
    return "".join(markdown(*each) for each in robustness_tables({"run": {"robustness": found}}))


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
        found = measure_robustness(network, DataLoader(Split(items), 4), 0.3, config)
        json.dumps(found, allow_nan=False)
        assert "nan" not in table_text(found)
        return found

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


@dataclass(frozen=True)
class Mirror(MapAttack):
    """Returns mirror images, or with noise the images. Only images with a bright first pixel keep
    their class."""

    def __call__(self, model, image, label):
        kept, changed = torch.ones(len(image), dtype=torch.bool), image
        if not isinstance(self.goal, Noise):
            kept = image[:, 0, 0, 0] > 0.5
            changed = torch.where(kept[:, None, None, None], image.flip(3), image)
        maps = (self.maps(model, each, label) for each in (image, changed))
        return Attacked(changed, kept, torch.ones(len(image)), *maps)


def test_each_mean_is_over_its_own_images(network, images):
    image, _ = images
    image = image.clone()
    image[:, 0, 0, 0] = torch.tensor([0.9, 0.1, 0.9, 0.1, 0.9, 0.9])
    label = network(image).argmax(dim=1)
    label[5] = (label[5] + 1) % 3

    def boxes_of(images, method, threshold):
        return np.array(
            [largest_boxes(each, [threshold])[0] for each in method(network, images, label)]
        )

    truth = boxes_of(image, Gradient(), 0.75)
    rows = zip(image, label.tolist(), torch.tensor(truth), strict=True)
    items = [{"image": i, "label": y, "box": box} for i, y, box in rows]
    config = RobustnessConfig([Mirror()], [], images=None)
    refined = Refined(Gradient())
    others = {"refined gradient": (refined, 0.3), "gradient": (Gradient(), 0.1)}
    loader = DataLoader(Split(items), 4)
    found = measure_robustness(network, loader, 0.75, config, others=others)["maps"][0]
    assert (found["correct"], found["flipped"]) == (5, 2)
    maps = MapAttack().maps(network, image, label).double().numpy()
    moved = MapAttack().maps(network, image.flip(3), label).double().numpy()
    shares = [similarities(maps[i], moved[i], 102)["top_k_intersection"] for i in (0, 2, 4)]
    measure = found["measures"]["top_k_intersection"]
    assert measure["mean"] == pytest.approx(np.mean(shares))
    assert measure["flipped_as_same"] == pytest.approx((sum(shares) + 2) / 5)
    assert measure["under_noise"] == 1

    changed = torch.where((image[:, 0, 0, 0] > 0.5)[:, None, None, None], image.flip(3), image)
    drop = found["boxes"]["gt_known_loc"]
    hits = iou(boxes_of(changed, Gradient(), 0.75), truth) >= 0.5
    assert drop["clean"]["mean"] == 1
    assert drop["attacked"]["mean"] == pytest.approx(hits.mean())
    assert 0 < hits.mean() < 1
    top1 = found["boxes"]["top1_loc"]["attacked"]["mean"]
    assert top1 == pytest.approx(hits[:5].sum() / 6)

    (other,) = found["other_boxes"]  # the attacked map's own boxes are not repeated
    assert (other["heatmap"], other["threshold"]) == ("refined gradient", 0.3)
    for state, copies in (("clean", image), ("attacked", changed)):
        expected = (iou(boxes_of(copies, refined, 0.3), truth) >= 0.5).mean()
        assert other["gt_known_loc"][state]["mean"] == pytest.approx(expected)
    text = table_text({"images": 6, "maps": [found], "accuracy": []})
    assert "boxes of gradient at 0.75" in text
    assert "boxes of refined gradient at 0.3" in text


def test_chosen_images_are_spread_over_the_split(network, images):
    seen = []

    class Counting(Split):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    box = torch.tensor([4.0, 4.0, 28.0, 28.0])
    items = Counting([{"image": images[0][0], "label": 0, "box": box}] * 10)
    config = RobustnessConfig([MapAttack(PGD(steps=1))], [], images=4)
    measure_robustness(network, DataLoader(items, 4), 0.3, config)
    assert seen == [0, 3, 6, 9]


def test_a_map_that_differs_only_by_rounding_is_constant():
    noise = 1 + 1e-7 * np.random.default_rng(0).random((8, 8))
    assert is_constant(noise)
    assert is_constant(np.zeros((8, 8)))
    assert not is_constant(np.eye(8))


def test_a_bad_protocol_is_refused_before_the_work_begins():
    with pytest.raises(ValueError, match="2000 pixels, and a map has 1024"):
        RobustnessConfig([MapAttack(top_k=2000)]).require_size(32)
    with pytest.raises(ValueError, match="6 pixels a side"):
        RobustnessConfig().require_size(5)


def test_scores_of_a_linear_model_equal_scores_of_equal_maps(images):
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
    found = measure_robustness(model, DataLoader(Split(items), 4), 0.3, config)
    assert (found["images"], found["of_images"]) == (4, 6)
    for name, measure in found["maps"][0]["measures"].items():
        expected = 0 if name == "centre_shift" else 1
        assert measure["mean"] == pytest.approx(expected, abs=1e-6), name
    assert found["maps"][0]["boxes"]["gt_known_loc"]["change"]["mean"] == 0


def test_each_true_box_counts_and_without_true_boxes_there_are_no_box_scores(network, images):
    """The file is twice as large as the map, so its true boxes are twice as large."""
    image, label = images[0][:2], network(images[0][:2]).argmax(dim=1)
    config = RobustnessConfig([MapAttack(PGD(steps=1))], [], images=None)
    heatmaps = Gradient()(network, image, label)
    found = [tuple((2 * largest_boxes(each, [0.3])[0]).tolist()) for each in heatmaps]
    miss = (0.0, 0.0, 1.0, 1.0)
    items = [
        {"image": i, "label": int(y), "box": torch.zeros(4)}
        for i, y in zip(image, label, strict=True)
    ]
    scores = []
    for boxes in ([(miss,), (miss,)], [(miss,), (miss, found[1])], [(), (found[1],)]):
        data = Split(items)
        data[:] = [item | {"size": 2 * item["size"]} for item in data]
        pairs = zip(data.examples, boxes, strict=True)
        data.examples = [replace(example, boxes=each) for example, each in pairs]
        result = measure_robustness(network, DataLoader(data, 4), 0.3, config)
        assert bool(table_text(result))
        scores.append(result["maps"][0].get("boxes"))
    assert [each["gt_known_loc"]["clean"]["mean"] for each in scores[:2]] == [0, 0.5]
    assert scores[2] is None
