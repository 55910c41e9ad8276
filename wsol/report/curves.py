"""Line charts as SVG that takes its colours from the page."""

import csv
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from wsol.report.entry import Entry

_WIDTH, _HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 38
_COLOURS = 6  # --line-0, ... of page.css
_LAST = ("lr", "seconds")  # columns of less interest


@dataclass(frozen=True)
class Line:
    """Points of a chart; those that are not finite are left out.

    Attributes:
        colour: Its number; the same thing has the same one in all charts.
        band: Lower and upper ends of intervals.
        mark: A point to stand out.
    """

    name: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[Sequence[float]] = ()
    mark: tuple[float, float] | None = None


def training_charts(entries: Mapping[str, Entry]) -> str:
    """One for each column of the runs' log.csv, nothing for runs without."""
    logs = {run: _read_log(entry) for run, entry in entries.items()}
    columns = dict.fromkeys(column for log in logs.values() for column in log)
    return "".join(
        chart(
            column.replace("_", " "),
            "epoch",
            [
                Line(run, number, log["epoch"], log[column])
                for number, (run, log) in enumerate(logs.items())
                if column in log
            ],
        )
        for column in sorted(columns, key=_LAST.__contains__)
        if column != "epoch"
    )


def threshold_charts(results: Mapping[str, Mapping[str, Any]]) -> str:
    """GT-known against the heatmap threshold, for each run; a dot where validation chose."""
    charts = ""
    for run, result in results.items():
        if not result["curves"]:
            continue
        marks = {
            row["heatmap"]: (row["threshold"], 100 * row["gt_known_loc"])
            for row in result["localization"]
            if row["policy"] == "val"
        }
        lines = [
            Line(
                name,
                number,
                curve["threshold"],
                _percent(curve["gt_known_loc"]),
                (),
                marks.get(name),
            )
            for number, (name, curve) in enumerate(result["curves"].items())
        ]
        title = f"{run}: GT-known, %"
        charts += chart(title, "heatmap threshold", lines, x_range=(0, 1), y_range=(0, 100))
    return charts


def accuracy_charts(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Accuracy against the radius of an attack with its 95 % interval, for each norm."""
    curves = [
        (run, number, curve)
        for number, (run, result) in enumerate(results.items())
        for curve in result.get("robustness", {}).get("accuracy", [])
    ]
    norms = dict.fromkeys(curve["curve"]["attack"]["norm"] for *_, curve in curves)
    charts = ""
    for norm in norms:
        scale, unit = (255, "255ths") if norm == "linf" else (1, "of images in [0,1]")
        lines = [
            Line(
                run,
                number,
                [scale * eps for eps in curve["eps"]],
                _percent(curve["accuracy"]),
                [_percent(ends) for ends in curve["intervals"]],
            )
            for run, number, curve in curves
            if curve["curve"]["attack"]["norm"] == norm
        ]
        charts += chart(f"accuracy, %, {norm} attack", f"radius, {unit}", lines, y_range=(0, 100))
    return charts


def chart(
    title: str,
    x_label: str,
    lines: Sequence[Line],
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> str:
    """A <figure>; ranges that are not given are those of the lines."""
    x_ticks, x_low, x_high = _ticks(x_range, (line.x for line in lines))
    y_ticks, y_low, y_high = _ticks(y_range, (line.y for line in lines))

    def x(value: float) -> float:
        return _LEFT + (value - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    def points(pairs: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in pairs if math.isfinite(a + b))

    parts = ""
    for tick in y_ticks:
        parts += f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}"/>'
        parts += f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for tick in x_ticks:
        place = f'x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle"'
        parts += f"<text {place}>{tick:g}</text>"
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts += f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{x_label}</text>'
    for line in lines:
        colour = f'style="--colour: var(--line-{line.colour % _COLOURS})"'
        if line.band:
            low, high = zip(*line.band, strict=True)
            around = [*zip(line.x, low, strict=True), *zip(line.x[::-1], high[::-1], strict=True)]
            parts += f'<polygon class="band" {colour} points="{points(around)}"/>'
        path = points(zip(line.x, line.y, strict=True))
        parts += f'<polyline class="line" {colour} points="{path}"/>'
        for a, b in ([line.mark] if line.mark else []) + _alone(line):
            parts += f'<circle {colour} cx="{x(a):.1f}" cy="{y(b):.1f}" r="4"/>'
    legend = "".join(
        f'<li style="--colour: var(--line-{line.colour % _COLOURS})">{html.escape(line.name)}</li>'
        for line in lines
    )
    label = html.escape(f"{title} against {x_label}: {', '.join(line.name for line in lines)}")
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{parts}</svg>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _ticks(
    given: tuple[float, float] | None, values: Iterable[Sequence[float]]
) -> tuple[list[float], float, float]:
    """Ticks, and both ends of an axis."""
    finite = [value for each in values for value in each if math.isfinite(value)]
    low, high = given or (min(finite, default=0), max(finite, default=1))
    whole = bool(finite) and all(float(value).is_integer() for value in finite)
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    if given is not None:
        ticks = ticks[(ticks >= low) & (ticks <= high)]
    return [float(tick) for tick in ticks], *(given or (float(ticks[0]), float(ticks[-1])))


def _alone(line: Line) -> list[tuple[float, float]]:
    """The point of a line that has no other, which would not be seen."""
    pairs = list(zip(line.x, line.y, strict=True))
    return pairs if len(pairs) == 1 and math.isfinite(sum(pairs[0])) else []


def _percent(shares: Sequence[float]) -> list[float]:
    return (100 * np.asarray(shares)).tolist()


def _read_log(entry: Entry) -> dict[str, list[float]]:
    """Column -> a number for each epoch; what is none is NaN."""
    file = entry.folder / "log.csv"
    if not file.is_file():
        return {}
    with open(file, encoding="utf-8", errors="replace", newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns = [column for column in (rows[0] if rows else ()) if column]
    if "epoch" not in columns:
        return {}
    return {column: [_number(row[column]) for row in rows] for column in columns}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
