"""Time what this project is for: `benchmark.py boxes` (heatmap to boxes against the literal OpenCV
loop) or `benchmark.py scoremaps --metadata DIR` (a whole split of made-up maps). One process,
warm-up, medians, ratios within the run; alone on the machine, please. Each has --help.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from robust_training.files import write_text
from wsol.boxes import best_of_all_boxes, iou, largest_boxes, published_boxes, to_bytes
from wsol.cli import Parser, run
from wsol.evaluation import score
from wsol.measuring import Measured
from wsol.metadata import read_truth
from wsol.pixels import bin_edges
from wsol.scoremaps import find_scoremaps, measure_scoremaps
from wsol.truth import Truth

THRESHOLDS = np.arange(0, 1, 0.001)


def boxes(arguments: list[str]) -> None:
    parser = Parser(
        prog="benchmark.py boxes",
        description="All 1,000 thresholds of a map: the boxes of the largest contours, and the "
        "best IoU of all contours' boxes, against OpenCV at every threshold.",
    )
    parser.add_argument("--maps", type=str | None, default=None, help=".npz of uint8 <name>_map")
    parser.add_argument("--size", type=PositiveInt, default=224, help="of the maps made up here")
    parser.add_argument("--repeats", type=PositiveInt, default=5)
    parser.add_argument("--output", type=str | None, default=None, help="JSON file")
    settings = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    rows = []
    for name, heatmap in tqdm(_maps(settings).items(), unit="map", leave=False):
        height, width = heatmap.shape
        truth = np.array([[width // 4, height // 4, 3 * width // 4, 3 * height // 4]])
        row: dict[str, Any] = {"map": name, "size": f"{width}x{height}"}
        for key, ours, literal in (
            ("largest", _largest, _literal_largest),
            ("all", _best, _literal_best),
        ):
            if not np.array_equal(ours(heatmap, truth), literal(heatmap, truth)):
                raise AssertionError(f"{name}: {key} boxes differ from OpenCV's")
            fast = _median(lambda f=ours, h=heatmap, t=truth: f(h, t), 4 * settings.repeats)
            slow = _median(lambda f=literal, h=heatmap, t=truth: f(h, t), settings.repeats)
            row |= {f"{key}_ms": 1e3 * fast, f"{key}_opencv_ms": 1e3 * slow}
            row |= {f"{key}_ratio": slow / fast}
        rows.append(row)
    _report(rows, settings.output)


def scoremaps(arguments: list[str]) -> None:
    parser = Parser(
        prog="benchmark.py scoremaps",
        description="Writes made-up maps for a split, then reads and scores them.",
    )
    parser.add_argument("--metadata", type=str, required=True, help="as evaluate.py scoremaps")
    parser.add_argument("--size", type=PositiveInt, default=224)
    parser.add_argument("--workers", type=list[int], default=[1, 2], help="to compare")
    parser.add_argument("--folder", type=str | None, default=None, help="for the maps, kept")
    parser.add_argument("--output", type=str | None, default=None, help="JSON file")
    settings = parser.parse_args(arguments)
    truth = read_truth(settings.metadata, "test")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(settings.folder or scratch)
        _write_maps(folder, truth, settings.size)
        rows = [
            _time_split(folder, truth, every_box, workers)
            for every_box in (False, True)
            for workers in settings.workers
        ]
    _report(rows, settings.output)


def _time_split(folder: Path, truth: Truth, every_box: bool, workers: int) -> dict[str, Any]:
    start = time.perf_counter()
    files, edges = find_scoremaps(folder, truth), bin_edges(THRESHOLDS)
    maps = measure_scoremaps(files, truth, edges=edges, every_box=every_box, workers=workers)
    read = time.perf_counter() - start
    score(Measured(truth, None, {"maps": maps}), thresholds=THRESHOLDS)
    seconds = time.perf_counter() - start
    return {
        "maps": len(truth),
        "MaxBoxAccV2": every_box,
        "workers": workers,
        "reading_s": read,
        "total_s": seconds,
        "maps_per_s": len(truth) / seconds,
    }


def _largest(heatmap: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return largest_boxes(heatmap, THRESHOLDS)


def _best(heatmap: np.ndarray, truth: np.ndarray) -> np.ndarray:
    pixels = to_bytes(heatmap)
    return best_of_all_boxes(pixels, truth)[(THRESHOLDS * pixels.max()).astype(int)]


def _literal_largest(heatmap: np.ndarray, truth: np.ndarray) -> np.ndarray:
    found = [max(c, key=cv2.contourArea) if c else None for c in _contours(heatmap)]
    return np.array([[0] * 4 if c is None else _corners(cv2.boundingRect(c)) for c in found])


def _literal_best(heatmap: np.ndarray, truth: np.ndarray) -> np.ndarray:
    frame, best = heatmap.shape[::-1], []
    for contours in _contours(heatmap):
        found = [_corners(cv2.boundingRect(contour)) for contour in contours] or [[0] * 4]
        best.append(iou(published_boxes(np.array(found), frame), truth).max())
    return np.array(best)


def _contours(heatmap: np.ndarray):
    """The published evaluator's loop (clovaai/wsolevaluation), one threshold after the other."""
    pixels = (heatmap * 255).astype(np.uint8)
    for threshold in THRESHOLDS:
        cut = int(threshold * np.max(pixels))
        binary = cv2.threshold(pixels, cut, 255, cv2.THRESH_BINARY)[1]
        yield cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]


def _corners(rectangle: tuple[int, int, int, int]) -> list[int]:
    x, y, width, height = rectangle
    return [x, y, x + width, y + height]


def _maps(settings: Namespace) -> dict[str, np.ndarray]:
    if settings.maps is None:
        return _made_up(settings.size)
    try:
        with np.load(settings.maps) as archive:
            keys = [key for key in archive if key.endswith("_map")]
            return {key.removesuffix("_map"): archive[key] / 255.0 for key in keys}
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read maps {settings.maps}: {error}") from error


def _made_up(side: int) -> dict[str, np.ndarray]:
    """Maps of every kind that a method makes, (side,side) in [0,1]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]

    def blob(cx: float, cy: float, width: float) -> np.ndarray:
        return np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))

    noise = rng.random((side, side))
    gradient = np.abs(rng.standard_normal((side, side))) * (0.2 + blob(0, 0, 0.3))
    kinds = {
        "one blob": blob(0.1, 0, 0.3),
        "many blobs": sum(blob(*rng.uniform(-0.9, 0.9, 2), 0.07) for _ in range(20)),
        "smooth noise": cv2.GaussianBlur(noise, (0, 0), side / 28),
        "blurred gradient": cv2.GaussianBlur(gradient, (0, 0), side / 75),
        "ring": np.exp(-(((np.hypot(x, y) - 0.5) / 0.15) ** 2)),
        "blocks": np.kron(rng.random((7, 7)), np.ones((-(-side // 7),) * 2))[:side, :side],
        "raw gradient": gradient,
        "white noise": noise,
    }
    spans = {name: (m - m.min()) / (m.max() - m.min()) for name, m in kinds.items()}
    return spans | {"zeros": np.zeros((side, side))}


def _write_maps(folder: Path, truth: Truth, side: int) -> None:
    """A noisy hill near the true box for every image, float64 as the published evaluator's."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] / side
    for index, name in enumerate(tqdm(truth.names, desc="writing", unit="map", leave=False)):
        x0, y0, x1, y1 = truth.boxes[index, 0] / np.tile(truth.sizes[index], 2)
        x, y = np.array([x0 + x1, y0 + y1]) / 2 + rng.normal(0, 0.07, 2)
        widths = np.array([x1 - x0, y1 - y0]) * rng.uniform(0.2, 0.5, 2)
        hill = np.exp(-(((columns - x) / widths[0]) ** 2) - ((rows - y) / widths[1]) ** 2)
        rough = cv2.GaussianBlur(rng.random((side, side)), (0, 0), rng.choice([1, 3, 8]))
        hill += (rough - rough.min()) / np.ptp(rough) * rng.uniform(0.1, 0.6)
        file = folder / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, (hill - hill.min()) / np.ptp(hill))


def _median(call: Callable[[], object], repeats: int) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def _report(rows: list[dict[str, Any]], output: str | None) -> None:
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
        print("| " + " | ".join(cells) + " |")
    if output:
        write_text(output, json.dumps(rows, indent=2))


_COMMANDS = {"boxes": boxes, "scoremaps": scoremaps}


def main() -> None:
    command = _COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if command is None:
        parser = Parser(prog="benchmark.py", description=__doc__)
        parser.add_argument("command", choices=list(_COMMANDS))
        parser.parse_args(sys.argv[1:])
    else:
        command(sys.argv[2:])


if __name__ == "__main__":
    run(main)
