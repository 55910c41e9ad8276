"""Scores of data sets in which few images have a box, or none."""

import csv
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from robust_training.models.creating import create_model
from robust_training.models.saving import save_model
from tests.helpers.birds import planted
from tests.helpers.commands import tool, train
from tests.helpers.folders import HEADER, write_boxes, write_image, write_plain, write_small
from wsol.annotations.ground_truth import dataset_ground_truth, make_ground_truth
from wsol.data.cub import CUB200
from wsol.data.image_files import image_size
from wsol.data.image_folder import ImageFolder
from wsol.data.loaders import DataConfig
from wsol.data.transforms import eval_transform
from wsol.evaluation.box_table import box_row, stack_rows
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scores import score_heatmaps
from wsol.evaluation.split_selection import prepare_split, select_splits
from wsol.evaluation.threshold_policy import validation_threshold
from wsol.experiments.compare_methods import Comparison
from wsol.experiments.pseudo_labels.pseudo_boxes import oracle_pseudo_labels
from wsol.experiments.train_detectors import true_boxes
from wsol.localizer.localizer import Localizer
from wsol.localizer.saved_models import unboxed_thresholds
from wsol.report.comparison import read_run
from wsol.robustness.roar import IMPORTANCES, write_replaced


@pytest.fixture(scope="module")
def plain(toy, tmp_path_factory):
    return write_plain(toy, tmp_path_factory.mktemp("folder") / "my_data")


@pytest.fixture
def small(tmp_path):
    return write_small(tmp_path / "my_data")


def test_an_image_may_have_several_boxes_or_none():
    """Any of them is right; without one an image neither chooses a threshold nor is scored."""
    boxes = [[(0, 0, 8, 8), (10, 4, 20, 12)], [(10, 4, 20, 12)], []]
    truth = make_ground_truth(
        "here", list("123"), [0, 1, 0], [(20, 16)] * 3, boxes, ["a", "b"], some_boxed=True
    )
    assert truth.boxed.tolist() == [True, True, False]
    with pytest.raises(ValueError, match="image 3 has no box"):
        make_ground_truth("here", list("123"), [0, 1, 0], [(20, 16)] * 3, boxes, ["a", "b"])
    heatmap = 0.5 * planted((0, 0, 20, 16)) + 0.5 * planted((10, 4, 20, 12))
    maps = stack_rows([box_row(heatmap), box_row(heatmap), box_row(planted((0, 0, 2, 2)))])
    measured = SplitOutput(truth, None, {"map": maps})
    assert maps.ious(truth, [0.7])[:, 0].tolist() == [1, 1, 0]
    assert validation_threshold(measured, "map", np.array([0.2, 0.7])) == 0.7
    with pytest.raises(ValueError, match="some of the images to score have no true box"):
        score_heatmaps(measured, thresholds=np.array([0.2]))
    labels = oracle_pseudo_labels({"train": measured.truth, "val": measured.truth}).boxes["train"]
    assert labels.names == ("1", "2")
    assert labels.boxes[:, 0].tolist() == [[0, 0, 8, 8], [10, 4, 20, 12]]


def test_boxes_that_end_outside_of_their_image_are_cut_at_its_edge():
    """The published metadata of CUB-200-2011 clips its 30 such boxes, too; nothing is refused."""
    with pytest.warns(UserWarning, match=r"here: 2 box\(es\) extend outside .* for example in 1"):
        truth = make_ground_truth(
            *("here", ["1", "2"], [0, 0], [(20, 16)] * 2),
            [[(-3, 2, 30, 14)], [(4, 5, 20, 48)]],
            ["a"],
        )
    assert truth.boxes[:, 0].tolist() == [[0, 2, 20, 14], [4, 5, 20, 16]]


@pytest.mark.parametrize("box", [(20, 0, 30, 5), (0, 16, 4, 20), (-9, 0, -1, 5), (8, 0, 4, 5)])
def test_boxes_without_a_part_in_their_image_are_refused(box):
    with pytest.raises(ValueError, match="of 1 does not lie in its image of 20 x 16 pixels"):
        make_ground_truth("here", ["1"], [0], [(20, 16)], [[box]], ["a"])


@pytest.mark.ci
def test_all_of_cubs_official_boxes_can_be_scored(shared):
    """Every image of both official splits, against the boxes cut by hand."""
    root = shared / "data" / "cub200"
    for split, outside in (("train", 14), ("test", 16)):
        dataset = CUB200(root, split)
        sizes = np.array([image_size(example.path) for example in dataset.examples])
        stored = np.array([example.boxes[0] for example in dataset.examples])
        far = (stored[:, 2:] > sizes).any(axis=1)
        assert far.sum() == outside
        with pytest.warns(UserWarning, match="clipped at its edge"):
            boxes = dataset_ground_truth(dataset).boxes[:, 0]
        assert (boxes == np.minimum(stored, np.concatenate([sizes, sizes], axis=1))).all()


@pytest.fixture(scope="module")
def trained(plain, tmp_path_factory):
    """A run on the folder, without any box; and a copy of the folder whose boxes may change."""
    place = tmp_path_factory.mktemp("trained")
    root = place / "my_data"
    shutil.copytree(plain, root)
    (root / "boxes.csv").unlink()
    options = ("--data.batch_size", 8, "--model.name", "test_resnet", "--data.val_fraction", 0.2)
    status, _, error = train("--data.root", root, "--output", place / "run", *options)
    assert status == 0, error
    return root, place / "run"


def evaluate(run, *options):
    status, text, error = tool("evaluate.py", run, "--v2", "false", *options)
    assert status == 0, error
    return json.loads((run / "metrics.json").read_text()), text


def policies(metrics):
    return [r["policy"] for r in metrics["localization"] if r["heatmap"] == "gradient"]


def test_without_a_box_accuracy_is_scored_and_what_is_missing_said(trained):
    root, run = trained
    (root / "boxes.csv").unlink(missing_ok=True)
    metrics, text = evaluate(run)
    note = text.splitlines()[0]
    assert note.startswith("run: none of the 20 test images has a box; to score boxes, say where")
    assert note.endswith(f"a file boxes.csv in {root} with the columns {HEADER}")
    assert (metrics["images"], metrics["localization"]) == (20, [])
    accuracy = f"{100 * metrics['top1_accuracy']:.1f}"
    assert f"| run | all 20 | {accuracy} |" in text
    page = (run / "report.html").read_text()
    assert "No image has a true box, so no box was scored." in page
    assert f"<dd>{accuracy}</dd>" in page
    assert "GT-known, %" not in page
    assert "What the boxes are" not in page
    output = root.parent / "detectors"
    status, _, error = tool("train_detector.py", run, "--output", output)
    assert (status, output.exists()) == (2, False)
    assert error.startswith("error: none of the 20 test images has a box")


def test_a_few_boxes_are_scored_alone_at_a_threshold_that_no_test_image_chose(trained, plain):
    root, run = trained
    boxes = {e.name: e.boxes[0] for e in ImageFolder(plain, "test").examples}
    few = [(name, *box) for name, box in list(boxes.items())[::4]]
    write_boxes(root, few)
    metrics, text = evaluate(run)
    assert "run: 5 of 20 test images have a box; only these are scored" in text
    assert "run: no validation image has a box, so the policy unboxed chooses the thresh" in text
    assert policies(metrics) == ["unboxed", "oracle", "reference"]
    headline = metrics["headline"]["gradient"]
    assert headline["policy"] == "unboxed"
    assert f"| run | gradient | unboxed ({headline['threshold']:.3g}) |" in text
    assert Localizer.load(run, "gradient").threshold == headline["threshold"]
    assert unboxed_thresholds(run)["gradient"] == headline["threshold"]
    assert metrics["images"] == 5
    every = metrics["all_test_images"]
    assert every["images"] == 20
    assert f"| run | all 20 | {100 * every['top1_accuracy']:.1f} |" in text
    with open(run / "images.csv") as lines:
        assert {row["image"] for row in csv.DictReader(lines)} == {name for name, *_ in few}
    assert policies(evaluate(run, "--threshold", 0.4)[0])[0] == "fixed:0.4"
    output = root.parent / "detectors"
    options = ("--pseudo_labels", "oracle", "--output", output)
    status, _, error = tool("train_detector.py", run, *options)
    assert (status, output.exists()) == (2, False)
    assert error == "error: oracle trains on true boxes, but no train image has one"


def test_boxes_of_validation_images_choose_the_threshold(trained, plain):
    """Scores equal those of these birds in CUB's layout; the accuracy of all images stays."""
    root, run = trained
    shutil.copy(plain / "boxes.csv", root)
    metrics, _ = evaluate(run)
    assert policies(metrics) == ["val", "unboxed", "oracle", "reference"]
    assert "all_test_images" not in metrics
    chosen = metrics["headline"]["gradient"]["threshold"]
    held_out = {(e.name, *e.boxes[0]) for e in ImageFolder(root, "val", val_fraction=0.2).examples}
    tested = {(e.name, *e.boxes[0]) for e in ImageFolder(root, "test").examples}
    write_boxes(root, sorted(held_out | tested))  # without those of images that are trained on
    again, _ = evaluate(run)
    assert again["localization"] == metrics["localization"]
    assert again["headline"]["gradient"]["threshold"] == chosen


def test_localized_boxes_are_a_start_for_true_ones(trained, tmp_path):
    """boxes.csv of localize.py can be put into the folder."""
    root, run = trained
    (root / "boxes.csv").unlink(missing_ok=True)
    options = ("--pictures", "false", "--output", tmp_path / "found")
    status, _, error = tool("localize.py", run, root / "test", *options)
    assert status == 0, error
    shutil.copy(tmp_path / "found" / "boxes.csv", root)
    with open(root / "boxes.csv") as lines:
        rows = [row for row in csv.DictReader(lines) if row["x0"]]
    written = {
        row["image"].removeprefix(f"{root}/"): tuple(float(row[k]) for k in HEADER.split(",")[1:])
        for row in rows
    }
    read = {e.name: e.boxes[0] for e in ImageFolder(root, "test").examples if e.boxes}
    assert read == written


def test_a_model_of_other_classes_is_refused(small, tmp_path):
    save_model(create_model("test_resnet", 3, image_size=32), tmp_path / "three")
    for split in ("train", "test"):
        for name in "ab":
            for number in range(10):
                write_image(small / split / name / f"{number}.png", (32, 32))
    for command in (("evaluate.py",), ("train_detector.py", "--output", tmp_path / "out")):
        status, _, error = tool(command[0], tmp_path / "three", "--root", small, *command[1:])
        assert status == 2
        assert f"trained on 3 classes other than the 2 of {small}" in error


def test_every_run_is_checked_before_one_is_scored(trained, small, tmp_path):
    _, run = trained
    (run / "metrics.json").unlink(missing_ok=True)
    save_model(create_model("test_resnet", 3, image_size=32), tmp_path / "three")
    shutil.copytree(run, tmp_path / run.name)
    for other, message in (
        (tmp_path / "three", "has no config.yaml that names its data"),
        (tmp_path / run.name, "two runs are called run"),
    ):
        status, _, error = tool("evaluate.py", run, other)
        assert (status, message in error) == (2, True), error
        assert not (run / "metrics.json").exists()


def test_a_box_outside_of_its_validation_image_is_refused_before_any_work(small):
    config = DataConfig(str(small), 32, val_fraction=0.5, num_workers=0)
    write_boxes(small, [("test/a/1.png", 0, 0, 2, 2), ("train/a/2.png", 0, 0, 2, 2)])
    held_out = next(e.name for e in config.dataset("val").examples if e.name[6] == "a")
    write_boxes(small, [("test/a/1.png", 0, 0, 2, 2), (held_out, 0, 0, 50, 50)])
    with pytest.raises(ValueError, match=r"boxes.csv, line 3: the box ends at 50, 50, outside"):
        select_splits(config, None)


def test_pixels_are_replaced_whether_or_not_an_image_has_a_box(small, tmp_path, network):
    write_boxes(small, [("test/b/1.png", 3, 0, 6, 2)])
    transform = eval_transform(32)
    splits = [ImageFolder(small, split, transform=transform) for split in ("train", "test")]
    how = {"importance": IMPORTANCES["random"], "fraction": 0.5, "mode": "roar"}
    write_replaced(tmp_path / "CUB_200_2011", network, splits, **how)
    train, test = (CUB200(tmp_path, split) for split in ("train", "test"))
    assert [example.label for example in train.examples] == [0, 0, 1, 1]
    assert [e.boxes for e in test.examples] == [((0, 0, 32, 32),), ((16, 0, 32, 16),)]


@pytest.mark.parametrize(
    ("policies", "expected"),
    [(("val", "fixed:0.2", "oracle"), 0.1), (("fixed:0.2", "oracle"), 0.1), (("oracle",), None)],
)
def test_compared_are_scores_whose_threshold_no_test_image_chose(tmp_path, policies, expected):
    rows = [
        {"heatmap": "gradient", "policy": policy, "gt_known_loc": value, "top1_loc": value}
        for policy, value in zip(policies, (0.1, 0.2, 0.3), strict=False)
    ]
    metrics = {"top1_accuracy": 0.5, "localization": rows}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "log.csv").write_text("epoch,seconds\n1,2\n")
    assert read_run("a", 0, tmp_path).scores["GT-known"] == expected


def test_a_comparison_scores_again_after_boxes_were_drawn(trained, monkeypatch):
    root, run = trained
    calls = []
    monkeypatch.setattr(
        "wsol.experiments.compare_methods.run_command", lambda name, *_, **__: calls.append(name)
    )
    runs = Comparison(root, {}, [], [], "cpu", "false", 1)
    (run / "metrics.json").write_text("{}")
    (root / "boxes.csv").unlink(missing_ok=True)
    runs._evaluate(run)
    assert not calls
    write_boxes(root, [])
    later = (run / "metrics.json").stat().st_mtime + 1
    os.utime(root / "boxes.csv", (later, later))
    runs._evaluate(run)
    assert calls == ["evaluate"]
    os.utime(run / "metrics.json", (later, later))
    for heatmaps in (("cam",), ("cam",), ()):
        replace(runs, heatmaps=heatmaps)._evaluate(run)
    assert calls == ["evaluate"] * 3  # with other heatmaps only


def test_the_settings_of_detectors_include_the_true_boxes_that_choose_and_score(small):
    """Their folder is then refused for other boxes."""
    config = DataConfig(str(small), image_size=32, val_fraction=0.5, num_workers=0)
    seen = set()
    for rows in ([], [("test/a/1.png", 0, 0, 2, 2)], [("test/a/1.png", 0, 0, 2, 3)]):
        write_boxes(small, rows)
        seen.add(
            true_boxes({split: prepare_split(config.loader(split)) for split in ("val", "test")})
        )
    assert len(seen) == 3
