"""docs/extending.md: each extension is short, and works where its kind is used."""

import ast
import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robust_training import PGD, create_model, cross_entropy_score, objectives, wrap_model
from robust_training.attacks.map_attack import MapAttack
from tests.helpers.commands import ROOT
from tests.helpers.documents import PYTHON, blocks
from tests.helpers.folders import write_image
from tests.helpers.stage import importing_from
from wsol.data.loaders import DataConfig
from wsol.heatmaps.heatmap import Attributed, Gradient
from wsol.heatmaps.methods import find_method

_BLOCKS = blocks(ROOT / "docs" / "extending.md")
FILES = {block.file: block.text for block in _BLOCKS if block.language == PYTHON and block.file}


@pytest.fixture
def extension(tmp_path):
    """Imports a file of the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    with importing_from(tmp_path):
        yield lambda name: importlib.import_module(name)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("test_resnet", 3, image_size=32).eval()
    torch.nn.init.normal_(model.backbone.get_classifier().weight)  # a new head is zero
    return model


@pytest.fixture(scope="module")
def image():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def label():
    return torch.tensor([0, 2])


def lines_of_code(text):
    """Lines that are not empty, not an import and not part of a docstring."""
    left_out = set()
    for node in ast.walk(ast.parse(text)):
        text_alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text_alone or isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    code = [line for number, line in lines if number not in left_out]
    return sum(bool(line.strip()) and not line.startswith("#") for line in code)


@pytest.mark.parametrize("name", FILES)
def test_an_extension_has_fewer_than_15_lines(name):
    assert 0 < lines_of_code(FILES[name]) < 15


def test_an_objective(extension, model, image, label):
    focal = extension("focal_loss").FocalLoss
    plain = F.cross_entropy(model(image), label)
    torch.testing.assert_close(focal(gamma=0.0)(model, image, label)["focal"], plain)
    assert focal(gamma=1.0)(model, image, label)["focal"] < plain
    terms = extension("small_gradients").SmallGradients(weight=1.0)(model, image, label)
    assert terms["gradient"] > 0
    assert torch.autograd.grad(terms["gradient"], next(model.parameters()))[0].abs().sum() > 0


def test_an_attribution(extension, model, image, label):
    attribution = extension("from_mean").FromMean()
    gray = torch.full_like(image, 0.5)  # no pixel differs from the mean
    assert not Attributed(attribution)(model, gray, label).any()
    assert objectives.ART(attribution=attribution)(model, image, label)["attribution"] > 0


def test_a_heatmap(extension, model, image, label):
    extension("sharpened")
    found = find_method("sharpened.Sharpened")(model, image, label)
    np.testing.assert_allclose(found, Gradient()(model, image, label) ** 2)
    assert find_method("flipped sharpened.Sharpened")(model, image, label).shape == (2, 32, 32)


def test_an_attack(extension, model, image, label):
    attack = extension("random_search").RandomSearch(eps=8 / 255, steps=20)
    score = cross_entropy_score(model, label)
    torch.manual_seed(0)
    attacked = attack(score, image)
    assert (attacked - image).abs().max() <= 8 / 255 + 1e-6
    assert (score(attacked) > score(image)).all()
    terms = objectives.AdversarialTraining(attack=attack)(model, image, label)
    assert terms["cross_entropy"] > score(image).mean()


def test_a_goal_of_a_map_attack(extension, model, image, label):
    attack = MapAttack(goal=extension("flatten").Flatten(), attack=PGD(steps=3))
    found = attack(model, image, label)

    def peak(maps):
        return (maps / maps.sum(dim=(1, 2), keepdim=True)).square().sum(dim=(1, 2))

    assert found.kept.any()
    assert (peak(found.maps) < peak(found.clean_maps))[found.kept].all()


def test_a_detector(extension, model, image, label):
    network = extension("pooled").Pooled().build(model, ["a", "b", "c"])
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5]] * 2)
    (loss,) = network.losses(image, boxes, label).values()
    loss.backward()
    assert network.head.weight.grad.abs().sum() > 0
    assert [found.boxes.shape for found in network(image)] == [(1, 4), (1, 4)]


def test_a_network(extension, image, label):
    network = extension("small_network").SmallNetwork(3)
    model = wrap_model(network, mean=(0.5,) * 3, std=(0.25,) * 3, image_size=32)
    assert find_method("cam")(model, image, label).std() > 0


def test_a_data_set(extension, tmp_path):
    root = tmp_path / "pets"
    for name in ("train/cat_1", "train/cat_2", "train/dog_1", "train/dog_2", "test/dog_3"):
        write_image(root / f"{name}.jpg")
    kind = extension("named_files").NamedFiles
    config = DataConfig(str(root), image_size=32, val_fraction=0.5, class_path=kind)
    assert config.dataset("train").classes == ["cat", "dog"]
    assert len(config.dataset("train")) == len(config.dataset("val")) == 2
    assert [item["label"] for item in config.dataset("test")] == [1]
