"""Measuring times, and showing them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from robust_training.atomic_io import write_text
from wsol.report.number_format import markdown


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median time of `repeats` calls, after one more that warms up."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def report(rows: Sequence[Mapping[str, Any]], output: str | None) -> None:
    """Print rows with the same keys as a Markdown table, and write them to a JSON file if named."""
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
    print(markdown(list(rows[0]), cells, 1))
    if output:
        write_text(output, json.dumps(rows, indent=2))
