"""Measuring times, and showing them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from robust_training.atomic_io import write_text
from wsol.report.number_format import markdown


def seconds_in_turn(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    """Seconds of each call, by name: float64 (repeats,).

    The calls alternate, so a change in the machine's load affects all of them. A first round is not
    counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def report(rows: Sequence[Mapping[str, Any]], output: str | None) -> None:
    """Prints rows with the same keys as a Markdown table, and writes them to `output` as JSON."""
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
    print(markdown(list(rows[0]), cells, 1))
    if output:
        write_text(output, json.dumps(rows, indent=2))
