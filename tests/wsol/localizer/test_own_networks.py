"""Maps, boxes and exported programs of networks that are not timm's."""

import numpy as np
import pytest
import torch
import torchvision

from robust_training.models.creating import wrap_model
from robust_training.models.saving import save_model
from tests.robust_training.models.test_own_network import UNIT, Flat, Research
from wsol.localizer.export import export_program, write_program
from wsol.localizer.localizer import Localizer

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), np.uint8)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return {
        "resnet": wrap_model(torchvision.models.resnet18(num_classes=4), **UNIT, image_size=32),
        "mobilenet": wrap_model(
            torchvision.models.mobilenet_v2(num_classes=4), **UNIT, image_size=32
        ),
        "research": wrap_model(Research(4), **UNIT, image_size=32),
        "flat": wrap_model(Flat(4), **UNIT, image_size=8),
    }


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "research", "flat"])
@pytest.mark.parametrize("method", ["gradient", "flipped smoothgrad"])
def test_gradient_maps_give_boxes_for_any_network(networks, name, method):
    found = list(Localizer(networks[name], method, 0.3).predict(IMAGES, label=[2, None]))
    assert found[0].label == 2
    assert all(any(place.box) and place.heatmap.max() == 1 for place in found)


def test_other_maps_work_where_the_feature_map_is_known(networks):
    for method in ("cam", "gradcam++"):
        (found, _) = Localizer(networks["research"], method).predict(IMAGES)
        assert found.heatmap.std() > 0
        for name in ("resnet", "flat"):
            with pytest.raises(ValueError, match="does not work with .*; use gradient maps"):
                Localizer(networks[name], method)
    assert list(Localizer(networks["resnet"], "averaged gradient").predict(IMAGES))
    for name, method in (("flat", "averaged gradient"), ("resnet", "tokencut")):
        with pytest.raises(ValueError, match="does not work with .*; use gradient maps"):
            Localizer(networks[name], method)


def test_a_folder_and_an_exported_program_localize_as_the_network_does(networks, tmp_path):
    model = networks["research"]
    localizer = Localizer(model, "gradient")
    save_model(model, tmp_path / "m")
    write_program(export_program(model), localizer, tmp_path / "m" / "localizer.pt2")
    ours = list(localizer.predict(IMAGES))
    program = tmp_path / "m" / "localizer.pt2"
    for place, method in ((tmp_path / "m", "gradient"), (program, None)):
        for one, other in zip(ours, Localizer.load(place, method).predict(IMAGES), strict=True):
            assert (one.box, one.label) == (other.box, other.label)
