"""The policy "unboxed": a threshold for a model's heatmaps that needs no true box.

docs/protocols.md compares it with other policies of this kind.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from torch.utils.data import ConcatDataset, DataLoader, Subset

from robust_training.atomic_io import write_text
from robust_training.models.classifier import Classifier
from wsol.boxes.geometry import iou
from wsol.boxes.heatmap_boxes import largest_boxes
from wsol.boxes.segment import segment
from wsol.data.dataset import EmptySplitError, spread_evenly
from wsol.data.inputs import to_pixels
from wsol.data.loaders import DataConfig
from wsol.heatmaps.heatmap import HeatmapMethod
from wsol.heatmaps.methods import plain_name
from wsol.localizer.saved_models import (
    UNBOXED,
    model_folder,
    run_data,
    threshold_of,
    unboxed_thresholds,
)

IMAGES = 64  # with 40 images, GT-known was within a point of its value with 150
_CANDIDATES = np.arange(0, 1, 0.005)
_AGREEMENT = 0.5  # IoU, as for a hit of a true box
_SEED = 0.35  # fraction of a map's pixels from which a segment starts, as in `Refined`


def agreeing_threshold(photos: np.ndarray, heatmaps: np.ndarray) -> float | None:
    """The threshold whose boxes agree most often with the boxes of segments of similar colour.

    Each photo is segmented, from the largest values of its heatmap. Two boxes agree if their
    IoU is at least 0.5. If several thresholds agree equally often, the middle one is taken.

    Args:
        photos: uint8 (N,H,W,3).
        heatmaps: (N,H,W) in [0,1].

    Returns:
        A fraction of the heatmap's maximum; None if no photo has such a segment.
    """
    overlaps = []
    for pixels, heatmap in zip(photos, heatmaps, strict=True):
        found = segment(pixels, heatmap, _SEED)
        if found is not None and found.any():
            target = largest_boxes(found.astype(np.float64), [0.5])
            overlaps.append(iou(largest_boxes(heatmap, _CANDIDATES), target))
    if not overlaps:
        return None
    agreeing = (np.array(overlaps) >= _AGREEMENT).sum(axis=0)
    best = np.flatnonzero(agreeing == agreeing.max())
    return round(float(_CANDIDATES[best[len(best) // 2]]), 3)


def unboxed_images(data: DataConfig, classes: Sequence[str] | None = None) -> DataLoader | None:
    """Loads the images that choose the threshold: validation images, then training images.

    Args:
        classes: Names of the model's classes, which the labels count. If None, those of the data.

    Returns:
        A loader of at most `IMAGES` images, spread evenly; None if the data have none of them.

    Raises:
        ValueError: there is no such data set.
    """
    parts: list[Subset] = []
    for split in ("val", "train"):
        missing = IMAGES - sum(map(len, parts))
        with suppress(EmptySplitError):
            images = data.dataset(split)
            images = images if classes is None else images.relabelled(classes)
            rows = spread_evenly(len(images), missing)
            parts += [Subset(images, rows)] if missing else []
    return DataLoader(ConcatDataset(parts), data.batch_size) if parts else None


def unboxed_threshold(model: Classifier, method: HeatmapMethod, images: DataLoader) -> float | None:
    """`agreeing_threshold` for heatmaps of the images' own classes. `model` is in evaluation mode,
    and `images` come from `unboxed_images`."""
    photos, heatmaps = [], []
    for batch in images:
        image, label = batch["image"].to(model.device), batch["label"].to(model.device)
        photos.append(to_pixels(image))
        heatmaps.append(method(model, image, label))
    return agreeing_threshold(np.concatenate(photos), np.concatenate(heatmaps))


def run_unboxed_threshold(
    folder: str | os.PathLike, model: Classifier, method: HeatmapMethod, name: str | None = None
) -> float | None:
    """Returns the threshold in a run's best/thresholds.json, or chooses it and writes it there.

    Args:
        folder: Folder of the run or of its best model.
        model: The run's model, in evaluation mode.
        name: The method's name. If None, the threshold is not written.

    Returns:
        The threshold; None if the run's images are not there.
    """
    best = model_folder(folder)
    known = threshold_of(name or method, unboxed_thresholds(best))
    if known is not None:
        return known
    try:
        data = run_data(best)
        images = None if data is None else unboxed_images(data)
    except ValueError:  # the run was moved here without its data
        images = None
    if images is None or not method.fits(model):
        return None
    chosen = unboxed_threshold(model, method, images)
    if name is not None and chosen is not None:
        thresholds = {**unboxed_thresholds(best), plain_name(name): chosen}
        with suppress(OSError):  # a folder that nobody may write to is no obstacle to localizing
            write_text(best / UNBOXED, json.dumps(thresholds, indent=2))
    return chosen
