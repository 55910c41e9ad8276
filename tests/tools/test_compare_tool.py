"""compare.py: methods trained side by side, and a method of one's own."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from scipy import stats

from tests.helpers.commands import ROOT, starting_nothing, tool
from tests.helpers.documents import blocks
from tests.helpers.stage import importing_from
from wsol.evaluation.metrics import student_interval
from wsol.report.comparison import (
    TrainedRun,
    accuracy_trade_off,
    method_table,
    read_run,
    read_scores,
)


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """Ordinary training, and a new method: one file, one import, one short YAML file."""
    files = {block.file: block.text for block in blocks(ROOT / "docs" / "extending.md")}
    for name in ("focal_loss.py", "focal.yaml"):
        (tmp_path / name).write_text(files[name])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    focal = tmp_path / "focal.yaml"
    standard = tmp_path / "standard.yaml"
    standard.write_text((ROOT / "configs" / "methods" / "standard.yaml").read_text())
    return standard, focal


def compare(configs, toy, output, *arguments):
    base = ("--base", ROOT / "configs" / "toy_standard.yaml", "--images", 2, "--output", output)
    model = ("--model.name", "test_resnet", "--data.image_size", 32)
    return tool("compare.py", *configs, *base, *arguments, "--", "--data.root", toy, *model)


@pytest.mark.ci
def test_compare_trains_once_and_shows_all(configs, toy, tmp_path):
    output, protocol = tmp_path / "out", tmp_path / "robustness.yaml"
    protocol.write_text(
        "images: 6\nmaps: [{attack: {steps: 2}, attribution: InputXGradient}]\n"
        "accuracy: [{radii: [0, 0.00784313725490196], attack: {steps: 1}}]\n"
    )
    more = ("--epochs", 1, "--robustness", protocol)
    with importing_from(tmp_path), starting_nothing():
        status, text, error = compare(configs, toy, output, *more)
    assert status == 0, error
    assert "| standard | 1 |" in text
    assert "| focal (not trained by its term) | 1 |" in text  # one step at a rate of 1e-6
    before = {file: file.stat().st_mtime_ns for file in output.glob("*/seed0/*.*")}
    assert {"last.ckpt", "metrics.json"} <= {file.name for file in before}
    status, again, error = compare(configs, toy, output, *more)
    assert (status, again) == (0, text), error
    assert {file: file.stat().st_mtime_ns for file in before} == before

    with open(output / "comparison.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(r["method"], r["seed"]) for r in rows] == [("standard", "0"), ("focal", "0")]
    metrics = json.loads((output / "focal" / "seed0" / "metrics.json").read_text())
    assert float(rows[1]["accuracy"]) == metrics["top1_accuracy"]
    page = (output / "comparison.md").read_text()
    assert "tools/compare.py" in page
    assert "differ in" not in page
    (attack,) = metrics["robustness"]["maps"]
    for column, measure in (("top-k", "top_k_intersection"), ("tau", "kendall")):
        found = float(rows[1][f"{column} of InputXGradient"])
        assert found == attack["measures"][measure]["mean"]
    (curve,) = metrics["robustness"]["accuracy"]
    assert float(rows[1]["accuracy under attack"]) == curve["accuracy"][1]
    report = (output / "focal" / "seed0" / "report.html").read_text()
    assert "Under attack" in report
    assert "TopK on InputXGradient, linf 2/255, 2 steps of 0.5/255" in report
    for name in ("maps.png", "accuracy_gt_known.png", "accuracy_robustness.png"):
        assert cv2.imread(str(output / name)).std() > 5

    status, _, error = compare(configs, toy, output, "--epochs", 2)
    assert status == 2
    assert "holds runs with another epochs 1" in error
    configs[1].write_text(configs[1].read_text().replace("gamma: 1.0", "gamma: 2.0"))
    status, _, error = compare(configs, toy, output, "--epochs", 1)
    assert status == 2
    assert "focal holds runs with another configuration" in error


def test_curves_are_points_of_one_method_with_its_settings_changed(configs, toy, tmp_path):
    curves = tmp_path / "curves.yaml"
    curves.write_text(
        f"focal:\n  config: {configs[1]}\n  points:\n    as_it_is:\n"
        "    '2': {objective: {init_args: {gamma: 2.0}}}\n"
    )
    output = tmp_path / "out"
    with importing_from(tmp_path), starting_nothing():
        chosen = ("--curves", curves, "--epochs", 1, "--methods", "cam")
        status, text, error = compare((), toy, output, *chosen)
    assert status == 0, error
    for point, gamma in (("as_it_is", 1.0), ("2", 2.0)):
        assert f"| focal_{point} (not trained by its term) | 1 |" in text
        settings = yaml.safe_load((output / f"focal_{point}/seed0/config.yaml").read_text())
        assert settings["objective"]["init_args"]["gamma"] == gamma
        metrics = json.loads((output / f"focal_{point}/seed0/metrics.json").read_text())
        scored = {row["heatmap"] for row in metrics["localization"]}
        assert {"cam", "centred box"} <= scored
        assert "gradient" not in scored
    assert "differ in" not in (output / "comparison.md").read_text()
    status, _, error = compare((), toy, tmp_path / "new", *chosen[:-1], "came")
    assert (status, "did you mean cam?" in error, (tmp_path / "new").exists()) == (2, True, False)
    more = ("--curves", curves, "--epochs", 1, "--methods", "cam", "--points")
    status, text, error = compare((), toy, output, *more, "focal_2")
    assert (status, "as_it_is" in text, "| focal_2 (not trained by its term) | 1 |" in text) == (
        0,
        False,
        True,
    ), error
    curves.write_text(curves.read_text().replace("2.0", "3.0"))
    status, _, error = compare((), toy, output, *more, "focal_2")
    assert (status, "holds runs with another configuration" in error) == (2, True)
    status, _, error = compare((), toy, output, *more, "focal_3")
    assert (status, "has no point focal_3" in error) == (2, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must be given by their names"),
        ("a: {config: methods/pgd}", "needs `config` and `points`"),
        ("a: {config: methods/pdg, points: {b: {}}}", "there is no configuration methods/pdg"),
        ("a: {config: methods/pgd, points: {b: 3}}", "is not a list of settings"),
        ("a: {config: methods/pgd, points: {../b: {}}}", "becomes a folder"),
    ],
)
def test_damaged_curves_are_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "curves.yaml").write_text(text)
    arguments = ("--curves", tmp_path / "curves.yaml", "--output", tmp_path / "out", "--epochs", 1)
    status, _, error = tool("compare.py", *arguments)
    assert status == 2
    assert message in error


def test_an_oracle_is_no_score_of_a_comparison():
    policies = {"a": ("val", "oracle"), "b": ("oracle",), "gradient": ("val",)}
    rows = [
        {"heatmap": name, "policy": policy, "gt_known_loc": 0.5, "top1_loc": 0.4}
        for name, each in policies.items()
        for policy in each
    ]
    scores = read_scores({"localization": rows})
    assert scores["a GT-known"] == scores["GT-known"] == 0.5
    assert scores["b GT-known"] is None


def test_a_line_joins_the_points_of_a_curve_only():
    """The picture of two points of a curve has more ink than that of two methods apart."""
    runs = some_runs(a=[0.2], b=[0.9])
    runs = [replace(run, scores=run.scores | {"GT-known": run.scores["accuracy"]}) for run in runs]
    pictures = [
        accuracy_trade_off([replace(run, curve=curve) for run in runs], ["GT-known"])
        for curve in ("", "c")
    ]
    apart, joined = (cv2.imdecode(np.frombuffer(p, np.uint8), 0)[:, :400] for p in pictures)
    assert (joined < 200).sum() > (apart < 200).sum() + 100


@pytest.mark.slow
def test_equal_time_gives_a_dear_method_fewer_epochs(configs, toy, tmp_path):
    slow = tmp_path / "slow.yaml"
    slow.write_text(
        "objective:\n  class_path: robust_training.objectives.AdversarialTraining\n"
        "  init_args: {attack: {steps: 40, step_size: 0.001}}\n"
    )
    status, _, error = compare((configs[0], slow), toy, tmp_path / "out", "--minutes", 0.05)
    assert status == 0, error
    epochs = json.loads((tmp_path / "out" / "epochs.json").read_text())
    assert epochs["standard"] > epochs["slow"] >= 1


def test_a_failing_run_is_named_with_its_message(configs, toy, tmp_path):
    """And what failed before is not held against what is put right."""
    failed = tmp_path / "out" / "focal" / "trained_with.json"
    failed.parent.mkdir(parents=True)
    failed.write_text('{"epochs": 7}')
    configs[1].write_text("objective: {class_path: Standart}\n")
    with starting_nothing():
        status, _, error = compare(configs[1:], toy, tmp_path / "out", "--epochs", 1, "--jobs", 2)
    assert status == 2
    assert "did you mean Standard" in error
    assert "seed0.log" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either --epochs or --minutes"),
        (("--epochs", 1, "--minutes", 1), "either --epochs or --minutes"),
        (("--epochs", 0), "epochs"),
        (("--epochs", 1, "--seeds", -1), "seeds"),
        (("--epochs", 1, "--seeds", 0, 0), "names a seed twice"),
        (("--epochs", 1, "--base", "/no.yaml"), "there is no configuration /no.yaml"),
    ],
)
def test_mistakes_cost_one_line(configs, tmp_path, arguments, message):
    own = ("--output", tmp_path / "out")
    status, _, error = tool("compare.py", *configs, *own, *arguments)
    assert status == 2
    assert message in error
    assert not (tmp_path / "out").exists()
    status, _, error = tool("compare.py", configs[0], configs[0], *own, "--epochs", 1)
    assert (status, "same file name" in error) == (2, True)


def some_runs(**accuracies):
    return [
        TrainedRun(
            name, seed, Path(), read_scores({"localization": []}) | {"accuracy": value}, [2.0]
        )
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def test_intervals_are_students():
    values = [0.5, 0.6, 0.8]
    mean, half = student_interval(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert np.isnan(student_interval([0.5])[1])
    table = method_table(some_runs(a=[0.5, 0.6, 0.8], b=[0.25]))
    assert f"| a | 3 | 63.3 ± {100 * (high - low) / 2:.1f} | 1 | 2.0 s | 1.0x |" in table
    assert "| b | 1 | 25.0 | 1 | 2.0 s | 1.0x |" in table
    assert accuracy_trade_off(some_runs(a=[0.5]), ["GT-known"]) is None


@pytest.mark.parametrize(
    ("columns", "mark"),
    [
        ({"val_pull": 0.70, "val_pull_untrained": 0.69}, " (not trained by its term)"),
        ({"val_pull": 0.50, "val_pull_untrained": 0.69}, ""),
        (
            {"val_gradient_cosine": 0.5, "val_gradient_cosine_before": 0.6},
            " (probably overfits to its attack)",
        ),
        ({"val_gradient_cosine": 0.9, "val_gradient_cosine_before": 0.6}, ""),
    ],
)
def test_a_method_whose_training_failed_is_marked(tmp_path, columns, mark):
    columns = {"epoch": 1, "val_accuracy": 0.5} | columns | {"seconds": 2.0}
    values = ",".join(map(str, columns.values()))
    (tmp_path / "log.csv").write_text(f"{','.join(columns)}\n{values}\n")
    (tmp_path / "metrics.json").write_text(json.dumps({"localization": [], "top1_accuracy": 0.5}))
    run = read_run("a", 0, tmp_path)
    assert f"| a{mark} | 1 |" in method_table([run, *some_runs(b=[0.5])])
