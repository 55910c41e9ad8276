"""Networks that are not timm's: wrapped, trained, saved, opened, refused."""

import json

import pytest
import torch
import torchvision
from lightning_fabric import Fabric
from torch import nn

from robust_training import PGD, TrainingSettings, fit, objectives
from robust_training.models.creating import create_model, wrap_model
from robust_training.models.saving import load_model, save_model
from robust_training.training.batches import SeededBatches
from robust_training.training.schedule import Cosine

UNIT = {"mean": (0, 0, 0), "std": (1, 1, 1)}
HERE = f"{__name__}."


class Research(nn.Module):
    """Three layers for images of 16 pixels, with timm's two methods for class activation maps."""

    def __init__(self, num_classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3, stride=2)
        self.third = nn.Linear(width, num_classes)

    def forward_features(self, image):
        return self.second(self.first(image).relu()).relu()

    def forward_head(self, features):
        return self.third(features.mean(dim=(2, 3)))

    def forward(self, image):
        return self.forward_head(self.forward_features(image))


class Flat(nn.Module):
    """It takes only images of 8 pixels, and its classes are no argument."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, classes)

    def forward(self, image):
        return self.layer(image.flatten(1))


class Detailed(nn.Module):
    def forward(self, image):
        return {"logits": image.mean(dim=(2, 3))}


def test_classes_and_normalisation():
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=5)
    model = wrap_model(network, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), image_size=32)
    assert (model.num_classes, model.image_size, model.fixed_size) == (5, 32, False)
    assert model.architecture == "torchvision.models.resnet.ResNet"
    assert model.training
    image = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    model.eval()
    torch.testing.assert_close(model(image), network((image - mean) / std))
    flat = wrap_model(Flat(4), **UNIT, image_size=8, class_names="abcd")
    assert (flat.num_classes, flat.fixed_size, flat.class_names) == (4, True, list("abcd"))


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (Flat(2), {"image_size": 8}, "Flat is not a timm model: give its mean and std"),
        (Flat(2), {"image_size": 9, **UNIT}, "cannot take RGB images of 9 x 9 pixels"),
        (Detailed(), UNIT, "Detailed gives dict for one image, not logits"),
        (nn.Conv2d(3, 2, 1), UNIT, r"gives \(1, 2, 224, 224\) for one image, not logits"),
        (Research().half(), UNIT, "cannot take RGB images|weights are torch.float16"),
        (Research(), {**UNIT, "class_names": ["a"]}, "must be 3 texts"),
        (Research(), {**UNIT, "std": (0, 1, 1)}, "std positive"),
    ],
)
def test_what_does_not_classify_is_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        wrap_model(network, **options)


def test_a_class_path_is_a_name_of_a_network(tmp_path):
    model = create_model(f"{HERE}Research", 4, **UNIT, image_size=16)
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(again(image), model.eval()(image))
    assert (again.architecture, again.num_classes) == (f"{HERE}Research", 4)
    other = create_model(f"{HERE}Research", 4, weights=tmp_path / "m" / "model.safetensors", **UNIT)
    torch.testing.assert_close(other.eval()(image), model(image))
    small = create_model("torchvision.models.mobilenet_v3_small", 2, **UNIT, image_size=32)
    assert small.num_classes == 2
    for name, message in (
        (f"{HERE}Missing", "cannot import the network .*Missing"),
        (f"{HERE}Flat", "cannot be made with num_classes=3 alone"),
        ("os.path.join", "os.path.join is not a subclass of torch.nn.Module"),
        ("resnet5O.a1_in1k", "timm has no model 'resnet5O.a1_in1k'; did you mean resnet50"),
    ):
        with pytest.raises(ValueError, match=message):
            create_model(name, 3, **UNIT)
    with pytest.raises(ValueError, match="last_stride and log_gradient need a timm model"):
        create_model(f"{HERE}Research", 3, last_stride=1, **UNIT)
    with pytest.raises(ValueError, match="a timm model has its own mean and std"):
        create_model("test_resnet", 3, **UNIT)


def test_a_network_that_needs_more_arguments_is_built_by_its_user(tmp_path):
    network = Flat(2)
    network.copy = network.layer.weight  # shared, as tied weights are
    model = wrap_model(network, **UNIT, image_size=8, class_names=["a", "b"])
    save_model(model, tmp_path)
    with pytest.raises(ValueError, match=r"build it yourself: load_model\(folder, network"):
        load_model(tmp_path)
    save_model(wrap_model(Research(width=5), **UNIT), tmp_path / "wide")
    with pytest.raises(ValueError, match=r"5,\) here, \(4,.* build it yourself: load_model\("):
        load_model(tmp_path / "wide")
    fresh = Flat(2)
    fresh.copy = fresh.layer.weight
    again = load_model(tmp_path, fresh)
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(again(image), model(image))
    assert again.class_names == ["a", "b"]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"class_path": "os.getcwd"}))
    with pytest.raises(ValueError, match=r"os.getcwd is not a subclass of torch.nn.Module"):
        load_model(tmp_path)


_ART = objectives.ART(attack=PGD(steps=1))


@pytest.mark.parametrize(
    ("network", "objective"),
    [
        (Research(2), _ART),
        (torchvision.models.resnet18(num_classes=2), _ART),
        (torchvision.models.mobilenet_v2(num_classes=2), objectives.Standard()),
    ],
)
def test_training_changes_and_saves_any_network(network, objective, tmp_path):
    torch.manual_seed(0)
    model = wrap_model(network, **UNIT, image_size=48)
    items = [
        {"image": torch.rand(3, 48, 48), "label": number % 2, "name": str(number)}
        for number in range(4)
    ]
    train = torch.utils.data.DataLoader(items, batch_sampler=SeededBatches(4, 4))
    val = torch.utils.data.DataLoader(items, batch_size=2)
    before = [each.clone() for each in model.parameters()]
    fabric = Fabric(accelerator="cpu", devices=1)
    settings = TrainingSettings(
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.05), schedule=Cosine(), epochs=1
    )
    (row,) = fit(model, objective, train, val, tmp_path, settings, fabric=fabric)
    assert row["val_accuracy"] >= 0
    assert any(not a.equal(b) for a, b in zip(before, model.parameters(), strict=True))
    config = json.loads((tmp_path / "best" / "config.json").read_text())
    assert config["num_classes"] == 2
