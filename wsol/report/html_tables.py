"""Tables of the report in HTML. Text is escaped in one place, `_cell`."""

import html
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsol.evaluation.error_types import ERROR_TYPES
from wsol.report import score_tables
from wsol.report.answer import answer, under_attack
from wsol.report.number_format import Results, percent

_LONG = 40  # cells with more characters may break into lines


class Html(str):
    """Text that is already HTML and must not be escaped."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int) -> str:
    """An HTML table. The first cell of each row is the name of a run. Empty without rows.

    If only the names are words, they stay first cells. Otherwise a name is a line above its rows.

    Args:
        text_columns: Number of first columns with words. Numbers are aligned to the right.
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
    """The score table without accuracy. GT-known of the first policy is bold, and an extra cell
    shows its interval as a picture."""
    (*heads, _), rows, words = score_tables.score_table(results)
    every = [(result, row) for result in results.values() for row in result["localization"]]
    shown = []
    for (*names, known, top1, top5, _), (result, row) in zip(rows, every, strict=True):
        if row["policy"] == result["headline"][row["heatmap"]]["policy"]:
            known = Html(f"<strong>{_cell(known)}</strong>")
        shown.append([*names, known, _interval(row), top1, top5])
    return table([*heads[:4], "", *heads[4:]], shown, words)


def _interval(row: Mapping[str, Any]) -> Html:
    low, high = row["intervals"]["gt_known_loc"]
    ends = {"value": row["gt_known_loc"], "low": low, "high": high}
    style = "; ".join(f"--{name}: {100 * end:.1f}" for name, end in ends.items())
    return Html(f'<span class="interval" style="{style}"><i></i><b></b></span>')


def error_table(results: Results) -> str:
    """The table of error types, with a bar in each row."""
    heads, rows, words = score_tables.error_table(results)
    if not rows:
        return ""
    every = [each["errors"] for result in results.values() for each in result["headline"].values()]
    shown = [
        [*cells[:words], _fractions(errors.values()), *cells[words:]]
        for cells, errors in zip(rows, every, strict=True)
    ]
    legend = "".join(
        f'<li style="--colour: var(--kind-{number})">{html.escape(kind)}</li>'
        for number, kind in enumerate(ERROR_TYPES)
    )
    text = table([*heads[:words], "", *heads[words:]], shown, words)
    return text + f'<ul class="legend kinds">{legend}</ul>'


def _fractions(fractions: Iterable[float]) -> Html:
    parts = "".join(
        f'<i style="width: {100 * fraction:.1f}%; --colour: var(--kind-{number})"></i>'
        for number, fraction in enumerate(fractions)
    )
    return Html(f'<span class="fractions">{parts}</span>')


def summary(results: Results) -> str:
    """The answer of each run, the scores of its first heatmap under its first policy, and those of
    its other heatmaps."""
    articles = ""
    for run, result in results.items():
        rows = {row["heatmap"]: row for row in reversed(result["localization"])}
        found, figures, said, below = answer(result), {}, "", ""
        if rows:
            first, *others = (rows[name] for name in result["headline"])
            policy, figures["GT-known"], figures["Top-1 Loc"], _ = score_tables.score_cells(first)
            said = f"{first['heatmap']} map, threshold policy {policy}"
            listed = ", ".join(
                f"{row['heatmap']} {100 * row['gt_known_loc']:.1f} ({row['policy']})"
                for row in others
            )
            below = f"GT-known of the others: {listed}" if listed else ""
        figures["accuracy"] = percent(result["top1_accuracy"])
        cells = "".join(
            f"<div><dt>{name}</dt><dd>{_cell(value)}</dd></div>" for name, value in figures.items()
        )
        kind = found.verdict.replace(" ", "-")
        cautions = "".join(
            f'<p class="caution">Caution: {html.escape(each)}</p>' for each in found.cautions
        )
        articles += (
            f'<article><h2>{html.escape(run)}</h2><p class="answer {kind}">'
            f"{_answer(found.sentence)}</p>{cautions}"
            f"<p>{html.escape(said)}</p><dl>{cells}</dl><p>{html.escape(below)}</p>"
            f"<p>{html.escape(under_attack(result))}</p></article>"
        )
    return articles


def _answer(sentence: str) -> str:
    """The sentence in large type. The numbers after its colon are smaller, on a
    line of their own."""
    head, colon, numbers = html.escape(sentence).partition(": ")
    return f"{head}<small>{numbers}</small>" if colon else head


def _cell(text: str) -> str:
    """HTML of a cell. Text in brackets is paler than the number before it."""
    if isinstance(text, Html):
        return text
    return re.sub(r" (\[.*?\]|\(.*?\))", r" <small>\1</small>", html.escape(text))
