"""Speed of scoring a folder of score maps."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsol.annotations.ground_truth import GroundTruth
from wsol.benchmarks.synthetic_maps import write_synthetic_maps
from wsol.evaluation.pixel_metrics import bin_edges
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scoremaps import find_scoremaps, tabulate_scoremaps
from wsol.evaluation.scores import score_heatmaps
from wsol.evaluation.threshold_policy import THRESHOLDS


def time_scoremaps(
    truth: GroundTruth, folder: Path, size: int, workers: Sequence[int]
) -> list[dict[str, Any]]:
    """Write a synthetic map of size x size for each image, then read and score them all.

    One row for each number of worker processes, without and with MaxBoxAccV2.
    """
    write_synthetic_maps(folder, truth, size)
    return [
        _time_split(folder, truth, every_box, count)
        for every_box in (False, True)
        for count in workers
    ]


def _time_split(folder: Path, truth: GroundTruth, every_box: bool, workers: int) -> dict[str, Any]:
    start, edges = time.perf_counter(), bin_edges(THRESHOLDS)
    files = find_scoremaps(folder, truth)
    maps = tabulate_scoremaps(files, truth, edges=edges, every_box=every_box, workers=workers)
    read = time.perf_counter() - start
    score_heatmaps(SplitOutput(truth, None, {"maps": maps}), thresholds=THRESHOLDS)
    seconds = time.perf_counter() - start
    return {
        "maps": len(truth),
        "MaxBoxAccV2": every_box,
        "workers": workers,
        "reading_s": read,
        "total_s": seconds,
        "maps_per_s": len(truth) / seconds,
    }
