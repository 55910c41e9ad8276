"""Pictures of heatmaps and boxes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from wsol.localizer import Localization

PREDICTED, TRUE = (255, 64, 64), (64, 255, 64)


def overlay(image: np.ndarray, place: Localization) -> np.ndarray:
    """The image with its heatmap, its boxes and its class: uint8 (H,W,3) RGB."""
    boxes = [(box, PREDICTED) for box in place.boxes]
    picture = draw_boxes(blend(image, place.heatmap), boxes)
    scale = max(0.4, image.shape[1] / 600)
    text = f"{place.class_name} {place.score:.2f}"
    thickness = max(1, round(scale))
    (_, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    for colour, width in (((0, 0, 0), thickness + 2), ((255, 255, 255), thickness)):
        origin = (4, height + 6)
        cv2.putText(
            picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, width, cv2.LINE_AA
        )
    return picture


def blend(image: np.ndarray, heatmap: np.ndarray, *, opacity: float = 0.45) -> np.ndarray:
    """uint8 (H,W,3) RGB under a coloured heatmap (h,w) in [0,1] stretched over it."""
    size = image.shape[1::-1]
    heat = cv2.resize(heatmap, size, interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap((heat * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.addWeighted(image, 1 - opacity, colours[..., ::-1], opacity, 0)


def draw_boxes(
    image: np.ndarray, boxes: Sequence[tuple[Sequence[float], tuple[int, int, int]]]
) -> np.ndarray:
    """A copy of the image with (box, colour) pairs; half-open xyxy in its pixels."""
    picture = np.ascontiguousarray(image).copy()
    width = max(1, round(max(image.shape[:2]) / 200))
    for box, colour in boxes:
        x0, y0, x1, y1 = (round(float(value)) for value in box)
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, width)
    return picture


def threshold_curves(results: Mapping[str, Mapping[str, Any]]) -> bytes:
    """PNG: GT-known against the heatmap threshold, for each run's `evaluation.score`.

    A dot marks the threshold that the validation images chose.
    """
    figure = Figure(figsize=(7, 3.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for run, result in results.items():
        for name, curve in result["curves"].items():
            line = axes.plot(
                curve["threshold"],
                [100 * share for share in curve["gt_known_loc"]],
                label=f"{run}: {name}",
                linewidth=1.5,
                linestyle="-" if name == "gradient" else "--",
            )
            for row in result["localization"]:
                if row["heatmap"] == name and row["policy"] == "val":
                    point = (row["threshold"], 100 * row["gt_known_loc"])
                    axes.plot(*point, "o", color=line[0].get_color())
    axes.set(xlabel="heatmap threshold", ylabel="GT-known Loc, %", xlim=(0, 1), ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return png(figure)


def png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
