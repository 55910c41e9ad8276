"""Heatmap methods by name, through tools/evaluate.py and tools/localize.py."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch

from robust_training.models.creating import create_model
from tests.helpers.commands import tool, tool_process
from wsol.detectors import FasterRCNN, Regressor, save_detector
from wsol.localizer.localizer import Localizer


@pytest.mark.slow
def test_two_processes_localize_as_one(run, toy, tmp_path):
    output, written = tmp_path / "out", []
    for devices in (1, 2):
        options = ("--output", output, "--batch_size", 7, "--devices", devices)
        status, _, error = tool_process("localize.py", run, toy / "images", *options)
        assert status == 0, error
        written.append({f: f.read_bytes() for f in output.rglob("*") if f.is_file()})
        shutil.rmtree(output)
    assert len(written[0]) == 2 + 2 * 60
    assert written[0] == written[1]


def test_a_refined_map_is_scored_beside_its_baseline_and_localizes(run, toy, tmp_path):
    status, text, error = tool("evaluate.py", run, "--methods", "refined_gradient", "--all")
    assert status == 0, error
    metrics = json.loads((run / "metrics.json").read_text())
    scores = {row["heatmap"]: row for row in metrics["localization"] if row["policy"] == "val"}
    assert set(scores) == {"refined gradient", "refined centred box"}
    (gain,) = metrics["baselines"].values()
    assert gain["baseline"] == "refined centred box"
    mine, baseline = (scores[name]["gt_known_loc"] for name in scores)
    assert (gain["gt_known_loc"], gain["baseline_gt_known_loc"]) == (mine, baseline)
    assert f"| {run.name} | refined gradient | refined centred box | val |" in text

    photos = toy / "images" / "001.Red_Finch"
    options = ("--method", "refined_gradient", "--boxes", 3, "--pictures", "false")
    status, text, error = tool("localize.py", run, photos, *options, "--output", tmp_path / "out")
    assert status == 0, error
    assert f"at threshold {scores['refined gradient']['threshold']:g}, 0 skipped" in text
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"boxes.json", "boxes.csv"}
    with open(tmp_path / "out" / "boxes.csv") as lines:
        rows = list(csv.DictReader(lines))
    found = json.loads((tmp_path / "out" / "boxes.json").read_text())
    assert len({row["image"] for row in rows}) == len(found["images"]) == 15
    assert len(rows) == len(found["annotations"]) <= 3 * 15
    for row, annotation in zip(rows, found["annotations"], strict=True):
        x, y, width, height = annotation["bbox"]
        corners = [round(float(row[key]), 1) for key in ("x0", "y0", "x1", "y1")]
        assert corners == [round(value, 1) for value in (x, y, x + width, y + height)]


@pytest.mark.parametrize("kind", [Regressor(width=8), FasterRCNN(levels=2, width=8)])
def test_a_detectors_folder_gives_boxes_and_overlays(kind, toy, tmp_path):
    torch.manual_seed(0)
    names = ["ant", "bee", "cat", "dog"]
    network = kind.build(create_model("test_resnet", 4, image_size=32), names)
    save_detector(network, tmp_path / "detector")
    photos, output = toy / "images" / "001.Red_Finch", tmp_path / "out"
    command = ("localize.py", tmp_path / "detector", photos, "--boxes", 2, "--output", output)
    status, text, error = tool(*command)
    assert status == 0, error
    assert "15 image(s) localized, 0 skipped" in text
    assert {file.name for file in output.iterdir()} == {"boxes.json", "boxes.csv", "overlays"}
    assert len(list((output / "overlays").iterdir())) == 15
    found = json.loads((output / "boxes.json").read_text())
    categories = [category["name"] for category in found["categories"]]
    assert categories == (names if network.predicts_classes else ["object"])
    places = list(Localizer.load(tmp_path / "detector").predict(photos, boxes=2))
    expected = [pair for p in places for pair in zip(p.boxes, p.scores, strict=True)]
    with open(output / "boxes.csv") as lines:
        rows = list(csv.DictReader(lines))
    for row, annotation, (box, score) in zip(rows, found["annotations"], expected, strict=True):
        x, y, width, height = annotation["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], box, atol=1e-3)
        np.testing.assert_allclose([float(row[k]) for k in ("x0", "y0", "x1", "y1")], box, atol=0.1)
        assert annotation["score"] == pytest.approx(score, abs=1e-6)
        assert float(row["score"]) == pytest.approx(score, abs=1e-6)
        assert row["class_name"] == categories[annotation["category_id"] - 1]
        assert (row["label"] == "") == (categories == ["object"])

    for options, message in (
        (("--method", "cam"), "leave out method and threshold"),
        (("--threshold", 0.2), "leave out method and threshold"),
        (("--label", "amt"), "no class" if network.predicts_classes else "predicts no classes"),
    ):
        status, _, error = tool(*command[:-1], tmp_path / "out2", *options)
        assert (status, message in error) == (2, True), error
    detector, root = tmp_path / "detector", ("--root", toy)
    for name, *options in (
        ("export.py", detector),
        ("evaluate.py", detector),
        ("train_detector.py", detector, *root, "--output", tmp_path / "out2"),
    ):
        status, _, error = tool(name, *options)
        assert (status, "is a detector" in error) == (2, True), error
    assert "`evaluate.py boxes`" in error
    assert not (tmp_path / "out2").exists()


def test_one_file_does_not_spoil_the_rest(run, toy, tmp_path):
    """A name too long for the pictures, a link, no Unicode, and kinds that are not read."""
    photo = toy / "images" / "001.Red_Finch" / "Red_Finch_0001.jpg"
    photos, output = tmp_path / "photos", tmp_path / "out"
    (photos / "deep").mkdir(parents=True)
    long, foreign = "x" * 248 + ".jpg", os.fsdecode(b"\xff.jpg")
    for name in ("deep/a.jpg", long, "b.jfif", foreign):
        shutil.copy(photo, photos / name)
    (photos / "link.jpg").symlink_to(photo)
    for name in ("a.HEIC", "b.heic", "deep/c.gif", "notes.txt"):
        (photos / name).touch()
    (photos / "broken.jpg").write_text("no image")
    with pytest.warns(UserWarning, match="left out: 1 .gif, 2 .heic; convert them to JPEG"):
        status, text, _ = tool("localize.py", run, photos, "--output", output)
    assert (status, "4 image(s) localized" in text, ", 2 skipped" in text) == (1, True, True), text
    found = json.loads((output / "boxes.json").read_text())
    assert found["info"] == {"root": str(photos)}
    names = {each["file_name"] for each in found["images"]}
    assert names == {"deep/a.jpg", long, "b.jfif", "link.jpg"}
    with open(output / "boxes.csv", encoding="utf-8") as lines:
        assert {row["image"] for row in csv.DictReader(lines)} == {str(photos / n) for n in names}
    for kind in ("overlays", "heatmaps"):
        written = {str(file.relative_to(output / kind)) for file in (output / kind).rglob("*.png")}
        assert written == {f"{name}.png" for name in names - {long}}


def test_boxes_name_files_relative_to_a_folder_that_is_written_down(run, toy, tmp_path):
    """boxes.json does not depend on the current folder, and its data set can be scored with it."""
    found = []
    for source, cwd in ((toy / "images" / "001.Red_Finch", tmp_path), (".", toy / "images")):
        output = tmp_path / str(len(found))
        options = ("--pictures", "false", "--output", output)
        status, _, error = tool("localize.py", run, source, *options, cwd=cwd)
        assert status == 0, error
        found.append(json.loads((output / "boxes.json").read_text()))
    first, second = found
    assert first["info"]["root"] == str(toy / "images" / "001.Red_Finch")
    assert second["info"]["root"] == str(toy / "images")
    names = {each["file_name"] for each in first["images"]}
    assert {f"001.Red_Finch/{name}" for name in names} < {x["file_name"] for x in second["images"]}
    scored = ("--results", tmp_path / "0" / "boxes.json", "--metadata", toy)
    with pytest.warns(UserWarning, match="15 of 20 images have no box"):
        status, _, error = tool("evaluate.py", "boxes", *scored)
    assert status == 0, error


def test_a_file_in_the_place_of_the_output_is_named_first(tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        status, _, error = tool("localize.py", "/nowhere", tmp_path, "--output", output)
        assert (status, f"{tmp_path / 'file'} is a file, not a folder" in error) == (2, True), error


def test_what_is_no_run_is_named_with_what_is_there(run, toy, tmp_path):
    def message(place, name="localize.py"):
        rest = (toy, "--output", tmp_path / "out") if name == "localize.py" else ()
        status, _, error = tool(name, place, *rest)
        assert status == 2
        assert not (tmp_path / "out").exists()
        return error

    assert f"name one of {run}" in message(run.parent)
    assert f"name one of {run}" in message(run.parent, "evaluate.py")
    assert "there is no such folder" in message(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "there is no config.json in it" in message(tmp_path / "empty")
    (tmp_path / "localizer.onnx").touch()
    program = message(tmp_path / "localizer.onnx", "evaluate.py")
    assert "name the run that it was made from" in program
    assert "is an exported localizer already" in message(tmp_path / "localizer.onnx", "export.py")


def test_options_that_cannot_be_met_cost_one_line(run, toy, tmp_path):
    for name, option, message in (
        ("localize.py", ("--method", "gradcamm"), "there is no heatmap method 'gradcamm'"),
        ("localize.py", ("--label", "Red Finch"), "has no class 'Red Finch'; did you mean"),
        ("localize.py", ("--label", "null"), "has no class 'null'"),
        ("localize.py", ("--label=~",), "has no class '~'"),
        ("localize.py", ("--boxes", 0), "boxes"),
        ("evaluate.py", ("--methods", "refined"), "there is no heatmap method 'refined'"),
    ):
        target = (toy, "--output", tmp_path / "out") if name == "localize.py" else ()
        status, _, error = tool(name, run, *target, *option)
        assert status == 2
        assert message in error
        assert not (tmp_path / "out").exists()
