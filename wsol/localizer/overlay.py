"""Pictures of heatmaps and boxes."""

from collections.abc import Sequence

import cv2
import numpy as np

from wsol.localizer.localization import Localization

PREDICTED, TRUE = (255, 64, 64), (64, 255, 64)


def overlay(image: np.ndarray, place: Localization) -> np.ndarray:
    """Draw the heatmap (if there is one), the boxes and the class: uint8 (H,W,3) RGB."""
    boxes = [(box, PREDICTED) for box in place.boxes]
    heated = image if place.heatmap is None else blend(image, place.heatmap)
    picture = draw_boxes(heated, boxes)
    scale = max(0.4, image.shape[1] / 600)
    text = f"{place.class_name} {place.score:.2f}"
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


def blend(image: np.ndarray, heatmap: np.ndarray, *, opacity: float = 0.45) -> np.ndarray:
    """Lay a coloured heatmap (h,w) in [0,1], resized, over an image uint8 (H,W,3) RGB."""
    size = image.shape[1::-1]
    heat = cv2.resize(heatmap, size, interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap((heat * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.addWeighted(image, 1 - opacity, colours[..., ::-1], opacity, 0)


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
