"""wsol.evaluate as a notebook calls it: its results, and the refusals before its work begins."""

import json
import shutil
from dataclasses import replace
from unittest import mock

import cv2
import numpy as np
import pytest
import torch

import wsol
from robust_training.attacks.map_attack import MapAttack
from robust_training.attacks.pgd import PGD
from robust_training.models.creating import create_model
from robust_training.models.saving import save_model
from tests.helpers.commands import tool
from wsol.data.cub import CUB200
from wsol.data.loaders import DataConfig
from wsol.evaluation import ScoringConfig
from wsol.experiments import evaluate_model
from wsol.experiments.evaluate_model import plan_evaluation, require_comparable
from wsol.report.answer import answer_text
from wsol.report.html_tables import summary
from wsol.report.number_format import percent
from wsol.robustness.under_attack import RobustnessConfig

SCORING = ScoringConfig(threshold_step=0.02, v2=False)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=32)
    torch.nn.init.normal_(model.backbone.fc.weight)
    return model


@pytest.fixture
def copy(toy, tmp_path):
    """A data set to break."""
    return shutil.copytree(toy, tmp_path / "data" / "CUB_200_2011")


@pytest.fixture
def no_work():
    """Fails where the model is run."""
    with mock.patch.object(evaluate_model, "run_model", side_effect=AssertionError("work began")):
        yield


def test_results_are_returned_and_nothing_is_written(network, toy, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    found = wsol.evaluate(network, toy, ["gradient"], scoring=SCORING)
    assert sorted(tmp_path.rglob("*")) == before
    (gradient, box) = found.headlines
    assert [each.row.heatmap for each in found.headlines] == ["gradient", "centred box"]
    row = found.metrics["localization"][0]
    assert (row["heatmap"], row["policy"]) == ("gradient", "val")
    assert row["gt_known_loc"] == (gradient.iou >= 0.5).mean()
    assert found.metrics["baselines"]["gradient"]["baseline"] == "centred box"
    rows = list(found.image_rows())
    assert len(rows) == 2 * len(CUB200(toy, "test"))
    assert [each["iou"] for each in rows] == [*gradient.iou, *box.iou]
    assert rows[0]["x1"] == gradient.boxes[0, 2]


def test_mirrored_predictions_are_those_of_the_mean_probability(network, toy):
    plain, both = (
        wsol.evaluate(network, toy, ["centred_box"], scoring=SCORING, mirrored=mirrored)
        for mirrored in (False, True)
    )
    images = torch.stack([each["image"] for each in DataConfig(str(toy), 32).dataset("test")])
    with torch.no_grad():
        mean = (network(images).softmax(dim=1) + network(images.flip(3)).softmax(dim=1)) / 2
    found = both.output.predictions
    np.testing.assert_array_equal(found.order[:, 0], mean.argmax(dim=1))
    np.testing.assert_allclose(found.confidence, mean.amax(dim=1), rtol=1e-5)
    assert not np.allclose(found.confidence, plain.output.predictions.confidence)
    np.testing.assert_array_equal(both.headlines[0].iou, plain.headlines[0].iou)


def test_a_model_its_folder_and_settings_of_data_give_the_same(network, toy, tmp_path):
    save_model(network, tmp_path / "net")
    data = DataConfig(str(toy), image_size=64, num_workers=0)  # the model's own size counts
    scores = [
        wsol.evaluate(model, place, ["gradient"], scoring=SCORING, output=output).metrics
        for model, place, output in (
            (network, data, None),
            (tmp_path / "net", str(toy), tmp_path / "out"),
        )
    ]
    assert scores[0]["localization"] == scores[1]["localization"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == json.loads(
        json.dumps(scores[1])
    )
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written == {"metrics.json", "images.csv", "predictions.txt", "coco", "report.html"}


def test_scores_are_written_before_the_attacks_begin(network, toy, tmp_path):
    attacks = RobustnessConfig([MapAttack(PGD(steps=1))], [], images=2)
    settings = {"scoring": SCORING, "robustness": attacks, "output": tmp_path}
    stop = mock.patch.object(evaluate_model, "measure_robustness", side_effect=KeyboardInterrupt)
    with stop, pytest.raises(KeyboardInterrupt):
        wsol.evaluate(network, toy, ["gradient"], **settings)
    first = json.loads((tmp_path / "metrics.json").read_text())
    assert "robustness" not in first
    assert (tmp_path / "images.csv").is_file()
    wsol.evaluate(network, toy, ["gradient"], **settings)
    second = json.loads((tmp_path / "metrics.json").read_text())
    assert second["robustness"]["images"] == 2
    assert second["localization"] == first["localization"]
    (attack,) = second["robustness"]["maps"]
    assert [each["heatmap"] for each in attack["other_boxes"]] == ["centred box"]
    after = percent(attack["boxes"]["gt_known_loc"]["attacked"]["mean"])
    before = percent(attack["boxes"]["gt_known_loc"]["clean"]["mean"])
    for text in (answer_text, summary):
        assert f"goes from {before} to {after}." in text({"run": second})
        assert "Under attack" not in text({"run": first})


def test_other_classes_are_refused(toy, no_work):
    with pytest.raises(ValueError, match="classes other than the 4"):
        wsol.evaluate(create_model("test_resnet", 7, image_size=32), toy)


def test_maps_too_small_for_attacks_are_refused(toy, no_work):
    tiny = create_model("test_resnet", 4, image_size=4)
    with pytest.raises(ValueError, match="need 6 pixels a side"):
        wsol.evaluate(tiny, toy, robustness=RobustnessConfig())


def test_an_output_that_cannot_be_written_is_refused(network, toy, tmp_path, no_work):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        wsol.evaluate(network, toy, output=tmp_path / "file" / "below")


@pytest.mark.parametrize("split", ["test", "val"])
def test_an_image_that_cannot_be_read_is_refused(network, copy, no_work, split):
    DataConfig(str(copy)).dataset(split).examples[-1].path.write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot read image"):
        wsol.evaluate(network, copy)


def test_masks_are_checked(network, copy, no_work):
    example = CUB200(copy, "test").examples[-1]
    cv2.imwrite(str(example.mask), np.full((48, 20), 255, np.uint8))
    with pytest.raises(ValueError, match="has 20 x 48 pixels, but its image has 48 x 48"):
        wsol.evaluate(network, copy)
    for each in CUB200(copy, "test").examples:
        cv2.imwrite(str(each.mask), np.zeros((48, 48), np.uint8))
    with pytest.raises(ValueError, match="the masks have no object"):
        wsol.evaluate(network, copy)


def test_files_about_spurious_correlations_are_checked(network, copy, no_work):
    (copy / "backgrounds.txt").write_text("1 sky\n")
    with pytest.raises(ValueError, match=r"backgrounds.txt: no line for image"):
        wsol.evaluate(network, copy)


def test_data_must_be_named_for_a_model_without_a_folder(network, no_work):
    with pytest.raises(ValueError, match="give the folder of the data set"):
        wsol.evaluate(network)


def test_every_run_is_checked_before_the_first_begins(network, toy, tmp_path, no_work):
    for place in ("a/net", "b/net"):
        save_model(network, tmp_path / place)
    save_model(create_model("test_resnet", 7, image_size=32), tmp_path / "other")
    for second, message in (("b/net", "two runs are called net"), ("other", "trained on 7 cl")):
        runs = (tmp_path / "a" / "net", tmp_path / second)
        status, _, error = tool("evaluate.py", *runs, "--root", toy)
        assert (status, message in error) == (2, True), error
    plan = plan_evaluation(network, toy)
    assert plan.notes == ()
    train = replace(plan.splits, test=plan.splits.validation)
    other = replace(plan, name="other", splits=train)
    with pytest.raises(ValueError, match="other is scored on other images"):
        require_comparable([plan, other], same_images=True)
    require_comparable([plan, other], same_images=False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"threshold": 1.5}, "threshold must lie in"),
        ({"threshold_step": 0.0}, "threshold_step must be at least"),
        ({"ious": (0.5, 2)}, "ious must lie in"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ScoringConfig(**setting)
