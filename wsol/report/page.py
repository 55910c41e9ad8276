"""The report: one HTML file with scores, curves, error types, and a gallery of boxes."""

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from robust_training.atomic_io import write_text
from wsol.evaluation.results import Evaluation
from wsol.localizer.overlay import PREDICTED, TRUE
from wsol.report import html_tables, score_tables
from wsol.report.attacked_maps import attacked_maps
from wsol.report.gallery import gallery
from wsol.report.number_format import Results
from wsol.report.plots import accuracy_charts, threshold_charts, training_charts
from wsol.report.robustness_tables import robustness_tables


def write_report(
    file: str | os.PathLike, evaluations: Mapping[str, Evaluation], *, images: int = 40
) -> None:
    """Writes one HTML file that needs no other file.

    Args:
        evaluations: Run name -> its evaluation, from `wsol.evaluate`.
        images: Number of test images in the gallery (`gallery.choose`); fewer for many runs.

    Raises:
        ValueError: the runs were scored on different images.
    """
    first = next(iter(evaluations.values()))
    names = [example.name for example in first.dataset.examples]
    for run, evaluation in evaluations.items():
        if [example.name for example in evaluation.dataset.examples] != names:
            raise ValueError(f"{run} was scored on other images: write a report for each")
    data = gallery(evaluations, images)
    results = {run: evaluation.metrics for run, evaluation in evaluations.items()}
    folders = {run: evaluation.folder for run, evaluation in evaluations.items()}
    sections = _sections(results, folders, attacked_maps(evaluations))
    sections = {name: text for name, text in sections.items() if text}
    script = _file("page.js")
    page = Template(_file("page.html")).substitute(
        runs=html.escape(", ".join(evaluations)),
        images=f"{len(names):,}",
        shown=len(data["images"]),
        summary=html_tables.summary(results),
        links="".join(f'<a href="#{_anchor(name)}">{name}</a>' for name in sections),
        sections="".join(
            f'<section id="{_anchor(name)}"><h2>{name}</h2>{text}</section>'
            for name, text in sections.items()
        ),
        true="rgb" + str(TRUE),
        predicted="rgb" + str(PREDICTED),
        style=_file("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=script_data(data),
    )
    write_text(file, page)


def script_data(data: Any) -> str:
    """JSON in ASCII, without the character that begins HTML markup."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _sections(
    results: Results, folders: Mapping[str, Path | None], maps_under_attack: str
) -> dict[str, str]:
    """Title -> content; empty if there are no measurements."""
    return {
        "Scores": "".join(map(_note, _doubts(results)))
        + html_tables.score_table(results)
        + html_tables.table(*score_tables.accuracy_table(results))
        + html_tables.table(*score_tables.more_table(results))
        + _noted(
            _charts(threshold_charts(results)),
            "On the test images. The dot is the threshold of the policy val or unboxed.",
        ),
        "Error types": _noted(
            html_tables.error_table(results),
            "images.csv in the run's folder lists every image with its box, IoU and error type.",
        ),
        "Spurious correlations": html_tables.table(*score_tables.spurious_table(results)),
        "Under attack": _noted(
            maps_under_attack,
            "Six test images, spread evenly, with the gradient map and its box. The attack is that "
            "of the first row below, which changes the map and keeps the class.",
        )
        + "".join(html_tables.table(*each) for each in robustness_tables(results))
        + _charts(accuracy_charts(results)),
        "Training": _charts(training_charts(folders)),
        "How it was scored": _note(next(iter(results.values()))["protocol"]),
    }


def _doubts(results: Results) -> list[str]:
    """A sentence for each kind of heatmap with implausible boxes."""
    return [
        f"{run}, {name}: {headline['doubt']}."
        for run, result in results.items()
        for name, headline in result["headline"].items()
        if headline["doubt"]
    ]


def _charts(figures: str) -> str:
    return f'<div class="charts">{figures}</div>' if figures else ""


def _noted(content: str, text: str) -> str:
    return content and content + _note(text)


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _file(name: str) -> str:
    return resources.files("wsol.report").joinpath("static", name).read_text(encoding="utf-8")
