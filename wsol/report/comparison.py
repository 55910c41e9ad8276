"""Methods side by side, each over seeds: numbers, table and pictures from their runs' folders."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats

from robust_training.models.classifier import load_model
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.data.dataset import ImageDataset
from wsol.data.inputs import to_pixels
from wsol.data.text_files import flat, number, read_json, read_lines, read_yaml
from wsol.heatmaps.heatmap import Gradient
from wsol.localizer.overlay import PREDICTED, TRUE, blend, draw_boxes, legend, png
from wsol.localizer.saved_models import chosen_threshold
from wsol.report.number_format import markdown

Metrics = Mapping[str, Any]


def _localization(heatmap: str, key: str) -> Callable[[Metrics], float | None]:
    """A score of a heatmap at the threshold that validation images chose, or else at that given
    in advance."""

    def read(metrics: Metrics) -> float | None:
        rows = [row for row in metrics["localization"] if row["heatmap"] == heatmap]
        for policy in ("val", "fixed:"):
            for row in rows:
                if row["policy"].startswith(policy):
                    return row[key]
        return None

    return read


def _nested(*keys: str | int) -> Callable[[Metrics], Any]:
    """What stands below these keys, and places in lists; None where there is no such."""

    def read(metrics: Metrics) -> Any:
        value: Any = metrics
        for key in keys:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    return read


def _first_attack(*keys: str) -> Callable[[Metrics], float | None]:
    return _nested("robustness", "maps", 0, *keys)


def _accuracy_under_attack(metrics: Metrics) -> float | None:
    """At the radius of the first attack on maps, where the first curve has it."""
    radius = _first_attack("attack", "attack", "eps")(metrics)
    radii = _nested("robustness", "accuracy", 0, "eps")(metrics)
    if not isinstance(radii, list) or radius not in radii:
        return None
    return _nested("robustness", "accuracy", 0, "accuracy", radii.index(radius))(metrics)


ACCURACY, GT_KNOWN, ROBUSTNESS = "accuracy", "GT-known", "map under attack"

# What is compared, and where a run's metrics.json says it; a share. Columns that no run has a
# number for are left out.
SCORES: dict[str, Callable[[Metrics], float | None]] = {
    ACCURACY: _nested("top1_accuracy"),
    GT_KNOWN: _localization("gradient", "gt_known_loc"),
    "Top-1 Loc": _localization("gradient", "top1_loc"),
    "CAM GT-known": _localization("cam", "gt_known_loc"),
    "centred box GT-known": _localization("centred box", "gt_known_loc"),
    ROBUSTNESS: _first_attack("measures", "top_k_intersection", "mean"),
    "GT-known under attack": _first_attack("boxes", "gt_known_loc", "attacked", "mean"),
    "accuracy under attack": _accuracy_under_attack,
    "worst group": _nested("laboratory", "groups", "worst", "accuracy"),
    "gradient mass in mask": _nested("laboratory", "object", "mass"),
    "gradient mass on null patch": _nested("laboratory", "null_patch", "mass"),
}


@dataclass(frozen=True)
class Trained:
    """A finished and evaluated run.

    Attributes:
        scores: Of `SCORES`, None where the metrics do not say.
        seconds: Of each epoch, validation included.
    """

    method: str
    seed: int
    folder: Path
    scores: dict[str, float | None]
    seconds: list[float]


def read_run(method: str, seed: int, folder: Path) -> Trained:
    """A run's metrics.json and log.csv.

    Raises:
        ValueError: the run is not finished and evaluated.
    """
    try:
        metrics = read_json(folder / "metrics.json")
        scores = {name: _share(name, read(metrics)) for name, read in SCORES.items()}
        seconds = epoch_seconds(folder)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a finished run: {error}") from error
    return Trained(method, seed, folder, scores, seconds)


def epoch_seconds(folder: Path) -> list[float]:
    """How long each finished epoch of a run took; empty before the first.

    Raises:
        ValueError: log.csv is damaged (file and line).
    """
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


def _share(name: str, value: Any) -> float | None:
    """A score of metrics.json; None where there is no number, or NaN, which nothing measured."""
    if value is None or value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r:.40}, no share")
    return value


def csv_table(runs: Sequence[Trained]) -> str:
    """One line for each run; scores are shares."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = _present(runs)
    writer.writerow(["method", "seed", "epochs", "seconds", *names])
    for run in runs:
        scores = ("" if run.scores[name] is None else run.scores[name] for name in names)
        length = (len(run.seconds), f"{sum(run.seconds):.1f}")
        writer.writerow([run.method, run.seed, *length, *scores])
    return text.getvalue()


def method_table(runs: Sequence[Trained]) -> str:
    """Markdown: means over seeds in percent, with 95 % intervals (Student's t)."""
    methods = _by_method(runs)
    first = next(iter(methods.values()))
    names = _present(runs)
    heads = ("method", "seeds", *names, "epochs", "time of an epoch", "")
    rows = [
        [
            method,
            str(len(group)),
            *(_cell([run.scores[name] for run in group]) for name in names),
            str(len(group[0].seconds)),
            f"{_epoch(group):.1f} s",
            f"{_epoch(group) / _epoch(first):.1f}x",
        ]
        for method, group in methods.items()
    ]
    return markdown(heads, rows, 1)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of the 95 % interval of the mean (Student's t); NaN for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * error


def scatter(runs: Sequence[Trained], x: str, y: str) -> bytes | None:
    """PNG: one score against another, a point for each method, bars for intervals over seeds, a
    dot for each run. None where no run has both."""
    figure = Figure(figsize=(6.5, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for method, group in _by_method(runs).items():
        points = [(run.scores[x], run.scores[y]) for run in group]
        points = [100 * np.array(point) for point in points if None not in point]
        if not points:
            continue
        (mean_x, half_x), (mean_y, half_y) = (interval(axis) for axis in zip(*points, strict=True))
        bars = axes.errorbar(
            mean_x,
            mean_y,
            None if math.isnan(half_y) else half_y,
            None if math.isnan(half_x) else half_x,
            fmt="o",
            capsize=2,
            label=method,
            elinewidth=0.8,
        )
        axes.plot(*zip(*points, strict=True), ".", color=bars[0].get_color(), alpha=0.5, ms=4)
    if not axes.has_data():
        return None
    axes.set(xlabel=f"{x}, %", ylabel=f"{y}, %")
    axes.grid(alpha=0.3)
    legend(axes)
    return png(figure)


def sheet(runs: Sequence[Trained], dataset: ImageDataset, *, images: int = 8) -> bytes:
    """PNG: the same images' gradient maps of the true class under every method's first seed, with
    the true boxes and the one at the threshold that validation images chose, or ART's."""
    firsts = {method: group[0] for method, group in _by_method(runs).items()}
    chosen = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).round().astype(int)
    items = [dataset[int(index)] for index in chosen]
    image = torch.stack([item["image"] for item in items])
    label = torch.tensor([item["label"] for item in items])
    pictures = to_pixels(image)
    frame = image.shape[:-3:-1]
    truths = [
        [(box, TRUE) for box in dataset.examples[index].resized_boxes(item["size"], frame)]
        for index, item in zip(chosen, items, strict=True)
    ]
    figure = Figure(
        figsize=(1.5 * (1 + len(firsts)), 1.5 * len(items) + 0.3), dpi=110, layout="constrained"
    )
    grid = figure.subplots(len(items), 1 + len(firsts), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, picture, truth in zip(grid, pictures, truths, strict=True):
        row[0].imshow(draw_boxes(picture, truth))
    for column, (method, run) in enumerate(firsts.items(), 1):
        heatmaps = Gradient()(load_model(run.folder / "best"), image, label)
        threshold = chosen_threshold(run.folder)
        grid[0, column].set_title(method, fontsize=7, parse_math=False)
        for axes, picture, truth, heatmap in zip(
            grid[:, column], pictures, truths, heatmaps, strict=True
        ):
            box = largest_boxes(heatmap, [threshold])[0]
            axes.imshow(
                draw_boxes(blend(picture, heatmap, opacity=0.7), [*truth, (box, PREDICTED)])
            )
    return png(figure)


def differences(runs: Sequence[Trained]) -> list[str]:
    """What differs between the runs' configurations, apart from objective, seed and length."""
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


def _by_method(runs: Sequence[Trained]) -> dict[str, list[Trained]]:
    groups: dict[str, list[Trained]] = {}
    for run in runs:
        groups.setdefault(run.method, []).append(run)
    return groups


def _present(runs: Sequence[Trained]) -> list[str]:
    return [name for name in SCORES if any(run.scores[name] is not None for run in runs)]


def _cell(values: Sequence[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    mean, half = interval(known)
    return f"{mean:.1f}" if math.isnan(half) else f"{mean:.1f} ± {half:.1f}"


def _epoch(group: Sequence[Trained]) -> float:
    return float(np.mean([second for run in group for second in run.seconds]))
