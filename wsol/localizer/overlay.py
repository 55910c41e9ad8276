"""Pictures of heatmaps and boxes."""

from collections.abc import Sequence

import cv2
import numpy as np

from wsol.data.names import titles
from wsol.localizer.localization import Localization

PREDICTED, TRUE = (255, 64, 64), (64, 255, 64)


def overlay(image: np.ndarray, place: Localization) -> np.ndarray:
    """Draw the heatmap (if there is one), the boxes and the class: uint8 (H,W,3) RGB."""
    boxes = [(box, PREDICTED) for box in place.boxes]
    heated = image if place.heatmap is None else blend(image, place.heatmap)
    picture = draw_boxes(heated, boxes)
    scale = max(0.4, image.shape[1] / 600)
    text = f"{titles([place.class_name])[0]} {place.score:.2f}"
    thickness = max(1, round(scale))
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    scale *= min(1, (image.shape[1] - 8) / width)  # the whole text fits, also on a thumbnail
    (_, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    font = (cv2.FONT_HERSHEY_SIMPLEX, scale)
    x, y = 4, height + 6
    # an outline made of shifted copies: in some versions of OpenCV thicker letters are also wider
    for dx, dy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        cv2.putText(picture, text, (x + dx, y + dy), *font, (0, 0, 0), thickness, cv2.LINE_AA)
    cv2.putText(picture, text, (x, y), *font, (255, 255, 255), thickness, cv2.LINE_AA)
    return picture


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
