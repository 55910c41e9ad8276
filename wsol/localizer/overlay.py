"""Pictures of heatmaps and boxes."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

PREDICTED, TRUE = (255, 64, 64), (64, 255, 64)


def overlay(
    image: np.ndarray,
    boxes: Sequence[Sequence[float]],
    text: str,
    heatmap: np.ndarray | None = None,
) -> np.ndarray:
    """Draw a heatmap, boxes, and a text at the first box, or at the upper left corner.

    Args:
        image: (H,W,3) RGB, uint8 or float32 in [0,1].
        boxes: Half-open xyxy in its pixels.
        heatmap: (h,w) in [0,1]; if None, only the rest is drawn.

    Returns:
        uint8 (H,W,3) RGB.
    """
    if image.dtype != np.uint8:
        image = (image * 255).round().astype(np.uint8)
    heated = image if heatmap is None else blend(image, heatmap)
    picture = Image.fromarray(draw_boxes(heated, [(box, PREDICTED) for box in boxes]))
    pen, (width, height) = ImageDraw.Draw(picture), picture.size
    size = max(11, height / 15)
    room = width - 4  # the whole text fits, also on a thumbnail
    size *= min(1, room / (ImageFont.load_default(size).getlength(text) + 0.6 * size))
    font, margin = ImageFont.load_default(size), 0.3 * size
    wide, tall = font.getlength(text) + 2 * margin, 1.4 * size
    x, y = (float(boxes[0][0]), float(boxes[0][1]) - tall) if boxes else (0, 0)
    x, y = max(0, min(x, room - wide)), max(0, y)
    pen.rectangle((x, y, x + wide, y + tall - 1), fill=PREDICTED)
    pen.text((x + margin, y + tall / 2), text, "white", font, anchor="lm")
    return np.asarray(picture)


def blend(image: np.ndarray, heatmap: np.ndarray, *, opacity: float = 0.65) -> np.ndarray:
    """Lay a coloured heatmap (h,w) in [0,1], resized, over an image uint8 (H,W,3) RGB.

    The opacity grows with the map, from 0 to `opacity`, so that the rest of the photo stays as it
    is.
    """
    size = image.shape[1::-1]
    heat = cv2.resize(heatmap, size, interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours = cv2.applyColorMap((heat * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    share = opacity * heat[..., None]
    return (image * (1 - share) + colours[..., ::-1] * share).round().astype(np.uint8)


def draw_boxes(
    image: np.ndarray, boxes: Sequence[tuple[Sequence[float], tuple[int, int, int]]]
) -> np.ndarray:
    """Draw (box, colour) pairs on a copy of the image; boxes are half-open xyxy in its pixels."""
    picture = np.ascontiguousarray(image).copy()
    width = max(1, round(max(image.shape[:2]) / 200))
    for box, colour in boxes:
        x0, y0, x1, y1 = (round(float(value)) for value in box)
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, width)
    return picture
