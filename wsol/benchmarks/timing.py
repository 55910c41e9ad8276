"""What benchmarks share."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from robust_training.atomic_io import write_text


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Of so many calls, after one that warms up."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def report(rows: Sequence[Mapping[str, Any]], output: str | None) -> None:
    """Print rows with the same keys as a Markdown table, and write them to a JSON file if named."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
        print("| " + " | ".join(cells) + " |")
    if output:
        write_text(output, json.dumps(rows, indent=2))
