"""The threshold that needs no true box: its choice, its file, and its use."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from robust_training.models.creating import create_model
from robust_training.models.saving import save_model
from tests.helpers.folders import write_small
from wsol.boxes.geometry import iou
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.loaders import DataConfig
from wsol.localizer.localizer import Localizer
from wsol.localizer.saved_models import chosen_threshold
from wsol.localizer.unboxed_threshold import IMAGES, agreeing_threshold, unboxed_images

CLASSES = ["a", "b"]


def squares(count, side=48):
    """A red square on a green ground, and a map that falls from its middle to the border."""
    noise = np.random.default_rng(0).integers(0, 20, (count, side, side, 3))
    photos = noise + np.array([20, 150, 20])
    inner = slice(side // 4, -side // 4)
    photos[:, inner, inner] += np.array([180, -140, 0])
    steps = np.minimum(np.arange(side), np.arange(side)[::-1])
    falling = np.minimum(steps[:, None], steps[None]) / steps.max()
    return photos.clip(0, 255).astype(np.uint8), np.broadcast_to(falling, (count, side, side))


def test_the_box_at_the_threshold_is_about_the_box_of_the_colour():
    photos, heatmaps = squares(4)
    threshold = agreeing_threshold(photos, heatmaps)
    assert iou(largest_boxes(heatmaps[0], [threshold]), [12, 12, 36, 36]) > 0.8
    assert agreeing_threshold(photos[::-1], heatmaps[::-1]) == threshold
    blurred = heatmaps**2  # the same level sets at other values
    assert threshold**2 == pytest.approx(agreeing_threshold(photos, blurred), abs=0.06)


def test_maps_without_a_segment_choose_no_threshold():
    photos, heatmaps = squares(2)
    assert agreeing_threshold(photos, np.zeros_like(heatmaps)) is None
    alone = agreeing_threshold(photos[:1], heatmaps[:1])
    mixed = np.concatenate([heatmaps[:1], np.zeros_like(heatmaps[:1])])
    assert agreeing_threshold(photos, mixed) == alone


@pytest.fixture
def run(tmp_path):
    data = write_small(tmp_path / "my_data")
    model = create_model("test_resnet", 2, image_size=32)
    torch.nn.init.normal_(model.backbone.fc.weight)
    model.class_names = CLASSES
    save_model(model, tmp_path / "run" / "best")
    config = DataConfig(str(data), 32, val_fraction=0.5, num_workers=0)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"data": config.as_dict()}))
    return tmp_path / "run"


def test_validation_images_come_before_training_images(run, monkeypatch):
    config = DataConfig(str(run.parent / "my_data"), 32, val_fraction=0.5, num_workers=0)
    held_out, trained = len(config.dataset("val")), len(config.dataset("train"))
    assert len(unboxed_images(config).dataset) == min(IMAGES, held_out + trained)
    monkeypatch.setattr("wsol.localizer.unboxed_threshold.IMAGES", held_out)
    (part,) = unboxed_images(config).dataset.datasets
    assert part.dataset.split == "val"


def test_a_run_keeps_its_threshold_and_another_machine_uses_it(run):
    chosen = Localizer.load(run).threshold
    file = run / "best" / "thresholds.json"
    assert list(json.loads(file.read_text()).values()) == [chosen]
    smooth = Localizer.load(run, "smoothgrad").threshold
    assert json.loads(file.read_text())["smoothgrad"] == smooth
    shutil.rmtree(run.parent / "my_data")
    (run / "config.yaml").unlink()
    assert (Localizer.load(run).threshold, Localizer.load(run / "best").threshold) == (chosen,) * 2
    assert Localizer.load(run, threshold=0.9).threshold == 0.9
    assert Localizer.load(run, "integrated_gradients").threshold == 0.2
    assert chosen_threshold(run, "smoothgrad") == smooth
    row = {"heatmap": "smoothgrad", "policy": "val", "threshold": 0.77}
    (run / "metrics.json").write_text(json.dumps({"localization": [row]}))
    assert Localizer.load(run, "smoothgrad").threshold == 0.77  # validation boxes come first
    file.write_text('{"smoothgrad": 7}')
    with pytest.raises(ValueError, match=r"thresholds.json is not .* 7.0 does not lie in \[0,1\]"):
        Localizer.load(run, "cam")
