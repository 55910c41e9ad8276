"""The report: one HTML file with scores, curves, error types, and a gallery of boxes."""

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from robust_training.atomic_io import write_text
from wsol.evaluation.results import Evaluation
from wsol.localizer.overlay import PREDICTED, TRUE
from wsol.report.gallery import gallery
from wsol.report.html_tables import (
    accuracy_table,
    attack_tables,
    error_table,
    more_table,
    score_table,
    spurious_table,
    summary,
)
from wsol.report.plots import accuracy_charts, threshold_charts, training_charts


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
            raise ValueError(f"{run} was scored on other images, so one report cannot hold both")
    data = gallery(evaluations, images)
    sections = {name: text for name, text in _sections(evaluations).items() if text}
    script = _file("page.js")
    page = Template(_file("page.html")).substitute(
        runs=html.escape(", ".join(evaluations)),
        images=f"{len(names):,}",
        shown=len(data["images"]),
        summary=summary({run: evaluation.metrics for run, evaluation in evaluations.items()}),
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
    """JSON in ASCII, without any character that begins HTML markup."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _sections(evaluations: Mapping[str, Evaluation]) -> dict[str, str]:
    """Title -> content; empty where nothing was measured."""
    results = {run: evaluation.metrics for run, evaluation in evaluations.items()}
    folders = {run: evaluation.folder for run, evaluation in evaluations.items()}
    return {
        "Scores": score_table(results)
        + accuracy_table(results)
        + more_table(results)
        + _noted(
            _charts(threshold_charts(results)),
            "On the test images. The dot is the threshold that validation images chose.",
        ),
        "Error types": _noted(
            error_table(results),
            "images.csv in the run's folder lists every image with its box, IoU and error type.",
        ),
        "Spurious correlations": spurious_table(results),
        "Under attack": attack_tables(results) + _charts(accuracy_charts(results)),
        "Training": _charts(training_charts(folders)),
        "How it was scored": _note(next(iter(results.values()))["protocol"]),
    }


def _charts(figures: str) -> str:
    return f'<div class="charts">{figures}</div>' if figures else ""


def _noted(content: str, text: str) -> str:
    return content and content + _note(text)


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _file(name: str) -> str:
    return resources.files("wsol.report").joinpath(name).read_text(encoding="utf-8")
