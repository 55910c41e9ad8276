"""Heatmap methods by name, through tools/evaluate.py and tools/localize.py."""

import csv
import json

from tests.commands import tool


def test_a_refined_map_is_scored_beside_its_floor_and_localizes(run, toy, tmp_path):
    status, text, error = tool("evaluate.py", run, "--methods", "refined_gradient", "--v2", "false")
    assert status == 0, error
    metrics = json.loads((run / "metrics.json").read_text())
    scores = {row["heatmap"]: row for row in metrics["localization"] if row["policy"] == "val"}
    assert set(scores) == {"refined gradient", "refined centred box"}
    (gain,) = metrics["floors"].values()
    assert gain["floor"] == "refined centred box"
    mine, floor = (scores[name]["gt_known_loc"] for name in scores)
    assert (gain["gt_known_loc"], gain["floor_gt_known_loc"]) == (mine, floor)
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


def test_options_that_cannot_be_met_cost_one_line(run, toy, tmp_path):
    for name, option, message in (
        ("localize.py", ("--method", "gradcam"), "there is no heatmap method 'gradcam'"),
        ("localize.py", ("--label", "Red Finch"), "knows no class 'Red Finch'; did you mean"),
        ("localize.py", ("--boxes", 0), "boxes"),
        ("evaluate.py", ("--methods", "refined"), "there is no heatmap method 'refined'"),
    ):
        target = (toy, "--output", tmp_path / "out") if name == "localize.py" else ()
        status, _, error = tool(name, run, *target, *option)
        assert status == 2
        assert message in error
        assert not (tmp_path / "out").exists()
