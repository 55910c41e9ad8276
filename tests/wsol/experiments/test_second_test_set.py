"""A run is scored on test images of another folder, at the threshold that it chose on its own."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

import wsol
from robust_training.models.creating import create_model
from robust_training.models.saving import save_model
from tests.helpers.commands import tool
from tests.helpers.folders import write_plain
from wsol.annotations.metadata import read_ground_truth
from wsol.data.cub import CUB200
from wsol.data.loaders import DataConfig
from wsol.evaluation import ScoringConfig
from wsol.experiments.evaluate_files import evaluate_scoremaps
from wsol.experiments.evaluate_model import plan_evaluation
from wsol.localizer.saved_models import chosen_threshold, chosen_thresholds

SCORING = ScoringConfig(threshold_step=0.02, v2=False)


@pytest.fixture(scope="module")
def scored(toy, tmp_path_factory):
    """A run that was scored on its own data, whose images have boxes."""
    run = tmp_path_factory.mktemp("run") / "run"
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=32)
    torch.nn.init.normal_(model.backbone.fc.weight)
    model.class_names = CUB200(toy, "test").classes
    save_model(model, run / "best")
    config = DataConfig(str(toy), 32, val_fraction=0.2, num_workers=0)
    (run / "config.yaml").write_text(yaml.safe_dump({"data": config.as_dict()}))
    wsol.evaluate(run, methods=["gradient"], scoring=SCORING, output=run)
    return run


@pytest.fixture
def run(scored, tmp_path):
    return shutil.copytree(scored, tmp_path / "run")


def rows(metrics):
    return [row for row in metrics["localization"] if row["heatmap"] == "gradient"]


def plain(toy, root, keep=lambda label: True):
    """The test images of some classes, in folders of classes, and nothing else."""
    return write_plain(toy, root, ["test"], keep)


def cub(toy, root):
    """The test images in CUB's layout, with the classes in reverse order, and nothing else."""
    shutil.copytree(toy, root)
    tests = {str(example.identity) for example in CUB200(toy, "test").examples}
    for file in ("images", "image_class_labels", "train_test_split", "bounding_boxes"):
        lines = (root / f"{file}.txt").read_text().splitlines()
        kept = [line.split(maxsplit=1) for line in lines if line.split()[0] in tests]
        if file == "image_class_labels":
            kept = [(identity, 5 - int(label)) for identity, label in kept]
        (root / f"{file}.txt").write_text("\n".join(f"{key} {value}" for key, value in kept))
    classes = [line.split(maxsplit=1) for line in (toy / "classes.txt").read_text().splitlines()]
    text = "\n".join(f"{5 - int(number)} {name}" for number, name in classes)
    (root / "classes.txt").write_text(text)
    for file in ("backgrounds.txt", "null_patches.txt"):
        (root / file).unlink(missing_ok=True)
    return root


@pytest.mark.parametrize("write", [plain, cub])
def test_test_images_alone_are_scored_at_the_runs_own_threshold(write, run, toy, tmp_path):
    """The images are those of the run's own data, so the scores are the same."""
    root = write(toy, tmp_path / "second")
    own = json.loads((run / "metrics.json").read_text())
    second = wsol.evaluate(run, root, ["gradient"], scoring=SCORING, output=run).metrics
    assert second["top1_accuracy"] == own["top1_accuracy"]
    for mine, other in zip(rows(own), rows(second), strict=True):
        assert other["policy"] == mine["policy"]
        for key in ("threshold", "gt_known_loc", "top1_loc"):
            assert other[key] == pytest.approx(mine[key]), key
    assert rows(second)[0]["policy"] == "val"
    assert second["headline"]["gradient"]["policy"] == "val"
    assert second["headline"]["centred box"]["policy"] == "val"
    assert "gradient map, threshold policy val" in (run / "report.html").read_text()


def test_some_of_the_classes_are_found_by_their_names(run, toy, tmp_path):
    root = plain(toy, tmp_path / "second", keep=lambda label: label in (1, 3))
    plan = plan_evaluation(run, root, ["gradient"], scoring=SCORING)
    truth = plan.splits.test.truth
    assert sorted(set(truth.labels.tolist())) == [1, 3]
    assert list(truth.classes) == CUB200(toy, "test").classes
    assert plan.notes == ("val is the threshold that the run chose on its own validation images",)
    (root / "test" / "hen").mkdir()
    shutil.copy(next((root / "test").rglob("*.jpg")), root / "test" / "hen" / "1.jpg")
    with pytest.raises(ValueError, match=r"4 classes other than the 3 of .*called 'hen'") as caught:
        plan_evaluation(run, root, ["gradient"], scoring=SCORING)
    assert "\n" not in str(caught.value)


def test_thresholds_of_the_run_outlive_other_evaluations(run, toy, tmp_path):
    before = chosen_thresholds(run)
    root = plain(toy, tmp_path / "second")
    (root / "boxes.csv").unlink()
    wsol.evaluate(run, root, ["gradient"], scoring=SCORING, output=run)
    assert chosen_thresholds(run) == before
    assert chosen_threshold(run) == chosen_threshold(run / "best") == before["gradient"]
    plan = plan_evaluation(run, plain(toy, root), ["gradient"], scoring=SCORING)
    assert plan.splits.chosen == before
    assert plan_evaluation(run, None, ["gradient"]).splits.chosen == {}
    assert plan_evaluation(run, toy, ["gradient"]).splits.validation is not None


def test_policies_that_remain_without_a_threshold_are_named(run, toy, tmp_path):
    """The run's own images choose a threshold without boxes; without them, ART's remains."""
    root = plain(toy, tmp_path / "second")
    plan = plan_evaluation(run, root, ["gradient", "smoothgrad"], scoring=SCORING)
    policies = [row["policy"] for row in rows(plan.run().metrics)]
    assert policies == ["val", "unboxed", "oracle", "reference"]
    for file in (run / "config.yaml", run / "metrics.json"):
        file.write_text(file.read_text().replace(str(toy), str(tmp_path / "gone")))
    (run / "best" / "thresholds.json").unlink()
    plan = plan_evaluation(run, root, ["gradient", "smoothgrad"], scoring=SCORING)
    assert plan.notes[-1].startswith("the run chose no threshold on validation images for smoothg")
    (run / "metrics.json").unlink()
    status, text, error = tool("evaluate.py", run, "--root", root, "--v2", "false")
    assert status == 0, error
    note = text.splitlines()[0]
    assert "so only the policies fixed and oracle remain: the threshold is ART's" in note
    assert "| gradient | fixed:0.2 " in text
    metrics = json.loads((run / "metrics.json").read_text())
    assert [row["policy"] for row in rows(metrics)] == ["fixed:0.2", "oracle", "reference"]
    assert "chosen_thresholds" not in metrics


def test_a_threshold_of_other_validation_images_is_not_the_runs(run, toy, tmp_path):
    """A run without a threshold of its own is scored on another whole data set first."""
    (run / "metrics.json").unlink()
    other = shutil.copytree(toy, tmp_path / "other")
    wsol.evaluate(run, other, ["gradient"], scoring=SCORING, output=run)
    assert chosen_thresholds(run)
    plan = plan_evaluation(run, plain(toy, tmp_path / "second"), ["gradient"], scoring=SCORING)
    assert (plan.splits.chosen, plan.splits.threshold) == ({}, None)


def test_a_training_command_says_that_there_is_no_training_image(toy, tmp_path):
    root = plain(toy, tmp_path / "second")
    with pytest.raises(ValueError, match=r"the train split of .*second is empty"):
        DataConfig(str(root)).training_loader()


def test_maps_of_other_programs_need_test_images_alone(toy, tmp_path):
    root = plain(toy, tmp_path / "second")
    for name in read_ground_truth(root, "test").names:
        file = tmp_path / "maps" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.eye(8))
    metrics = evaluate_scoremaps(tmp_path / "maps", root, workers=0, scoring=SCORING).metrics
    assert [row["policy"] for row in metrics["localization"]] == ["oracle", "reference"]
