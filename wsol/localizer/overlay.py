"""Pictures of heatmaps and boxes."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LEGIBLE = 320  # a smaller image is enlarged, so that lines and letters do not hide the object
PREDICTED, TRUE = (255, 64, 64), (64, 255, 64)


def overlay(
    image: np.ndarray,
    boxes: Sequence[Sequence[float]],
    text: str,
    heatmap: np.ndarray | None = None,
) -> np.ndarray:
    """Draw a heatmap, boxes, and a text at the first box, or at the upper left corner.

    An image with sides of at most 160 pixels is enlarged by a whole factor.

    Args:
        image: (H,W,3) RGB, uint8 or float32 in [0,1].
        boxes: Half-open xyxy in its pixels.
        heatmap: (h,w) in [0,1]; if None, only the rest is drawn.

    Returns:
        uint8 (H,W,3) RGB, or enlarged.
    """
    if image.dtype != np.uint8:
        image = (image * 255).round().astype(np.uint8)
    image, factor = enlarged(image)
    boxes = [[factor * float(each) for each in box] for box in boxes]
    heated = image if heatmap is None else blend(image, heatmap)
    picture = Image.fromarray(draw_boxes(heated, [(box, PREDICTED) for box in boxes]))
    pen, (width, height) = ImageDraw.Draw(picture), picture.size
    size = max(11, height / 15)
    room = width - 4  # the whole text fits, also on a thumbnail
    wanted = ImageFont.load_default(size).getlength(text) + 0.6 * size
    size *= min(1, 0.95 * room / wanted)  # hinted letters do not shrink quite as much
    font, margin = ImageFont.load_default(size), 0.3 * size
    wide, tall = font.getlength(text) + 2 * margin, 1.4 * size
    x, y = (boxes[0][0], boxes[0][1] - tall) if boxes else (0, 0)
    x, y = max(0, min(x, room - wide)), max(0, y)
    pen.rectangle((x, y, x + wide, y + tall - 1), fill=PREDICTED)
    pen.text((x + margin, y + tall / 2), text, "white", font, anchor="lm")
    return np.asarray(picture)


def enlarged(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Enlarge an image (H,W,3) with sides of at most 160 pixels. Return it and the whole factor."""
    factor = max(1, _LEGIBLE // max(image.shape[:2]))
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), factor


def blend(image: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Lays the `heat_layer` of a heatmap (h,w) in [0,1] over an image, uint8 (H,W,3) RGB."""
    layer = heat_layer(cv2.resize(heatmap, image.shape[1::-1], interpolation=cv2.INTER_LINEAR))
    opacity = layer[..., 3:] / 255
    return (image + opacity * (layer[..., :3].astype(float) - image)).round().astype(np.uint8)


def heat_layer(heatmap: np.ndarray) -> np.ndarray:
    """Colours of a heatmap (H,W) in [0,1]: uint8 (H,W,4) RGBA, violet at low values, yellow at 1.

    The opacity is 0.8 times the square of the value, so that a photo below stays bright where the
    map is low.
    """
    heat = heatmap.clip(0, 1)
    # the lower third of the colours is dark
    index, opacity = (
        (255 * each).round().astype(np.uint8) for each in (0.3 + 0.7 * heat, 0.8 * heat**2)
    )
    colours = cv2.applyColorMap(index, cv2.COLORMAP_PLASMA)[..., ::-1]
    return np.dstack([colours, opacity])


def draw_boxes(
    image: np.ndarray, boxes: Sequence[tuple[Sequence[float], tuple[int, int, int]]]
) -> np.ndarray:
    """Draw (box, colour) pairs on a copy of the image; boxes are half-open xyxy in its pixels."""
    picture = np.ascontiguousarray(image).copy()
    width = max(1, round(max(image.shape[:2]) / 160))
    for box, colour in boxes:
        x0, y0, x1, y1 = (round(float(value)) for value in box)
        for line, edge in ((width + 2, (0, 0, 0)), (width, colour)):  # dark beside bright
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), edge, line)
    return picture
