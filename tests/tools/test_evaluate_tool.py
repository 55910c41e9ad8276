"""tools/evaluate.py on runs, other programs' maps and their boxes."""

import gc
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils.data import _utils

from robust_training.models.creating import create_model
from robust_training.models.saving import load_model, save_model
from tests.helpers.commands import tool, tool_process
from wsol.annotations.coco_writing import coco_ground_truth
from wsol.annotations.ground_truth import dataset_ground_truth
from wsol.data.cub import CUB200
from wsol.data.loaders import DataConfig
from wsol.heatmaps.heatmap import Gradient


@pytest.mark.slow
def test_two_processes_score_as_one(run, toy):
    """Also when one process has a batch more than the other."""
    command = ("evaluate.py", run, "--root", toy, "--batch_size", 7)
    scores = []
    for devices in (1, 2):
        status, text, error = tool_process(*command, "--devices", devices)
        assert status == 0, error
        scores.append(((run / "metrics.json").read_text(), (run / "images.csv").read_text(), text))
    assert scores[0] == scores[1]


def test_results_can_go_elsewhere(toy, tmp_path):
    """The scores in a run's folder are not replaced. Several runs get a folder each."""
    network = create_model("test_resnet", 4, image_size=32)
    for name in ("a", "b"):
        save_model(network, tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    options = ("--root", toy, "--methods", "centred box", "--v2", "false")
    status, _, error = tool("evaluate.py", tmp_path / "a", *options, "--output", tmp_path / "one")
    assert status == 0, error
    runs = (tmp_path / "a", tmp_path / "b")
    status, _, error = tool("evaluate.py", *runs, *options, "--output", tmp_path / "two")
    assert status == 0, error
    written = {each.relative_to(tmp_path) for each in tmp_path.rglob("metrics.json")}
    assert written == {Path("one/metrics.json"), *(Path("two", n, "metrics.json") for n in "ab")}
    assert sorted(e for n in "ab" for e in [tmp_path / n, *(tmp_path / n).rglob("*")]) == before


def test_other_programs_maps_and_boxes(run, toy, tmp_path):
    """The run's own maps and boxes, handed over as files, get the run's own scores."""
    status, _, error = tool("evaluate.py", run, "--root", toy)
    assert status == 0, error
    own = json.loads((run / "metrics.json").read_text())
    data = DataConfig(str(toy), image_size=32, num_workers=0)
    model = load_model(run / "best").to(memory_format=torch.channels_last)
    predictions = []
    for split in ("test", "val"):
        loader = data.loader(split)
        for batch in loader:
            examples = [loader.dataset.examples[i] for i in batch["index"]]
            heatmaps = Gradient()(model, batch["image"], batch["label"])
            probability = model(batch["image"]).softmax(dim=1)
            order = probability.argsort(dim=1, descending=True, stable=True)
            for example, heatmap, classes in zip(examples, heatmaps, order.tolist(), strict=True):
                file = tmp_path / "maps" / f"{example.name}.npy"
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, heatmap)
                predictions.append(",".join(map(str, [example.name, *classes])))
    (tmp_path / "predictions.txt").write_text("\n".join(predictions))
    command = ("evaluate.py", "scoremaps", "--scoremaps", tmp_path / "maps", "--metadata", toy)
    options = ("--predictions", tmp_path / "predictions.txt", "--masks", toy / "segmentations")
    options = (*options, "--all")
    status, text, error = tool(*command, *options, "--output", tmp_path / "out", "--workers", 0)
    assert status == 0, error
    scored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    mine = [row for row in own["localization"] if row["heatmap"] == "gradient"]
    mine = [row for row in mine if row["policy"] != "unboxed"]  # it needs the model
    assert [row | {"heatmap": "gradient"} for row in scored["localization"]] == mine
    for key in ("reference", "pixels"):
        assert scored[key]["maps"] == own[key]["gradient"]
    headline = own["headline"]["gradient"]
    for key in ("policy", "threshold", "errors"):
        assert scored["headline"]["maps"][key] == headline[key]
    assert headline["policy"] == "val"
    assert headline["threshold"] == mine[0]["threshold"]
    assert scored["settings"]["masks"] == str(toy / "segmentations")
    assert text.count("| maps | maps |") == len(mine) + 2

    status, text, error = tool(
        *("evaluate.py", "boxes", "--results", run / "coco" / "gradient.json"),
        *("--metadata", run / "coco" / "truth.json", "--output", tmp_path / "boxes"),
    )
    assert status == 0, error
    boxes = json.loads((tmp_path / "boxes" / "metrics.json").read_text())
    (row,) = boxes["localization"]
    for key in ("gt_known_loc", "top1_loc"):
        assert row[key] == mine[0][key]
    assert boxes["headline"]["boxes"]["coco_ap50"] == headline["coco_ap50"]
    assert "| gradient | boxes | given |" in text
    assert "gradient: GT-known of boxes is" in text
    status, _, error = tool(
        *("evaluate.py", "boxes", "--results", run / "coco" / "cam.json"),
        *("--metadata", run / "coco" / "truth.json", "--output", tmp_path / "boxes"),
        *("--predictions", run / "predictions.txt"),
    )
    assert status == 0, error
    boxes = json.loads((tmp_path / "boxes" / "metrics.json").read_text())
    cam = next(row for row in own["localization"] if row["heatmap"] == "cam")
    for key in ("gt_known_loc", "top1_loc", "top5_loc"):
        assert boxes["localization"][0][key] == cam[key]

    (tmp_path / "maps" / "stray.npy").write_bytes(b"")
    status, _, error = tool(*command)
    assert (status, error.split(": ")[2]) == (2, "stray.npy")
    (tmp_path / "maps" / "stray.npy").unlink()
    own_cut = scored["pixels"]["maps"]["mask_cut"]
    status, text, error = tool(*command, *options, "--mask_cut", 254, "--workers", 0)
    assert own_cut == 127
    assert "(mask > 254, 20 images)" in text
    bad = {
        "hold no NaN": np.full((4, 4), np.nan),
        "must lie in [0,1]": np.full((4, 4), 255.0),
        "has shape (H,W), not (3, 4, 4)": np.zeros((3, 4, 4)),
        "holds uint8, not floating": np.zeros((4, 4), np.uint8),
        "has no map for": None,
        "cannot read map": b"half",
    }
    output = tmp_path / "out"
    first = sorted((tmp_path / "maps").rglob("*.npy"))[0]
    for message, content in bad.items():
        first.unlink()
        if isinstance(content, bytes):
            first.write_bytes(content)
        elif content is not None:
            np.save(first, content)
        for workers in (0, 1) if content is not None and "NaN" in message else (0,):
            # PyTorch waits so long for a loader's process after an error in it; 5 seconds else
            with mock.patch.object(_utils, "MP_STATUS_CHECK_INTERVAL", 0.2):
                status, _, error = tool(*command, "--workers", workers, "--output", output)
                if workers:
                    gc.collect()
            assert status == 2
            assert message in error
            assert first.name.removesuffix(".npy") in error
        first.touch()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == scored


def test_maps_of_one_split_alone_have_no_validation_threshold(toy, tmp_path):
    """Nor may the test images choose it under another name."""
    data = CUB200(toy, "test")
    truth = dataset_ground_truth(data)
    (tmp_path / "truth.json").write_text(json.dumps(coco_ground_truth(truth)))
    for name in truth.names:
        file = tmp_path / "maps" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.tri(16, 16))
    command = ("evaluate.py", "scoremaps", "--scoremaps", tmp_path / "maps")
    truth_file = ("--metadata", tmp_path / "truth.json")
    status, text, error = tool(*command, *truth_file, "--ious", "[0.9]", "--all")
    assert status == 0, error
    assert "| maps | maps | oracle" in text
    assert "| val" not in text
    assert "at 0.9" in text
    status, _, error = tool(*command, *truth_file, "--val_metadata", tmp_path / "truth.json")
    assert status == 2
    assert "20 maps are for validation and for test" in error
    (tmp_path / "file").write_text("")
    status, _, error = tool(*command, *truth_file, "--output", tmp_path / "file")
    assert (status, error) == (2, f"error: the output {tmp_path / 'file'} is a file, not a folder")


def test_a_vit_is_scored_without_a_class_activation_map(toy, tmp_path):
    model = create_model("test_vit", 4, image_size=32)
    save_model(model, tmp_path / "vit")
    status, text, error = tool("evaluate.py", tmp_path / "vit", "--root", toy)
    assert status == 0, error
    assert "vit: cam does not work with this network" in text
    assert "| vit | gradient | val" in text


def test_a_model_of_other_classes_is_not_scored(toy, tmp_path):
    save_model(create_model("test_resnet", 7, image_size=32), tmp_path / "seven")
    other = create_model("test_resnet", 4, image_size=32)
    other.class_names = list("abcd")
    save_model(other, tmp_path / "other")
    for name in ("seven", "other"):
        status, _, error = tool("evaluate.py", tmp_path / name, "--root", toy)
        assert status == 2
        assert "classes other than the 4" in error
