"""Speed of scoring a folder of score maps."""

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt

from wsol.annotations.metadata import read_ground_truth
from wsol.benchmarks.synthetic_maps import write_synthetic_maps
from wsol.evaluation.pixel_metrics import bin_edges
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scoremaps import find_scoremaps, tabulate_scoremaps
from wsol.evaluation.scores import score_heatmaps
from wsol.evaluation.threshold_policy import THRESHOLDS


def time_scoremaps(
    metadata: str,
    size: PositiveInt = 224,
    workers: list[int] | None = None,
    folder: str | None = None,
) -> list[dict[str, Any]]:
    """Time for reading and scoring a synthetic map of each image, without and with MaxBoxAccV2.

    Args:
        metadata: Ground truth in a form that evaluate.py scoremaps takes.
        size: Side of the maps in pixels.
        workers: Numbers of worker processes to compare. If None, 1 and 2.
        folder: Folder in which the maps are kept. If None, a temporary folder.
    """
    truth, edges, rows = read_ground_truth(metadata, "test"), bin_edges(THRESHOLDS), []
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(folder or scratch)
        write_synthetic_maps(place, truth, size)
        for every_box, count in itertools.product((False, True), workers or (1, 2)):
            start = time.perf_counter()
            files = find_scoremaps(place, truth)
            maps = tabulate_scoremaps(files, truth, edges=edges, every_box=every_box, workers=count)
            read = time.perf_counter() - start
            score_heatmaps(SplitOutput(truth, None, {"maps": maps}), thresholds=THRESHOLDS)
            seconds = time.perf_counter() - start
            row = {"maps": len(truth), "MaxBoxAccV2": every_box, "workers": count}
            row |= {"reading_s": read, "total_s": seconds, "maps_per_s": len(truth) / seconds}
            rows.append(row)
    return rows
