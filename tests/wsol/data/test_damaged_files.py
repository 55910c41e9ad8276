"""Every reader against every kind of damage: the right answer, or one sentence that names the
file; never a crash, a hang, or a number that the file does not say."""

import dataclasses
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric

from robust_training.models.creating import create_model
from robust_training.models.saving import load_model, save_model
from robust_training.models.weights import load_weights
from robust_training.training.checkpoint import LAST, load_checkpoint, save_checkpoint
from tests.helpers.birds import birds, write_published
from tests.helpers.damage import damaged, harmless
from tests.helpers.folders import write_small
from wsol.annotations.coco_reading import read_coco_results
from wsol.annotations.coco_writing import coco_ground_truth
from wsol.annotations.metadata import read_ground_truth, read_published_metadata
from wsol.annotations.predictions import read_predictions
from wsol.data.cub import CUB200
from wsol.data.image_folder import ImageFolder
from wsol.data.loaders import read_data_config
from wsol.evaluation.scoremaps import read_scoremap
from wsol.localizer.saved_models import chosen_threshold
from wsol.report.comparison import differences, read_run

TRUTH = birds([(2, 2, 10, 12)] * 3)
ROW = {
    "heatmap": "gradient",
    "policy": "val",
    "threshold": 0.37,
    "gt_known_loc": 0.5,
    "top1_loc": 0.25,
}
MAPS = {"attack": {"attack": {"eps": 0.25}}, "measures": {"top_k_intersection": {"mean": 0.5}}}
ATTACKED = {"maps": [MAPS], "accuracy": [{"eps": [0, 0.25], "accuracy": [0.75, 0.5]}]}
METRICS = {"top1_accuracy": 0.5, "localization": [ROW], "robustness": ATTACKED}
CUB = {
    "images.txt": "1 a/x y.jpg\n2 a/b.jpg\n3 c/d.jpg\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 0\n",
    "bounding_boxes.txt": "1 1.0 2.0 3.0 4.0\n2 1 2 3 4\n3 1 2 3 4\n",
    "classes.txt": "1 001.a\n2 002.c\n",
}


BOXES = "image,x0,y0,x1,y1\ntest/a/1.png,0,1,2.5,3\ntest/b/1.png,0,0,2,2\n"


def _texts(texts: dict[str, str]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text)

    return write


def _published(folder: Path) -> None:
    write_published(folder / "meta", TRUTH)


def _cub(folder: Path) -> Any:
    data = CUB200(folder, "test")
    return data.classes, [dataclasses.astuple(each) for each in data.examples]


def _write_folder(folder: Path) -> None:
    write_small(folder)
    (folder / "boxes.csv").write_text(BOXES)


def _folder(folder: Path) -> Any:
    return [dataclasses.astuple(each) for each in ImageFolder(folder, "test").examples]


def _truth(folder: Path) -> Any:
    truth = read_published_metadata(folder / "meta")
    return truth.names, truth.labels.tolist(), truth.sizes.tolist(), truth.boxes.tolist()


def _coco(folder: Path) -> Any:
    return read_ground_truth(folder / "truth.json", "test").boxes.tolist()


def _predictions(folder: Path) -> Any:
    return read_predictions(folder / "p.txt", TRUTH)


@dataclass(frozen=True)
class Reader:
    """A file that is damaged, what else lies beside it, and what is read from them."""

    file: str
    write: Callable[[Path], None]
    read: Callable[[Path], Any]


RESULTS = [
    {"image_id": name, "category_id": 1, "bbox": [2, 2, 8, 10], "score": 0.5}
    for name in ("0.jpg", "1.jpg")
]
CONFIG = "seed: 0\ndata:\n  root: data/toy\n  image_size: 64\n  val_fraction: 0.1\n  cache: null\n"
LOG = "epoch,loss,seconds\n1,0.5,2.5\n2,0.25,3.5\n"
RUN = {"metrics.json": json.dumps(METRICS), "log.csv": LOG, "config.yaml": CONFIG}

TEXT_READERS = {
    **{f"CUB {file}": Reader(file, _texts(CUB), _cub) for file in CUB},
    **{
        f"published {file}": Reader(f"meta/{file}", _published, _truth)
        for file in ("image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt")
    },
    "boxes.csv": Reader("boxes.csv", _write_folder, _folder),
    "COCO truth": Reader(
        "truth.json", _texts({"truth.json": json.dumps(coco_ground_truth(TRUTH), indent=1)}), _coco
    ),
    "COCO results": Reader(
        "r.json",
        _texts({"r.json": json.dumps(RESULTS, indent=1)}),
        lambda folder: read_coco_results(folder / "r.json", TRUTH).boxes.tolist(),
    ),
    "predictions": Reader(
        "p.txt", _texts({"p.txt": "0.jpg,0:0.9,2\n1.jpg,1:0.5,2\n2.jpg,2:0.25,0\n"}), _predictions
    ),
    "metrics.json": Reader("metrics.json", _texts(RUN), chosen_threshold),
    "compared metrics.json": Reader(
        "metrics.json", _texts(RUN), lambda folder: read_run("a", 0, folder).scores
    ),
    "log.csv": Reader("log.csv", _texts(RUN), lambda folder: read_run("a", 0, folder).seconds),
    "config.yaml": Reader("config.yaml", _texts(RUN), read_data_config),
    "compared config.yaml": Reader(
        "config.yaml", _texts(RUN), lambda folder: differences([read_run("a", 0, folder)])
    ),
}


NETWORK = create_model("test_resnet", 3, image_size=32)
HEAD = torch.nn.Linear(3, 2)
FABRIC = Fabric(accelerator="cpu", devices=1)


def _model(folder: Path) -> None:
    save_model(NETWORK, folder / "m")


def _weights(folder: Path) -> None:
    head = {f"fc.{name}": each for name, each in NETWORK.backbone.fc.state_dict().items()}
    safetensors.torch.save_file(head, folder / "w.safetensors")  # small, so that much is tried
    torch.save(head, folder / "w.pth")


def _resume(folder: Path) -> int:
    state: dict[str, Any] = {"head": HEAD, "epoch": 0}
    load_checkpoint(FABRIC, folder, state)
    return state["epoch"]


BINARY_READERS = {
    "model config.json": Reader("m/config.json", _model, lambda folder: load_model(folder / "m")),
    "safetensors": Reader(
        "w.safetensors", _weights, lambda f: load_weights(NETWORK.backbone, f / "w.safetensors")
    ),
    "pth": Reader("w.pth", _weights, lambda f: load_weights(NETWORK.backbone, f / "w.pth")),
    LAST: Reader(LAST, lambda f: save_checkpoint(FABRIC, f, {"head": HEAD, "epoch": 3}), _resume),
    "map": Reader(
        "a.npy",
        lambda folder: np.save(folder / "a.npy", np.eye(9, 7, dtype=np.float32)),
        lambda folder: read_scoremap(folder / "a.npy"),
    ),
}
READERS = TEXT_READERS | BINARY_READERS


def _read(reader: Reader, content: bytes | None) -> str:
    """The text of what is read when the file holds `content`; None leaves it whole."""
    with tempfile.TemporaryDirectory(prefix="damaged-") as temporary:
        folder = Path(temporary)
        reader.write(folder)
        if content is not None:
            (folder / reader.file).write_bytes(content)
        return repr(reader.read(folder)).replace(temporary, "")


@cache
def _content(reader: Reader) -> bytes:
    with tempfile.TemporaryDirectory() as temporary:
        reader.write(Path(temporary))
        return (Path(temporary) / reader.file).read_bytes()


@cache
def _whole(reader: Reader) -> str:
    return _read(reader, None)


def _check(reader: Reader, content: bytes) -> None:
    try:
        _read(reader, content)
    except (ValueError, OSError) as error:
        # the file, or the one beside it with which it no longer agrees
        assert re.search(r"/damaged-\w+", str(error)), str(error)


def _settings(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", TEXT_READERS)
@_settings(10)
@given(data=st.data())
def test_another_systems_text_is_the_same_text(name, data):
    reader = TEXT_READERS[name]
    content = data.draw(harmless(_content(reader)))
    assert _read(reader, content) == _whole(reader)


@pytest.mark.parametrize("name", READERS)
@_settings(20)
@given(data=st.data())
def test_damage_is_named_or_harmless(name, data):
    _check(READERS[name], data.draw(damaged(_content(READERS[name]))))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
@_settings(1500)
@given(data=st.data())
def test_much_damage_is_named_or_harmless(name, data):
    _check(READERS[name], data.draw(damaged(_content(READERS[name]))))
