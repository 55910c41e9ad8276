"""Compares training methods over seeds: tables and pictures from the folders of their runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robust_training.models.saving import load_model
from robust_training.training.log import csv_text, read_log
from robust_training.training.validation import overfitting, unmoved_terms
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.dataset import ImageDataset, spread_evenly
from wsol.data.inputs import to_pixels
from wsol.data.text_files import flat, number, read_json, read_lines, read_yaml
from wsol.evaluation.metrics import student_interval
from wsol.heatmaps.heatmap import Gradient
from wsol.localizer.overlay import PREDICTED, TRUE, blend, draw_boxes
from wsol.localizer.saved_models import chosen_threshold
from wsol.report.number_format import markdown
from wsol.report.plots import picture_grid, trade_offs

Metrics = Mapping[str, Any]


UNMOVED = "not trained by its term"
OVERFITS = "probably overfits to its attack"
ACCURACY, GT_KNOWN = "accuracy", "GT-known"
# measures of a map under attack: a column for each, and each attack on maps
_MAP_MEASURES = {"top_k_intersection": "top-k of {}", "kendall": "tau of {}"}


def read_scores(metrics: Metrics) -> dict[str, Any]:
    """Reads the columns of a comparison from a run's metrics.json: fractions, or None.

    Accuracy under attack is measured at the radius of the first attack on maps.
    """
    attack, curve = (_value(metrics, "robustness", key, 0) for key in ("maps", "accuracy"))
    radius, radii = _value(attack, "attack", "attack", "eps"), _value(curve, "eps")
    place = radii.index(radius) if isinstance(radii, list) and radius in radii else None
    # in files of earlier versions, the key of these measurements is "laboratory"
    spurious = _value(metrics, "spurious_correlation") or _value(metrics, "laboratory")
    return {
        ACCURACY: _value(metrics, "top1_accuracy"),
        GT_KNOWN: _localization(metrics, "gradient", "gt_known_loc"),
        "Top-1 Loc": _localization(metrics, "gradient", "top1_loc"),
        "CAM GT-known": _localization(metrics, "cam", "gt_known_loc"),
        **{
            f"{name} GT-known": _localization(metrics, name, "gt_known_loc")
            for name in dict.fromkeys(row["heatmap"] for row in metrics["localization"])
            if name not in ("gradient", "cam")
        },
        **_map_robustness(metrics),
        "GT-known under attack": _value(attack, "boxes", "gt_known_loc", "attacked", "mean"),
        "accuracy under attack": _value(curve, "accuracy", place),
        "worst group": _value(spurious, "groups", "worst", "accuracy"),
        "gradient mass in mask": _value(spurious, "object", "mass"),
        "gradient mass on null patch": _value(spurious, "null_patch", "mass"),
    }


def _map_robustness(metrics: Metrics) -> dict[str, Any]:
    """Reads the similarity of each attribution's map before and after its first attack."""
    found: dict[str, Any] = {}
    for attack in _value(metrics, "robustness", "maps") or ():
        attribution = _value(attack, "attack", "attribution", "class")
        for measure, title in _MAP_MEASURES.items():
            found.setdefault(title.format(attribution), _value(attack, "measures", measure, "mean"))
    return found


def robustness_columns(runs: Sequence["TrainedRun"]) -> list[str]:
    """Names of the scores of maps under attack."""
    starts = [title.format("") for title in _MAP_MEASURES.values()]
    return [name for name in _present(runs) if name.startswith(tuple(starts))]


def _value(content: Any, *keys: str | int | None) -> Any:
    """Returns the value below these keys and list indices, or None."""
    for key in keys:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def _localization(metrics: Metrics, heatmap: str, key: str) -> float | None:
    """A score of a heatmap under its first policy. None if that is an oracle."""
    row = next((row for row in metrics["localization"] if row["heatmap"] == heatmap), None)
    return None if row is None or row["policy"] == "oracle" else row[key]


@dataclass(frozen=True)
class TrainedRun:
    """A run that was trained and evaluated.

    Attributes:
        scores: From `read_scores`. A score is None if metrics.json does not contain it.
        seconds: Duration of each epoch, with validation.
        marks: Words for the table, beside the method's name: `UNMOVED` if training did not move a
            term of the objective, `OVERFITS` if the gradient became less steady under attack.
        curve: Name of the curve that the method is a point of. Empty if it stands alone.
    """

    method: str
    seed: int
    folder: Path
    scores: dict[str, float | None]
    seconds: list[float]
    marks: Sequence[str] = ()
    curve: str = ""


def read_run(method: str, seed: int, folder: Path, curve: str = "") -> TrainedRun:
    """Reads a run's metrics.json and log.csv. Raises ValueError if the run is not finished and
    evaluated."""
    try:
        found = read_scores(read_json(folder / "metrics.json"))
        scores = {name: _fraction(name, value) for name, value in found.items()}
        seconds = epoch_seconds(folder)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a finished run: {error}") from error
    log = read_log(folder)
    found = {UNMOVED: unmoved_terms(log), OVERFITS: overfitting(log)}
    marks = [mark for mark, sentences in found.items() if sentences]
    return TrainedRun(method, seed, folder, scores, seconds, marks, curve)


def epoch_seconds(folder: Path) -> list[float]:
    """Seconds of each finished epoch of a run; empty before the first one ends. Raises ValueError
    if log.csv is damaged. The message names file and line."""
    file = folder / "log.csv"
    lines = list(read_lines(file)) if file.is_file() else []
    heads = lines[0][1].split(",") if lines else []
    found = []
    for row, line in lines[1:]:
        try:
            found.append(number(dict(zip(heads, line.split(","), strict=True))["seconds"]))
        except (ValueError, KeyError) as error:
            raise ValueError(f"{file}, line {row}: {error}") from error
    return found


def _fraction(name: str, value: Any) -> float | None:
    """Checks a score of metrics.json. A missing score or NaN becomes None."""
    if value is None or value != value:
        return None
    lowest = -1 if name.startswith(_MAP_MEASURES["kendall"].format("")) else 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= 1:
        raise ValueError(f"{name} is {value!r:.40}, not a fraction in [{lowest},1]")
    return value


def csv_table(runs: Sequence[TrainedRun]) -> str:
    """CSV with a line for each run; scores are fractions."""
    names = _present(runs)
    return csv_text(
        [
            {"method": run.method, "seed": run.seed}
            | {"epochs": len(run.seconds), "seconds": f"{sum(run.seconds):.1f}"}
            | {name: run.scores.get(name) for name in names}
            for run in runs
        ]
    )


def method_table(runs: Sequence[TrainedRun]) -> str:
    """Markdown table of means over seeds in percent, with 95 % intervals (Student's t).

    A method is marked if a run's own term did not fall on validation images, or if it overfits to
    its attack.
    """
    methods = _by_method(runs)
    first = next(iter(methods.values()))
    names = _present(runs)
    heads = ("method", "seeds", *names, "epochs", "time of an epoch", "")
    rows = [
        [
            method + "".join(f" ({mark})" for mark in _marks(group)),
            str(len(group)),
            *(_cell([run.scores.get(name) for run in group]) for name in names),
            str(len(group[0].seconds)),
            f"{_epoch(group):.1f} s",
            f"{_epoch(group) / _epoch(first):.1f}x",
        ]
        for method, group in methods.items()
    ]
    return markdown(heads, rows, 1)


def _marks(group: Sequence[TrainedRun]) -> list[str]:
    return list(dict.fromkeys(mark for run in group for mark in run.marks))


def accuracy_trade_off(runs: Sequence[TrainedRun], scores: Sequence[str]) -> bytes | None:
    """PNG: scores against accuracy, one panel each. None if no run has accuracy and a score."""
    panels = {
        score: {
            method: [
                (run.scores[ACCURACY], run.scores[score])
                for run in group
                if None not in (run.scores[ACCURACY], run.scores.get(score))
            ]
            for method, group in _by_method(runs).items()
        }
        for score in scores
    }
    return trade_offs(panels, ACCURACY, {run.method: run.curve for run in runs if run.curve})


def sheet(runs: Sequence[TrainedRun], dataset: ImageDataset, *, images: int = 8) -> bytes:
    """PNG: gradient maps of the true class, with a row for each of `images` images, which are
    spread evenly over `dataset`, and a column for each method.

    The maps are computed with every method's first seed. They show the true boxes and the box at
    the threshold chosen on validation images. Without such a threshold, ART's is used."""
    firsts = {method: group[0] for method, group in _by_method(runs).items()}
    chosen = spread_evenly(len(dataset), images)
    items = [dataset[index] for index in chosen]
    image = torch.stack([item["image"] for item in items])
    label = torch.tensor([item["label"] for item in items])
    photos = to_pixels(image)
    frame = image.shape[:-3:-1]
    truths = [
        [(box, TRUE) for box in dataset.examples[index].resized_boxes(item["size"], frame)]
        for index, item in zip(chosen, items, strict=True)
    ]
    columns = {"": [draw_boxes(*pair) for pair in zip(photos, truths, strict=True)]}
    for method, run in firsts.items():
        heatmaps = Gradient()(load_model(run.folder / "best"), image, label)
        threshold = chosen_threshold(run.folder)
        columns[method] = [
            draw_boxes(
                blend(photo, heatmap), [*truth, (largest_boxes(heatmap, [threshold])[0], PREDICTED)]
            )
            for photo, truth, heatmap in zip(photos, truths, heatmaps, strict=True)
        ]
    return picture_grid(columns)


def differences(runs: Sequence[TrainedRun]) -> list[str]:
    """Names of settings that differ between the runs, except objective, seed and epochs."""
    settings = [
        flat(read_yaml(run.folder / "config.yaml"))
        for run in runs
        if (run.folder / "config.yaml").is_file()
    ]
    names = sorted({name for each in settings for name in each})
    expected = ("objective", "output", "seed", "epochs")
    return [
        name
        for name in names
        if name.split(".")[0] not in expected
        and len({repr(each.get(name)) for each in settings}) > 1
    ]


def _by_method(runs: Sequence[TrainedRun]) -> dict[str, list[TrainedRun]]:
    groups: dict[str, list[TrainedRun]] = {}
    for run in runs:
        groups.setdefault(run.method, []).append(run)
    return groups


def _present(runs: Sequence[TrainedRun]) -> list[str]:
    """Columns that have a number in any run."""
    names = dict.fromkeys(name for run in runs for name in run.scores)
    return [name for name in names if any(run.scores.get(name) is not None for run in runs)]


def _cell(values: Sequence[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    mean, half = student_interval(known)
    return f"{mean:.1f}" if math.isnan(half) else f"{mean:.1f} ± {half:.1f}"


def _epoch(group: Sequence[TrainedRun]) -> float:
    return float(np.mean([second for run in group for second in run.seconds]))
