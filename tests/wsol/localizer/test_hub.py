"""A local stand-in for the hub, and a hub that is not there."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from robust_training.models.creating import create_model
from tests.helpers.commands import tool
from wsol.detectors import Regressor, save_detector
from wsol.localizer import hub
from wsol.localizer.localizer import Localizer


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A hub whose pushed files land in a folder, from which downloads come."""
    place = tmp_path / "hub"

    class Api:
        endpoint = "http://hub"

        def create_repo(self, name, *, exist_ok):
            (place / name).mkdir(parents=True, exist_ok=exist_ok)
            return f"http://hub/{name}"

        def create_commit(self, name, operations, *, commit_message):
            for operation in operations:
                with operation.as_file() as content:
                    (place / name / operation.path_in_repo).write_bytes(content.read())

    def download(name, *, allow_patterns):
        if not (place / name).is_dir():
            raise OSError(f"404 for {name}")
        for file in (place / name).iterdir():
            if file.name in allow_patterns:
                (tmp_path / "cache").mkdir(exist_ok=True)
                shutil.copy(file, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", download)
    return place


def test_a_pushed_run_is_loaded_by_its_name(run, stand_in, tmp_path, toy):
    copy = tmp_path / "art"
    shutil.copytree(run / "best", copy / "best")
    row = {"heatmap": "refined gradient", "policy": "val", "threshold": 0.37}
    secret = {"localization": [row], "model": str(copy)}
    (copy / "metrics.json").write_text(json.dumps(secret))
    status, text, error = tool("export.py", copy, "--formats", "--push_to_hub", "me/birds")
    assert status == 0, error
    assert "http://hub/me/birds" in text
    names = {"config.json", "model.safetensors", "README.md", "metrics.json", "thresholds.json"}
    assert {file.name for file in (stand_in / "me" / "birds").iterdir()} == names
    assert str(copy) not in (stand_in / "me" / "birds" / "metrics.json").read_text()
    photo = next((toy / "images").rglob("*.jpg"))
    (ours,) = Localizer.load(copy).predict([photo])
    for name in ("me/birds", "hf-hub:me/birds"):
        localizer = Localizer.load(name)
        assert localizer.threshold == 0.37
        (found,) = localizer.predict([photo])
        assert (found.box, found.class_name) == (ours.box, ours.class_name)
    with pytest.raises(ValueError, match="no folder me/dogs here, and no model me/dogs .* 404"):
        Localizer.load("me/dogs")


def test_a_hub_out_of_reach_costs_one_line(run, tmp_path, monkeypatch):
    from huggingface_hub import HfApi

    def dead(*arguments, **settings):
        raise ConnectionError("connection refused")

    monkeypatch.setattr(hub, "snapshot_download", dead)
    monkeypatch.setattr(HfApi, "create_repo", dead)
    with pytest.raises(ValueError, match="no model a/b came from http.*: connection refused"):
        Localizer.load("hf-hub:a/b")
    with pytest.raises(ValueError, match="cannot push a/b to http.*: connection refused"):
        hub.push({"a.txt": "a"}, "a/b")


@pytest.mark.parametrize("place", ["runs/a/best", "/nowhere", "nowhere", "../a"])
def test_what_is_no_hub_name_stays_a_path(place):
    assert hub.local_folder(place) == Path(place)


def test_a_detector_comes_from_there_too(stand_in):
    network = Regressor(width=8).build(create_model("test_resnet", 2, image_size=32), ["a", "b"])
    save_detector(network, stand_in / "me" / "finder")
    (found,) = Localizer.load("me/finder").predict(torch.rand(3, 40, 80))
    assert found.box == pytest.approx((20, 10, 60, 30))
