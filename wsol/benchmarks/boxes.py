"""Speed from a heatmap to its boxes, compared with one OpenCV call for each threshold."""

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jsonargparse.typing import PositiveInt

from robust_training.progress import Progress
from wsol.benchmarks.opencv_reference import reference_best_ious, reference_largest_boxes
from wsol.benchmarks.synthetic_maps import synthetic_maps
from wsol.benchmarks.timing import seconds_in_turn
from wsol.boxes.heatmap_boxes import best_of_all_boxes, cuts, largest_boxes, to_bytes
from wsol.evaluation.threshold_policy import THRESHOLDS


def time_boxes(
    maps: str | None = None, size: PositiveInt = 224, repeats: PositiveInt = 5
) -> list[dict[str, Any]]:
    """Milliseconds for all 1,000 thresholds of each map, here and with OpenCV on one thread.

    It measures the boxes of the largest contours, and the best IoU of all contours' boxes.

    Args:
        maps: .npz file of uint8 arrays called <name>_map. If None, maps are synthetic.
        size: Side of synthetic maps in pixels.
        repeats: Calls of OpenCV's loop; our loop is called four times as often. Medians count.

    Raises:
        AssertionError: the boxes differ from OpenCV's.
    """
    cv2.setNumThreads(1)
    rows = []
    given = synthetic_maps(size) if maps is None else _read_maps(Path(maps))
    for name, heatmap in Progress(given.items(), unit="map", leave=False):
        height, width = heatmap.shape
        truth = np.array([[width // 4, height // 4, 3 * width // 4, 3 * height // 4]])
        row: dict[str, Any] = {"map": name, "size": f"{width}x{height}"}
        for key, ours, reference in (
            ("largest", _largest_boxes, lambda h, _: reference_largest_boxes(h, THRESHOLDS)),
            ("all", _best_ious, lambda h, t: reference_best_ious(h, t, THRESHOLDS)),
        ):
            if not np.array_equal(ours(heatmap, truth), reference(heatmap, truth)):
                raise AssertionError(f"{name}: {key} boxes differ from OpenCV's")
            fast, slow = (
                np.median(seconds_in_turn({key: partial(call, heatmap, truth)}, count)[key])
                for call, count in ((ours, 4 * repeats), (reference, repeats))
            )
            row |= {f"{key}_ms": 1e3 * fast, f"{key}_opencv_ms": 1e3 * slow}
            row |= {f"{key}_ratio": slow / fast}
        rows.append(row)
    return rows


def _read_maps(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file) as archive:
            keys = [key for key in archive if key.endswith("_map")]
            return {key.removesuffix("_map"): archive[key] / 255.0 for key in keys}
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read maps {file}: {error}") from error


def _largest_boxes(heatmap: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return largest_boxes(heatmap, THRESHOLDS)


def _best_ious(heatmap: np.ndarray, truth: np.ndarray) -> np.ndarray:
    pixels = to_bytes(heatmap)
    return best_of_all_boxes(pixels, truth)[cuts(THRESHOLDS, pixels.max())]
