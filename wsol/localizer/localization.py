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
        box: Half-open (x0, y0, x1, y1) in the image's own pixels; zeros if nothing was found.
        label: The given class, or else the predicted one. None if a detector predicts no classes or
            found nothing.
        class_name: The name of that class, or its number as text; `OBJECT` if label is None.
        score: The probability of the class. For a detector, the probability of the box (1 if the
            detector predicts no classes).
        heatmap: float32 (S,S) in [0,1] at the model's input size. None for a detector.
        size: (width, height) of the image.
        others: The next boxes, if more than one was requested: the largest contours first, or for a
            detector the most probable first.
        other_scores: A score for each of `others`.
        path: The image's file. None if the image was not given as a file.
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
        """All boxes, the best first. Empty if nothing was found."""
        return (self.box, *self.others) if any(self.box) else ()

    @property
    def scores(self) -> tuple[float, ...]:
        """A score for each of `boxes`."""
        return (self.score, *self.other_scores) if self.boxes else ()

    def full_heatmap(self) -> np.ndarray:
        """Resizes the heatmap to the image's own pixels: float32 (height,width) in [0,1].

        Raises:
            ValueError: the box was found by a detector, which makes no heatmap.
        """
        if self.heatmap is None:
            raise ValueError("a detector finds boxes without a heatmap")
        resized = cv2.resize(self.heatmap, self.size, interpolation=cv2.INTER_LINEAR)
        return resized.clip(0, 1)  # rounding may carry it out
