"""Synthetic heatmaps similar to maps of real methods, for measurements of speed."""

from pathlib import Path

import cv2
import numpy as np

from robust_training.progress import Progress
from wsol.annotations.ground_truth import GroundTruth
from wsol.data.names import path_below


def synthetic_maps(side: int) -> dict[str, np.ndarray]:
    """Maps of different kinds, from one blob to noise, (side,side) in [0,1]."""
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


def write_synthetic_maps(folder: Path, truth: GroundTruth, side: int) -> None:
    """Writes a .npy file for every image: a noisy blob near the first true box, float64."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] / side
    for index, name in enumerate(Progress(truth.names, desc="writing", unit="map", leave=False)):
        x0, y0, x1, y1 = truth.boxes[index, 0] / np.tile(truth.sizes[index], 2)
        x, y = np.array([x0 + x1, y0 + y1]) / 2 + rng.normal(0, 0.07, 2)
        widths = np.array([x1 - x0, y1 - y0]) * rng.uniform(0.2, 0.5, 2)
        hill = np.exp(-(((columns - x) / widths[0]) ** 2) - ((rows - y) / widths[1]) ** 2)
        rough = cv2.GaussianBlur(rng.random((side, side)), (0, 0), rng.choice([1, 3, 8]))
        hill += (rough - rough.min()) / np.ptp(rough) * rng.uniform(0.1, 0.6)
        file = path_below(folder, f"{name}.npy")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, (hill - hill.min()) / np.ptp(hill))
