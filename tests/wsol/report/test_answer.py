"""The answer of an evaluation: each verdict, what to use instead, and reasons to doubt."""

import numpy as np
import pytest

from tests.helpers.birds import THRESHOLDS, birds, planted
from wsol.annotations.predictions import Predictions
from wsol.evaluation.box_table import box_row, stack_rows
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scores import score_heatmaps
from wsol.report.answer import answer, answer_text, under_attack
from wsol.report.html_tables import summary


def result(*, policy="val", checks=None, accuracy=0.9, **maps):
    """metrics.json with the paired interval of each map; (difference, low, high) in points."""
    rows, baselines = [], {}
    for name, (difference, low, high) in maps.items():
        score = 0.4 + difference / 100
        rows.append(row(name, policy, score))
        baselines[name] = {
            "baseline": "centred box",
            "policy": policy,
            "gt_known_loc": score,
            "baseline_gt_known_loc": 0.4,
            "difference": difference / 100,
            "interval": [low / 100, high / 100],
        }
    rows.append(row("centred box", policy, 0.4))
    return {
        "images": 50,
        "top1_accuracy": accuracy,
        "localization": rows,
        "headline": {r["heatmap"]: {"policy": policy, "threshold": 0.2} for r in rows},
        "baselines": baselines,
        "checks": {name: checks or {} for name in maps},
    }


def row(name, policy, score):
    ends = {"gt_known_loc": (score - 0.1, score + 0.1)}
    scores = {"gt_known_loc": score, "top1_loc": None, "top5_loc": None}
    return {"heatmap": name, "policy": policy, "threshold": 0.2, "intervals": ends, **scores}


def test_an_interval_above_zero_is_better():
    found = answer(result(gradient=(7.3, 2.1, 12.5), cam=(20, 10, 30)))
    assert found.verdict == "better"
    assert found.sentence == (
        "The gradient map is better than the centred box: GT-known 47.3 against 40.0, "
        "+7.3 points [2.1, 12.5]."
    )
    assert found.cautions == ()


def test_an_interval_across_zero_is_equal_and_the_best_other_map_is_named():
    found = answer(result(gradient=(1, -3, 5), cam=(9, 4, 14), smoothgrad=(12, 6, 18)))
    assert found.verdict == "equal"
    assert found.sentence == (
        "The gradient map equals the centred box within the interval: GT-known 41.0 against 40.0, "
        "+1.0 points [-3.0, 5.0]. Use the smoothgrad map instead: GT-known 52.0, +12.0 points "
        "[6.0, 18.0] above the centred box."
    )
    for ends in ((0, 5), (-5, 0), (0, 0)):
        assert answer(result(gradient=(1, *ends))).verdict == "equal"


def test_an_interval_below_zero_is_no_better_and_the_box_itself_is_advised():
    found = answer(result(gradient=(-9, -15, -3), cam=(2, -1, 5)))
    assert found.verdict == "no better"
    assert found.sentence.startswith("The gradient map is no better than the centred box: ")
    assert found.sentence.endswith(
        "Use the centred box instead, or try `--methods refined_averaged_gradient`."
    )
    scored = {"gradient": (-9, -15, -3), "averaged gradient": (1, -2, 4)}
    scored["refined averaged gradient"] = (0, -2, 2)
    assert answer(result(**scored)).sentence.endswith("or try a detector (train_detector.py).")


def test_without_a_baseline_or_a_box_nothing_is_claimed():
    alone = result(gradient=(7, 2, 12)) | {"baselines": {}}
    found = answer(alone)
    assert found.verdict == "unknown"
    assert found.sentence == (
        "GT-known of gradient is 47.0 [37.0, 57.0]. No baseline was scored beside it."
    )
    unscored = {"images": 9, "top1_accuracy": 0.5, "top5_accuracy": 1.0, "headline": {}}
    unscored["localization"] = []
    found = answer(unscored)
    assert (found.verdict, found.cautions) == ("unknown", ())
    assert found.sentence == "No image has a true box, so no box was scored."
    text = answer_text({"run": unscored})
    assert "| run | all 9 | 50.0 | 100.0 |" in text
    assert text.endswith("run: No image has a true box, so no box was scored.")


@pytest.mark.parametrize(
    ("checks", "policy", "words"),
    [
        ({"validation_boxes": 19}, "val", "chosen by 19 validation boxes, and fewer than 20"),
        ({"validation_boxes": 1}, "val", "chosen by 1 validation box, and"),
        ({"validation_boxes": 20}, "val", None),
        ({}, "fixed:0.2", "map and baseline both have 0.2"),
        ({"copied": 0.98}, "val", "98.0 % of the true boxes equal this model's own boxes"),
        ({"validation_copied": 0.5}, "val", "50.0 % of the validation boxes equal"),
        ({"copied": 0.49, "validation_copied": None}, "val", None),
    ],
)
def test_doubts_stand_beside_the_score(checks, policy, words):
    scored = result(checks=checks, policy=policy, gradient=(7, 2, 12))
    found = answer(scored)
    assert len(found.cautions) == (words is not None)
    for text in (answer_text({"run": scored}), summary({"run": scored})):
        assert words is None or words.split("'")[0] in text
        assert text.lower().count("caution: ") == len(found.cautions)


def test_the_short_table_has_each_map_beside_its_baseline_and_all_has_every_row():
    results = {"run": result(gradient=(7, 2, 12), cam=(-1, -5, 3))}
    short = answer_text(results)
    assert short.count("\n| run | ") == 2
    assert (
        "| run | cam | val (0.2) | 39.0 [29.0, 49.0] | - | 90.0 | centred box | 40.0 | -1.0"
        in short
    )
    assert short.endswith("+7.0 points [2.0, 12.0].")
    results["run"] |= {"headline": {}}
    everything = answer_text(results, everything=True)
    assert "| run | centred box | val (0.2) | 40.0" in everything
    assert everything.endswith("+7.0 points [2.0, 12.0].")


def test_true_boxes_that_the_model_made_are_found():
    """At any threshold, and if only the images with a correct prediction have such boxes."""
    rng = np.random.default_rng(0)
    corners = rng.integers(1, 6, (8, 2))
    inner = np.column_stack([corners, corners + rng.integers(4, 8, (8, 2))])
    heatmaps = [np.maximum(planted(box), planted((0, 0, 15, 14)) * 0.3) for box in inner]
    table = stack_rows(map(box_row, heatmaps))

    def copied(boxes, correct=None, validation=None):
        truth = birds([tuple(box) for box in boxes])
        predicted = None
        if correct is not None:
            order = np.where(correct, truth.labels, (truth.labels + 1) % 3)
            predicted = Predictions(order[:, None], None, 3)
        output = SplitOutput(truth, predicted, {"gradient": table})
        scores = score_heatmaps(output, validation and output, thresholds=THRESHOLDS)
        return scores.metrics["checks"]["gradient"]

    assert copied(inner) == {"copied": 1.0}
    assert copied([(0, 0, 15, 14)] * 8)["copied"] == 1.0
    drawn = inner + [0, 0, 1, 1]
    assert copied(drawn)["copied"] == 0
    half = np.arange(8) < 5
    mixed = np.where(half[:, None], inner, drawn)
    assert copied(mixed)["copied"] == 5 / 8
    assert copied(mixed, correct=half)["copied"] == 1
    assert copied(mixed, correct=~half)["copied"] is None  # of three images
    found = copied(inner, validation=True)
    assert (found["validation_boxes"], found["validation_copied"]) == (8, 1.0)


@pytest.mark.parametrize(("named", "said"), [({}, "gradient"), ({"heatmap": "ddt"}, "ddt")])
def test_the_map_whose_boxes_were_attacked_is_named(named, said):
    boxes = named | {"gt_known_loc": {"clean": {"mean": 0.96}, "attacked": {"mean": 0.147}}}
    stays = {"top_k_intersection": {"mean": 0.004, "interval": [0.001, 0.01]}}
    text = under_attack({"robustness": {"maps": [{"measures": stays, "boxes": boxes}]}})
    assert f"GT-known of the {said} map goes from 96.0 to 14.7." in text
