"""Tables of the report in HTML. Text is escaped in one place, `_cell`."""

import html
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsol.evaluation.error_types import ERROR_TYPES
from wsol.report.number_format import percent
from wsol.report.robustness_tables import robustness_tables
from wsol.report.score_tables import (
    ACCURACY_HEADS,
    MORE_HEADS,
    SPURIOUS_HEADS,
    accuracy_cells,
    error_cells,
    heatmaps,
    more_cells,
    score_cells,
    spurious_cells,
)

Results = Mapping[str, Mapping[str, Any]]  # run name -> content of metrics.json
_LONG = 40  # cells with more characters may break into lines


class Html(str):
    """Text that is already HTML and must not be escaped."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int) -> str:
    """A table whose rows begin with the name of a run; empty without rows.

    The name is a line above its rows, or their first cell where all other cells are numbers.

    Args:
        rows: Cells of plain text or `Html`.
        text_columns: Number of first columns that hold words; numbers are aligned to the right.
    """
    beside = text_columns == 1
    shown = heads if beside else heads[1:]
    words = 1 if beside else text_columns - 1
    bodies = ""
    for run, group in itertools.groupby(rows, key=lambda row: row[0]):
        if not beside:
            name = f'<th scope="rowgroup" colspan="{len(shown)}">{_cell(run)}</th>'
            bodies += f'<tr class="run">{name}</tr>'
        last = None
        for row in group:
            cells = row if beside else row[1:]
            bodies += f"<tr{' class=again' if cells[0] == last else ''}>"
            bodies += f"{_cells('td', cells, words)}</tr>"
            last = cells[0]
    if not bodies:
        return ""
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="table"><table>'
        f"<thead><tr>{_cells('th', shown, words)}</tr></thead><tbody>{bodies}</tbody></table></div>"
    )


def _cells(tag: str, texts: Iterable[str], words: int) -> str:
    """Cells of a row; the first one is its header."""
    first, *others = map(_cell, texts)
    long = " long" if len(first) > _LONG else ""
    row = f'<th scope="{"row" if tag == "td" else "col"}" class="word{long}">{first}</th>'
    for number, cell in enumerate(others, start=1):
        kind = "number" if number >= words else "word long" if len(cell) > _LONG else "word"
        row += f'<{tag} class="{kind}">{cell}</{tag}>'
    return row


def score_table(results: Results) -> str:
    """Every policy of every heatmap; GT-known of the first policy is bold."""
    heads = ("model", "heatmap", "threshold policy", "GT-known", "", "Top-1 Loc", "Top-5 Loc")
    rows = []
    for run, result in results.items():
        for row in result["localization"]:
            policy, known, *others, _ = score_cells(row, None)
            if row["policy"] == result["headline"][row["heatmap"]]["policy"]:
                known = Html(f"<strong>{_cell(known)}</strong>")
            rows.append([run, row["heatmap"], policy, known, _interval(row), *others])
    return table(heads, rows, 3)


def accuracy_table(results: Results) -> str:
    rows = [[run, *cells] for run, result in results.items() if (cells := accuracy_cells(result))]
    return table(("model", *ACCURACY_HEADS), rows, 2)


def _interval(row: Mapping[str, Any]) -> Html:
    low, high = row["intervals"]["gt_known_loc"]
    ends = {"value": row["gt_known_loc"], "low": low, "high": high}
    style = "; ".join(f"--{name}: {100 * end:.1f}" for name, end in ends.items())
    return Html(f'<span class="interval" style="{style}"><i></i><b></b></span>')


def more_table(results: Results) -> str:
    rows = [
        [run, name, *more_cells(result, name)]
        for run, result in results.items()
        for name in heatmaps(result)
    ]
    return table(("model", "heatmap", *MORE_HEADS), rows, 2)


def error_table(results: Results) -> str:
    rows = []
    for run, result in results.items():
        for name, headline in result["headline"].items():
            policy, *cells = error_cells(result, name)
            rows.append([run, name, policy, _fractions(headline["errors"].values()), *cells])
    if not rows:
        return ""
    legend = "".join(
        f'<li style="--colour: var(--kind-{number})">{html.escape(kind)}</li>'
        for number, kind in enumerate(ERROR_TYPES)
    )
    heads = ("model", "heatmap", "policy", "", *ERROR_TYPES)
    return table(heads, rows, 3) + f'<ul class="legend kinds">{legend}</ul>'


def _fractions(fractions: Iterable[float]) -> Html:
    parts = "".join(
        f'<i style="width: {100 * fraction:.1f}%; --colour: var(--kind-{number})"></i>'
        for number, fraction in enumerate(fractions)
    )
    return Html(f'<span class="fractions">{parts}</span>')


def spurious_table(results: Results) -> str:
    rows = [[run, *spurious_cells(r)] for run, r in results.items() if "spurious_correlation" in r]
    return table(("model", *SPURIOUS_HEADS), rows, 1)


def attack_tables(results: Results) -> str:
    return "".join(table(*each) for each in robustness_tables(results))


def summary(results: Results) -> str:
    """The first heatmap of each run under its first policy, and below it the other heatmaps."""
    text = ""
    for run, result in results.items():
        rows = {row["heatmap"]: row for row in reversed(result["localization"])}
        if not rows:
            accuracy = _cell(percent(result["top1_accuracy"]))
            text += (
                f"<article><h2>{html.escape(run)}</h2><p>no image has a true box</p>"
                f"<dl><div><dt>accuracy</dt><dd>{accuracy}</dd></div></dl></article>"
            )
            continue
        first, *others = (rows[name] for name in result["headline"])
        policy, known, top1, _, accuracy = score_cells(first, result["top1_accuracy"])
        figures = {"GT-known": known, "Top-1 Loc": top1, "accuracy": accuracy}
        cells = "".join(
            f"<div><dt>{name}</dt><dd>{_cell(value)}</dd></div>" for name, value in figures.items()
        )
        listed = ", ".join(
            f"{row['heatmap']} {100 * row['gt_known_loc']:.1f} ({row['policy']})" for row in others
        )
        others_text = f"GT-known of the others: {listed}" if listed else ""
        text += (
            f"<article><h2>{html.escape(run)}</h2>"
            f"<p>{html.escape(first['heatmap'])} map, {html.escape(policy)}</p><dl>{cells}</dl>"
            f"<p>{html.escape(others_text)}</p></article>"
        )
    return text


def _cell(text: str) -> str:
    """HTML of a cell; text in brackets is paler than the number before it."""
    if isinstance(text, Html):
        return text
    return re.sub(r" (\[.*?\]|\(.*?\))", r" <small>\1</small>", html.escape(text))
