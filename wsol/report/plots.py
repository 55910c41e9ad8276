"""All plots, drawn by Matplotlib: line charts of the report as SVG, other figures as PNG."""

import html
import io
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from robust_training.training.log import read_log
from robust_training.training.validation import BEFORE, UNTRAINED
from wsol.evaluation.metrics import student_interval

# Matplotlib draws with these colours. The page replaces each by a variable of page.css, because the
# dark scheme has other colours.
_LINES = ("#2457c5", "#c2571a", "#5f6a78", "#177a48", "#8a3fa6", "#a88412")
_TEXT, _GRID = "#62666e", "#e3e1dc"
_VARIABLES = {colour: f"--line-{number}" for number, colour in enumerate(_LINES)} | {
    _TEXT: "--pale",
    _GRID: "--rule",
}
_STYLE = {
    "axes.autolimit_mode": "round_numbers",
    "axes.xmargin": 0,
    "axes.ymargin": 0,
    "font.size": 8,
    "lines.linewidth": 1.25,
    "lines.markersize": 5,
    "svg.fonttype": "none",  # text stays text and has the page's font
    "svg.hashsalt": "report",  # the same chart gives the same file
}
_LAST = ("lr", "seconds")  # these columns of a log are drawn last
_Ends = tuple[float, float] | None  # of an axis


@dataclass(frozen=True)
class Line:
    """A line of a chart. Points that are not finite are left out.

    Attributes:
        colour: Number of the line's colour. A run or heatmap has the same number in all charts.
        band: Lower and upper end of the interval at each point.
        mark: A point that is drawn as a dot.
        dashed: Whether the line is dashed.
    """

    name: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[Sequence[float]] = ()
    mark: tuple[float, float] | None = None
    dashed: bool = False


def line_chart(
    title: str, x_label: str, lines: Sequence[Line], x_range: _Ends = None, y_range: _Ends = None
) -> str:
    """An HTML <figure> with an SVG chart and its legend. Axes whose range is None fit the lines."""
    svg = _svg(line_figure(x_label, lines, x_range, y_range))
    items = "".join(
        f'<li style="--colour: var(--line-{line.colour % len(_LINES)})">{html.escape(line.name)}'
        "</li>"
        for line in lines
    )
    label = html.escape(f"{title} against {x_label}: {', '.join(line.name for line in lines)}")
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg role="img" aria-label="{label}" {svg}<ul class="legend">{items}</ul></figure>'
    )


@mpl.rc_context(_STYLE)
def line_figure(
    x_label: str, lines: Sequence[Line], x_range: _Ends = None, y_range: _Ends = None
) -> Figure:
    """The chart of `line_chart`."""
    figure = Figure(figsize=(3.4, 2), layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        colour = _LINES[line.colour % len(_LINES)]
        x, y = np.array(line.x, float), np.array(line.y, float)
        shown = np.isfinite(x + y)
        marker = "o" if shown.sum() == 1 else None  # a line with one point is invisible
        style = "--" if line.dashed else "-"
        axes.plot(x[shown], y[shown], style, color=colour, marker=marker, clip_on=False)
        if line.band:
            low, high = np.transpose(line.band)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, clip_on=False)
        if line.mark:
            axes.plot(*line.mark, "o", color=colour, clip_on=False)
    axes.set_xlabel(x_label, color=_TEXT)
    for axis, values in ((axes.xaxis, [line.x for line in lines]), (axes.yaxis, ())):
        whole = bool(values) and all(float(v).is_integer() for each in values for v in each)
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole))
        axis.set_major_formatter(FormatStrFormatter("%g"))
    axes.autoscale_view()  # otherwise it runs later, without these styles
    axes.set(xlim=x_range, ylim=y_range)
    axes.tick_params(length=0, pad=5, labelcolor=_TEXT)
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    return figure


@mpl.rc_context(_STYLE)
def _svg(figure: Figure) -> str:
    """The text of an SVG after `<svg `, with the page's colours. It has no headers, and no styles
    and ids, which would apply to the whole page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    view_box = re.search(r'viewBox="[^"]*"', text)[0]
    text = text[text.index(">", text.index("<svg")) + 1 :].replace("xlink:href=", "href=")
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return f"{view_box}>{text.strip()}"


def training_charts(folders: Mapping[str, Path | None]) -> str:
    """A chart for each column of the runs' log.csv; nothing for runs without a folder or a log. The
    chart of a term also shows the value for an untrained network, if it is known."""
    logs = {run: read_log(folder) for run, folder in folders.items()}
    columns = dict.fromkeys(column for log in logs.values() for column in (log[0] if log else ()))
    charts = ""
    for column in sorted(columns, key=_LAST.__contains__):
        if column == "epoch" or column.endswith((BEFORE, UNTRAINED)):
            continue
        lines = [
            Line(
                name,
                number,
                [row["epoch"] for row in log],
                [row[key] for row in log],
                dashed=dashed,
            )
            for number, (run, log) in enumerate(logs.items())
            for name, key, dashed in (
                (run, column, False),
                (f"{run}, untrained", column + UNTRAINED, True),
            )
            if log and key in log[0]
        ]
        charts += line_chart(column.replace("_", " "), "epoch", lines)
    return charts


def threshold_charts(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """A chart for each run: GT-known against the heatmap threshold. A dot marks the threshold
    of the policy val, or else of the policy unboxed."""
    charts = ""
    for run, result in metrics.items():
        if not result["curves"]:
            continue
        marks = {
            row["heatmap"]: (row["threshold"], 100 * row["gt_known_loc"])
            for row in reversed(result["localization"])  # val comes before unboxed
            if row["policy"] in ("val", "unboxed")
        }
        lines = [
            Line(
                name,
                number,
                curve["threshold"],
                _percent(curve["gt_known_loc"]),
                mark=marks.get(name),
            )
            for number, (name, curve) in enumerate(result["curves"].items())
        ]
        title = f"{run}: GT-known, %"
        charts += line_chart(title, "heatmap threshold", lines, x_range=(0, 1), y_range=(0, 100))
    return charts


def accuracy_charts(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """A chart for each attack: accuracy with its 95 % interval against the radius."""
    curves = [
        (run, number, curve)
        for number, (run, result) in enumerate(metrics.items())
        for curve in result.get("robustness", {}).get("accuracy", [])
    ]
    charts = ""
    attacks = {curve["protocol"]: curve["curve"]["attack"]["norm"] for *_, curve in curves}
    for protocol, norm in attacks.items():
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
            if curve["protocol"] == protocol
        ]
        title = f"accuracy, %, {protocol}"
        charts += line_chart(title, f"radius, {unit}", lines, y_range=(0, 100))
    return charts


def _percent(fractions: Sequence[float]) -> list[float]:
    return (100 * np.asarray(fractions)).tolist()


def trade_offs(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    x_label: str,
    curves: Mapping[str, str],
) -> bytes | None:
    """PNG: scores against another score, fractions drawn in percent.

    Args:
        panels: Name of a score -> name of a method -> (x, y) of each of its runs.
        x_label: Name of the other score.
        curves: Name of a method -> its curve. The methods of a curve have one colour, and a line
            joins them in their order. A method that is not in `curves` is a curve of its own.

    Returns:
        A point for each method with intervals over its runs, and a dot for each run. Without
        points, None.
    """
    shown = {title: methods for title, methods in panels.items() if any(methods.values())}
    if not shown:
        return None
    figure = Figure(dpi=120, layout="constrained")
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure.set_size_inches(4.4 * columns + 2, 3.8 * rows)
    places = figure.subplots(rows, columns, squeeze=False).flat
    names = dict.fromkeys(curves.get(m, m) for methods in shown.values() for m in methods)
    strong_then_pale = mpl.colormaps["tab20"].colors[::2] + mpl.colormaps["tab20"].colors[1::2]
    colours = dict(zip(names, itertools.cycle(strong_then_pale), strict=False))
    lines = {}
    for (title, methods), axes in zip(shown.items(), places, strict=False):
        means: dict[str, list[tuple[float, float]]] = {}
        for method, runs in methods.items():
            if runs:
                curve = curves.get(method, method)
                point = _mean_point(axes, runs, colours[curve])
                means.setdefault(curve, []).append(point)
                if curve != method:
                    label = method.removeprefix(curve).strip(" _")
                    axes.annotate(
                        label, point, (3, 3), textcoords="offset points", size=6, parse_math=False
                    )
        for curve, points in means.items():
            lines[curve] = axes.plot(*np.transpose(points), color=colours[curve], lw=0.9)[0]
            lines[curve].set_marker("o")
        axes.set(xlabel=f"{x_label}, %", ylabel=f"{title}, %")
        axes.grid(alpha=0.3)
    for axes in places:  # more places than scores
        axes.remove()
    legend = figure.legend(
        list(lines.values()), list(lines), fontsize=7, loc="outside right center", frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a `$` in a name must not begin a formula
    return _png(figure)


def _mean_point(
    axes: Axes, runs: Sequence[tuple[float, float]], colour: tuple[float, ...]
) -> tuple[float, float]:
    """Draws the intervals over `runs`, and a dot for each. Returns the means in percent."""
    x, y = 100 * np.transpose(runs)
    (mean_x, half_x), (mean_y, half_y) = student_interval(x), student_interval(y)
    errors = [None if math.isnan(half) else half for half in (half_y, half_x)]
    axes.errorbar(mean_x, mean_y, *errors, color=colour, capsize=2, elinewidth=0.8)
    axes.plot(x, y, ".", color=colour, alpha=0.5, ms=4)
    return mean_x, mean_y


def picture_grid(columns: Mapping[str, Sequence[np.ndarray]]) -> bytes:
    """PNG: columns with a title and equally many pictures, uint8 (H,W,3)."""
    count = len(next(iter(columns.values())))
    size = (1.5 * len(columns), 1.5 * count + 0.3)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    grid = figure.subplots(count, len(columns), squeeze=False)
    for column, (title, pictures) in zip(grid.T, columns.items(), strict=True):
        column[0].set_title(title, fontsize=7, parse_math=False)
        for axes, picture in zip(column, pictures, strict=True):
            axes.axis("off")
            axes.imshow(picture)
    return _png(figure)


def retraining_curves(
    fractions: Sequence[float], panels: Mapping[tuple[str, str], Mapping[str, np.ndarray]]
) -> bytes:
    """PNG: accuracy after retraining against the fraction of important pixels.

    Args:
        fractions: (F,).
        panels: (model, "roar" or "kar") -> attribution -> accuracies (seeds,F). The attribution
            "random" is dashed.
    """
    for_panels = _panels(3.4, 3, len(panels))
    for axes, ((model, mode), curves) in zip(for_panels, panels.items(), strict=True):
        for name, accuracies in curves.items():
            style = "--" if name == "random" else "-"
            mean = 100 * accuracies.mean(axis=0)
            axes.plot(fractions, mean, style, marker=".", label=name)
        word = "removed" if mode == "roar" else "kept"
        axes.set_title(f"{model}: {mode.upper()}", parse_math=False)
        axes.set(xlabel=f"important pixels {word}", ylabel="accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    return _png(axes.figure)


def trade_off(
    accuracies: Mapping[str, float], panels: Mapping[str, Mapping[str, np.ndarray]]
) -> bytes:
    """PNG: difference between a model's and the first model's area of ROAR or KAR, over accuracy.

    Args:
        accuracies: Model -> its accuracy. A line connects the models in this order.
        panels: "roar" or "kar" -> attribution -> areas (models,seeds).
    """
    x, first = [100 * each for each in accuracies.values()], next(iter(accuracies))
    for axes, (mode, lines) in zip(_panels(4.4, 3.4, len(panels)), panels.items(), strict=True):
        for name, areas in lines.items():
            above = areas - areas[0]
            label = f"{name} (first model: {areas[0].mean():+.3f})"
            (line,) = axes.plot(x, above.mean(axis=1), marker="o", linewidth=1, label=label)
            axes.plot(x, above, ".", color=line.get_color(), alpha=0.5, markersize=4)
        low = axes.get_ylim()[0]
        for place, label in zip(x, accuracies, strict=True):
            axes.text(place, low, label, fontsize=6, rotation=90, va="bottom", parse_math=False)
        axes.axhline(0, color="grey", linewidth=0.8, linestyle="--")
        axes.set(title=mode.upper(), xlabel="accuracy of the model, %")
        axes.set(ylabel=f"area - area of {first}".replace("$", r"\$"))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return _png(axes.figure)


def _panels(width: float, height: float, count: int) -> Iterable[Axes]:
    figure = Figure(figsize=(width * count, height), dpi=110, layout="constrained")
    return figure.subplots(1, count, squeeze=False)[0]


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
