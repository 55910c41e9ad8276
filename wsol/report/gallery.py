"""The data of the report's gallery: some images, their heatmaps, and their boxes at every cut.

The page does not compute boxes: its slider shows the boxes that were scored.
"""

import base64
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from wsol.boxes.geometry import rescale
from wsol.data.names import titles
from wsol.evaluation.box_table import BoxTable
from wsol.evaluation.error_types import ERROR_TYPES, error_types
from wsol.evaluation.metrics import HIT
from wsol.evaluation.results import Evaluation, Headline
from wsol.heatmaps.heatmap import CentredBox
from wsol.localizer.overlay import heat_layer

_MOST_HEATMAPS = 400  # about 3 MB with their boxes
_FEWEST_IMAGES = 8


def gallery(evaluations: Mapping[str, Evaluation], images: int) -> dict[str, Any]:
    """Returns the data for page.js, of runs on the same images. There are fewer than `images`
    images if there are many heatmaps, because the file would be large."""
    maps = [
        (run, evaluation, headline)
        for run, evaluation in evaluations.items()
        for headline in evaluation.headlines
        if not isinstance(evaluation.methods[headline.row.heatmap], CentredBox)
    ]
    count = min(images, max(_FEWEST_IMAGES, _MOST_HEATMAPS // max(1, len(maps))))
    indices = choose([headline for _, _, headline in maps], count)
    return {
        "hit": HIT,
        "kinds": ERROR_TYPES,
        "maps": [
            {
                "run": run,
                "heatmap": headline.row.heatmap,
                "policy": headline.row.policy,
                "threshold": headline.row.threshold,
            }
            for run, _, headline in maps
        ],
        "images": [
            _image(next(iter(evaluations.values())), index)
            | {"views": [_view(evaluation, headline, index) for _, evaluation, headline in maps]}
            for index in indices
        ],
    }


def choose(headlines: Sequence[Headline], count: int) -> list[int]:
    """Chooses images with the best boxes, the worst boxes and all error types of each heatmap, and
    returns their indices in the split's order.

    Each heatmap has several rankings of the images: by falling IoU, by rising IoU, and one in
    random order (seed 0) for each error type. In turn, each ranking gives its next image, until
    there are `count` different images."""
    rankings: list[np.ndarray] = []
    for each in headlines:
        falling = np.argsort(-each.iou, kind="stable")
        shuffled = np.random.default_rng(0).permutation(len(falling))
        by_type = [shuffled[each.error_types[shuffled] == name] for name in ERROR_TYPES]
        rankings += [falling, falling[::-1], *by_type]
    ranked = itertools.chain.from_iterable(itertools.zip_longest(*rankings))
    different = dict.fromkeys(int(index) for index in ranked if index is not None)
    return sorted(itertools.islice(different, count))


def box_spans(largest: np.ndarray) -> np.ndarray:
    """Joins equal boxes of neighbouring cuts: (256,4) -> (K,5), rows of first cut and box."""
    first = np.ones(len(largest), bool)
    first[1:] = (largest[1:] != largest[:-1]).any(axis=1)
    starts = np.flatnonzero(first)
    return np.column_stack([starts, largest[starts]])


def _image(evaluation: Evaluation, index: int) -> dict[str, Any]:
    truth = evaluation.output.truth
    example = evaluation.dataset.examples[index]
    return {
        "name": example.name,
        "class": titles(truth.classes)[truth.labels[index]],
        "size": truth.sizes[index].tolist(),
        "truths": truth.boxes[index, : truth.counts[index]].tolist(),
        "photo": picture(evaluation.dataset.pixels(index), side=512),
    }


def _view(evaluation: Evaluation, headline: Headline, index: int) -> dict[str, Any]:
    """An image with one heatmap: its picture, frame, peak, rows of [first cut, box, number of the
    error type], and the predicted class."""
    name, output = headline.row.heatmap, evaluation.output
    item, device = evaluation.dataset[index], next(evaluation.model.parameters()).device
    image, label = item["image"][None].to(device), torch.tensor([item["label"]], device=device)
    heatmap = evaluation.methods[name](evaluation.model, image, label)[0]
    maps, predictions = output.tables[name], output.predictions
    return {
        "heatmap": picture(heat_layer(heatmap), side=160),
        "frame": maps.frame[index].tolist(),
        "peak": int(maps.peak[index]),
        "boxes": _boxes(evaluation, maps, index),
        "prediction": titles(output.truth.classes)[predictions.order[index, 0]],
    }


def _boxes(evaluation: Evaluation, maps: BoxTable, index: int) -> list[list[int]]:
    truth = evaluation.output.truth
    spans = box_spans(maps.largest[index])
    count = len(spans)
    types = error_types(
        rescale(spans[:, 1:], maps.frame[index], truth.sizes[index]),
        np.repeat(truth.boxes[index][None], count, axis=0),
        np.repeat(truth.counts[index], count),
        np.repeat(evaluation.output.correct(1)[index], count),
    )
    numbers = [ERROR_TYPES.index(name) for name in types]
    return np.column_stack([spans, numbers]).tolist()


def picture(pixels: np.ndarray, *, side: int) -> str:
    """A picture (H,W,3) RGB or (H,W,4) RGBA as a data URL. Its longer side has at most `side`
    pixels."""
    scale = side / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    swap = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    options = [cv2.IMWRITE_WEBP_QUALITY, 80]
    encoded = cv2.imencode(".webp", cv2.cvtColor(pixels, swap), options)[1]
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()
