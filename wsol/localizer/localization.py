"""The result of localizing an object in one image."""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from wsol.data.dataset import Box
from wsol.data.inputs import ImageLike, is_url, read_pixels
from wsol.data.names import titles
from wsol.localizer.overlay import overlay

OBJECT = "object"  # the class name of a box without a class
_SHOWN = 480  # longest side of the picture in a notebook, in pixels


@dataclass(frozen=True, repr=False)
class Localization:
    """Boxes in one image. In a notebook, the result shows itself as a picture.

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
        source: The image as it was given, for `draw`: a path, a URL, bytes, pixels. A list of the
            results of a long video holds all its frames; `dataclasses.replace(found, source=None)`
            drops one.
    """

    box: Box
    label: int | None
    class_name: str
    score: float
    heatmap: np.ndarray | None
    size: tuple[int, int]
    others: tuple[Box, ...] = ()
    other_scores: tuple[float, ...] = ()
    source: ImageLike | None = None

    def __repr__(self) -> str:
        box = "no box"
        if self.boxes:
            corners = ", ".join(f"{value:.1f}" for value in self.box)
            more = f" and {len(self.others)} more" if self.others else ""
            box = f"box ({corners}){more}"
        place = f", {self.source}" if isinstance(self.source, str | os.PathLike) else ""
        width, height = self.size
        name = f"{self.class_name} {self.score:.2f}"
        return f"<Localization: {name}, {box} in {width} x {height} pixels{place}>"

    @property
    def path(self) -> Path | None:
        """The image's file. None if the image was not given as a file."""
        is_file = isinstance(self.source, str | os.PathLike) and not is_url(self.source)
        return Path(self.source) if is_file else None

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

    def draw(self, *, heatmap: bool = True) -> Image.Image:
        """Draws the boxes and the class on the image.

        Args:
            heatmap: Whether to lay the heatmap over the image, if there is one.

        Raises:
            ValueError: the source is missing or can no longer be read.
        """
        if self.source is None:
            raise ValueError("this result holds no image to draw on: its source is None")
        text = f"{titles([self.class_name])[0]} {self.score:.2f}"
        shown = self.heatmap if heatmap else None
        return Image.fromarray(overlay(read_pixels(self.source), self.boxes, text, shown))

    def save(self, file: str | os.PathLike, *, heatmap: bool = True) -> None:
        """Writes the picture of `draw` to a file, in the format of its suffix (.png, .jpg, ...).

        Raises:
            ValueError: see `draw`, or the suffix is not one of Pillow's.
        """
        picture = self.draw(heatmap=heatmap)
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)

    def _repr_png_(self) -> bytes | None:
        """The picture that Jupyter shows; None, so that it shows the text, without an image."""
        if self.source is None:
            return None
        picture, content = self.draw(), io.BytesIO()
        picture.thumbnail((_SHOWN, _SHOWN))
        picture.save(content, "png")
        return content.getvalue()
