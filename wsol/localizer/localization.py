"""The result of localizing an object in one image."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wsol.data.dataset import Box

OBJECT = "object"  # the class name of a box without a class


@dataclass(frozen=True)
class Localization:
    """Boxes in one image.

    Attributes:
        box: Half-open (x0, y0, x1, y1) in the image's own pixels; zeros if there is none.
        label: The class that was looked for: the predicted one unless another was asked for. None
            if a detector knows no classes or found nothing.
        class_name: The name of that class, or its number as text; `OBJECT` if label is None.
        score: The probability of the class; from a detector, of the box (1 if it knows no classes).
        heatmap: float64 (S,S) in [0,1] at the model's input size; None from a detector.
        size: (width, height) of the image.
        others: Further boxes that were asked for: the largest contours first, or from a detector
            the likeliest first.
        other_scores: One for each of `others`.
        path: The image's file, if it came from one.
    """

    box: Box
    label: int | None
    class_name: str
    score: float
    heatmap: np.ndarray | None
    size: tuple[int, int]
    others: tuple[Box, ...] = ()
    other_scores: tuple[float, ...] = ()
    path: Path | None = None

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All boxes, the best first; empty if nothing was found."""
        return (self.box, *self.others) if any(self.box) else ()

    @property
    def scores(self) -> tuple[float, ...]:
        """One score for each of `boxes`."""
        return (self.score, *self.other_scores) if self.boxes else ()

    def full_heatmap(self) -> np.ndarray:
        """Resize the heatmap to the image's own pixels: float64 (height,width) in [0,1].

        Raises:
            ValueError: the box came from a detector, which makes no heatmap.
        """
        if self.heatmap is None:
            raise ValueError("a detector finds boxes without a heatmap")
        return cv2.resize(self.heatmap, self.size, interpolation=cv2.INTER_LINEAR)
