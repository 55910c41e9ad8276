"""Numbers and tables as text."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Results = Mapping[str, Mapping[str, Any]]  # run name -> content of metrics.json


class Table(NamedTuple):
    """A table of text. The first `text_columns` columns hold words, the others numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int


def percent(fraction: float | None, interval: Sequence[float] | None = None) -> str:
    """A percentage of a fraction: "46.3", or "46.3 [37.2, 55.4]" with an interval; "-" for None."""
    if fraction is None:
        return "-"
    ends = "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return f"{100 * fraction:.1f}{ends}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int) -> str:
    """A Markdown table. The first `text_columns` columns hold words, the others numbers."""
    if not rows:
        return ""
    rule = ["---"] * text_columns + ["---:"] * (len(heads) - text_columns)
    # a run's name may have a "|" or a line break, which would end the cell or the row
    cells = [[" ".join(text.split()).replace("|", "\\|") for text in row] for row in (heads, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join(rule) + "|", *lines[1:]])
