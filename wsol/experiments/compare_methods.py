"""Trains several configurations with equal budgets and seeds, and compares their scores."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robust_training.atomic_io import write_texts
from wsol.cli.config_files import find_config
from wsol.cli.run_folder import record_settings
from wsol.cli.subprocesses import run_command, run_parallel, train
from wsol.data.image_folder import BOXES
from wsol.data.loaders import read_data_config
from wsol.data.names import suggestion
from wsol.data.text_files import read_json, read_yaml
from wsol.heatmaps.methods import find_method
from wsol.report.comparison import (
    GT_KNOWN,
    TrainedRun,
    accuracy_trade_off,
    csv_table,
    differences,
    epoch_seconds,
    method_table,
    read_run,
    robustness_columns,
    sheet,
)

_CHANGES = "changes.yaml"  # of a method, in its folder


@dataclass(frozen=True)
class Method:
    """A training method of a comparison.

    Attributes:
        config: Its YAML file.
        changes: Settings that are read after `config`.
        curve: Name of the curve that it is a point of. Empty if it stands alone.
    """

    config: Path
    changes: Mapping[str, Any] = field(default_factory=dict)
    curve: str = ""


def read_curves(file: Path, points: Sequence[str] | None = None) -> dict[str, Method]:
    """Reads curves, a method with several settings each: configs/trade_off/curves.yaml.

    Args:
        points: Names of the methods to take. If None, all.

    Returns:
        Name of a method, <curve>_<point> -> the method.

    Raises:
        ValueError: the file has another form, or no such point.
    """
    methods = {}
    for curve, content in _named(file, "curves", read_yaml(file)):
        if not isinstance(content, dict) or content.keys() != {"config", "points"}:
            raise ValueError(f"{file}: the curve {curve} needs `config` and `points`, nothing else")
        config = find_config(str(content["config"]))
        for point, changes in _named(file, f"points of {curve}", content["points"]):
            if not isinstance(changes, dict | None):
                raise ValueError(f"{file}: the point {point} of {curve} is not a list of settings")
            methods[f"{curve}_{point}"] = Method(config, changes or {}, curve)
    for point in points or ():
        if point not in methods:
            raise ValueError(f"{file} has no point {point}{suggestion(point, list(methods))}")
    return methods if points is None else {point: methods[point] for point in points}


def _named(file: Path, what: str, content: Any) -> list[tuple[str, Any]]:
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{file}: the {what} must be given by their names")
    for name in map(str, content):
        if not re.fullmatch(r"[\w.+-]+", name):
            raise ValueError(f"{file}: {name!r} becomes a folder; use letters, digits, `.`, `-`")
    return [(str(name), value) for name, value in content.items()]


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison, and the options that they share.

    Attributes:
        output: Folder of the runs, <method>/seed<n>, and of the results.
        methods: Name of a method -> the method.
        base: YAML files that are read before each method's.
        options: Options of train.py, for every run.
        device: Device for scoring.
        robustness: Option of evaluate.py: "false", "true", or a file of settings.
        heatmaps: Heatmaps to score, option `--methods` of evaluate.py. If empty, its default.
    """

    output: Path
    methods: Mapping[str, Method]
    base: Sequence[str | Path]
    options: Sequence[str]
    device: str
    robustness: str
    jobs: int
    heatmaps: Sequence[str] = ()

    def __post_init__(self) -> None:
        for file in (*map(Path, self.base), *(each.config for each in self.methods.values())):
            if not file.is_file():
                raise ValueError(f"there is no configuration {file}")
        if self.robustness not in ("false", "true") and not Path(self.robustness).is_file():
            raise ValueError(f"--robustness must be true, false or a file, not {self.robustness}")
        for name in self.heatmaps:
            find_method(name)  # refuses an unknown name

    def run(
        self, seeds: Sequence[int], *, epochs: int | None = None, minutes: float | None = None
    ) -> list[TrainedRun]:
        """Trains and scores every method with every seed.

        Finished runs are not repeated. Interrupted runs continue.

        Args:
            epochs: Number of epochs of every run. If None, `minutes` is the budget.
            minutes: Training time of every run. A trial of one epoch gives the number of epochs of
                each method.

        Raises:
            ValueError: there is not exactly one budget, a seed is listed twice, earlier runs in the
                output folder had other settings, or a process fails.
        """
        if (epochs is None) == (minutes is None):
            raise ValueError("give the budget: either --epochs or --minutes")
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"--seeds {list(seeds)} names a seed twice")
        for name, method in self.methods.items():
            texts = [Path(file).read_text() for file in (*self.base, method.config)]
            changes = yaml.safe_dump(dict(method.changes)) if method.changes else ""
            settings = {
                "epochs": epochs,
                "minutes": minutes,
                "options": list(self.options),
                "configuration": "".join([*texts, changes]),
            }
            record_settings(self.output / name, settings)
            if changes:
                write_texts(self.output / name, {_CHANGES: changes})
        budgets = (
            dict.fromkeys(self.methods, epochs)
            if minutes is None
            else self._fitting_epochs(minutes, seeds[0])
        )
        folders = {(n, s): self.output / n / f"seed{s}" for s in seeds for n in self.methods}
        tasks = [(n, s, budgets[n], folder) for (n, s), folder in folders.items()]
        run_parallel(self._train, tasks, self.jobs, "training")
        run_parallel(
            self._evaluate, [(folder,) for folder in folders.values()], self.jobs, "scoring"
        )
        return [
            read_run(name, seed, folders[name, seed], method.curve)
            for name, method in self.methods.items()
            for seed in seeds
        ]

    def _train(self, name: str, seed: int, epochs: int, folder: Path) -> None:
        if len(epoch_seconds(folder)) < epochs:
            method = self.methods[name]
            changes = [self.output / name / _CHANGES] if method.changes else []
            configs = [*self.base, method.config, *changes]
            options = [*self.options, "--seed", str(seed), "--epochs", str(epochs)]
            train(configs, options, folder, at_once=self.jobs)

    def _evaluate(self, folder: Path) -> None:
        """Scores a run, unless its scores have the same heatmaps and attacks and are newer than its
        model and its boxes."""
        metrics, scored_with = folder / "metrics.json", folder / "scored_with.json"
        boxes = Path(read_data_config(folder).root) / BOXES  # users add boxes to this file
        changed = [each.stat().st_mtime for each in (folder / "best", boxes) if each.exists()]
        fresh = metrics.exists() and metrics.stat().st_mtime >= max(changed)
        file = Path(self.robustness)
        wanted = {"robustness": file.read_text() if file.is_file() else self.robustness}
        if self.heatmaps:
            wanted["methods"] = list(self.heatmaps)
        before = read_json(scored_with) if scored_with.is_file() else {}
        if not isinstance(before, dict):
            raise ValueError(f"{scored_with} is damaged")
        fresh &= before.get("methods") == wanted.get("methods")
        if self.robustness != "false":
            fresh &= before.get("robustness") == wanted["robustness"]
        if not fresh:
            options = [str(folder), "--robustness", self.robustness, "--device", self.device]
            if self.heatmaps:
                options += ["--methods", *self.heatmaps]
            log = folder.with_name(f"{folder.name}.log")
            run_command("evaluate", options, log, at_once=self.jobs)
            write_texts(folder, {scored_with.name: json.dumps(wanted)})

    def _fitting_epochs(self, minutes: float, seed: int) -> dict[str, int]:
        """The number of epochs of each method that fit in the time. It is kept in epochs.json."""
        file = self.output / "epochs.json"
        known: dict[str, int] = read_json(file) if file.is_file() else {}
        if not (isinstance(known, dict) and all(type(each) is int for each in known.values())):
            raise ValueError(f"{file} is damaged")
        trials = {name: self.output / name / "trial" for name in self.methods if name not in known}
        tasks = [(name, seed, 1, folder) for name, folder in trials.items()]
        run_parallel(self._train, tasks, self.jobs, "timing")
        for name, folder in trials.items():
            known[name] = max(1, int(60 * minutes / epoch_seconds(folder)[0]))
        write_texts(self.output, {file.name: json.dumps(known, indent=2)})
        return known


def write_comparison(output: Path, runs: Sequence[TrainedRun], command: str, images: int) -> str:
    """Writes comparison.md, comparison.csv and the pictures. Returns the table in Markdown.

    Args:
        command: The command that made the runs.
        images: Number of images in the picture of maps.
    """
    table, other = method_table(runs), differences(runs)
    note = f"Besides the objective, the configurations differ in {', '.join(other)}.\n\n"
    text = (
        f"# Comparison\n\n`{command}`\n\n{table}\n\n{note if other else ''}Scores are percentages "
        "of the test images, means over seeds with 95 % intervals (Student's t). GT-known and "
        "Top-1 Loc are for gradient maps if the column names no other map. The threshold is chosen "
        "on validation images; it is fixed if these have no box. Images without a box are left out "
        "of all scores, unless no image has a box.\n"
    )
    write_texts(output, {"comparison.md": text, "comparison.csv": csv_table(runs)})
    pictures = {
        "accuracy_gt_known.png": accuracy_trade_off(runs, [GT_KNOWN]),
        "accuracy_robustness.png": accuracy_trade_off(runs, robustness_columns(runs)),
        "maps.png": sheet(runs, read_data_config(runs[0].folder).dataset("test"), images=images),
    }
    for name, picture in pictures.items():
        if picture is None:
            (output / name).unlink(missing_ok=True)  # of another command
        else:
            (output / name).write_bytes(picture)
    return table
