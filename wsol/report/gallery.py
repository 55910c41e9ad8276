"""What the report's gallery embeds: a sample of images, their heatmaps, and the box at every cut.

The page only looks boxes up, so what its slider shows is what was scored.
"""

import base64
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from wsol.boxes.geometry import rescale
from wsol.evaluation.box_table import BoxTable
from wsol.evaluation.error_types import ERROR_TYPES, ErrorTypes
from wsol.evaluation.score_table import HIT
from wsol.evaluation.scores import Headline
from wsol.heatmaps.heatmap import CentredBox
from wsol.report.entry import Entry

_MOST_HEATMAPS = 400  # some 3 MB of them with their boxes
_FEWEST_IMAGES = 8


def gallery(entries: Mapping[str, Entry], images: int) -> dict[str, Any]:
    """The data of page.js.

    Args:
        entries: Run name -> scored on the same images.
        images: How many to show, fewer where many maps would make the page heavy.
    """
    maps = [
        (run, entry, chosen)
        for run, entry in entries.items()
        for chosen in entry.headlines
        if not isinstance(entry.methods[chosen.row.heatmap], CentredBox)
    ]
    count = min(images, max(_FEWEST_IMAGES, _MOST_HEATMAPS // max(1, len(maps))))
    indices = choose([chosen for _, _, chosen in maps], count)
    return {
        "hit": HIT,
        "kinds": ERROR_TYPES,
        "maps": [
            {
                "run": run,
                "heatmap": chosen.row.heatmap,
                "policy": chosen.row.policy,
                "threshold": chosen.row.threshold,
            }
            for run, _, chosen in maps
        ],
        "images": [
            _image(next(iter(entries.values())), index)
            | {"views": [_view(entry, chosen, index) for _, entry, chosen in maps]}
            for index in indices
        ],
    }


def choose(chosen: Sequence[Headline], count: int) -> list[int]:
    """Images that show the best, the worst and each kind of error of every map.

    Each map has piles: its boxes by falling IoU, by rising IoU, and those of each kind in a random
    order (seed 0). The piles deal one image each, in turn, until `count` different ones are out.

    Returns:
        Indices, in the split's order.
    """
    piles: list[np.ndarray] = []
    for each in chosen:
        falling = np.argsort(-each.iou, kind="stable")
        shuffled = np.random.default_rng(0).permutation(len(falling))
        kinds = [shuffled[each.error_types[shuffled] == kind] for kind in ERROR_TYPES]
        piles += [falling, falling[::-1], *kinds]
    dealt = itertools.chain.from_iterable(itertools.zip_longest(*piles))
    different = dict.fromkeys(int(index) for index in dealt if index is not None)
    return sorted(itertools.islice(different, count))


def box_spans(largest: np.ndarray) -> np.ndarray:
    """Boxes at every cut (256,4) -> (K,5): the first cut of each box, and the box, until the next
    row's cut."""
    first = np.ones(len(largest), bool)
    first[1:] = (largest[1:] != largest[:-1]).any(axis=1)
    starts = np.flatnonzero(first)
    return np.column_stack([starts, largest[starts]])


def _image(entry: Entry, index: int) -> dict[str, Any]:
    truth = entry.measured.truth
    example = entry.dataset.examples[index]
    return {
        "name": example.name,
        "class": truth.classes[truth.labels[index]],
        "size": truth.sizes[index].tolist(),
        "truths": truth.boxes[index, : truth.counts[index]].tolist(),
        "photo": jpeg(entry.dataset.pixels(index), side=384),
    }


def _view(entry: Entry, chosen: Headline, index: int) -> dict[str, Any]:
    """An image under one map: the heatmap's picture; frame, peak and [first cut, box, number of the
    error kind] rows; the predicted class."""
    name, measured = chosen.row.heatmap, entry.measured
    item, device = entry.dataset[index], next(entry.model.parameters()).device
    image, label = item["image"][None].to(device), torch.tensor([item["label"]], device=device)
    heatmap = entry.methods[name](entry.model, image, label)[0]
    colours = cv2.applyColorMap((heatmap * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    maps, predictions = measured.tables[name], measured.predictions
    return {
        "heatmap": jpeg(colours[..., ::-1], side=160),
        "frame": maps.frame[index].tolist(),
        "peak": int(maps.peak[index]),
        "boxes": _boxes(entry, maps, index),
        "prediction": measured.truth.classes[predictions.order[index, 0]],
    }


def _boxes(entry: Entry, maps: BoxTable, index: int) -> list[list[int]]:
    truth = entry.measured.truth
    spans = box_spans(maps.largest[index])
    count = len(spans)
    kinds = ErrorTypes(hit=HIT)(
        rescale(spans[:, 1:], maps.frame[index], truth.sizes[index]),
        np.repeat(truth.boxes[index][None], count, axis=0),
        np.repeat(truth.counts[index], count),
        np.repeat(entry.measured.correct(1)[index], count),
    )
    numbers = [ERROR_TYPES.index(kind) for kind in kinds]
    return np.column_stack([spans, numbers]).tolist()


def jpeg(pixels: np.ndarray, *, side: int) -> str:
    """RGB as a data address, its longer side at most `side`."""
    scale = side / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
