"""What data sets made to expose a classifier show: does it lean on what is not the object?

Three readings of a split in CUB's layout, each where its file is there. Accuracy over groups
(`backgrounds.txt`; Sagawa et al., ICLR 2020): a class before a background that it seldom had in
training fails first. Attribution mass inside the object's mask, beside the mask's share of the
area, which a constant map has. Leakage onto a patch that says nothing of the class
(`null_patches.txt`; Shah et al., NeurIPS 2021).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score
from wsol.annotations.ground_truth import MaskFiles
from wsol.data.cub import CUB200, parse_box, read_table
from wsol.data.dataset import Box
from wsol.evaluation.metrics import bootstrap
from wsol.evaluation.pixel_metrics import read_mask

FEWEST = 5  # images of a group: the accuracy of fewer says little, and the worst is a minimum


def laboratory(
    model: nn.Module, loader: DataLoader, correct: ArrayLike, *, seed: int = 0
) -> dict[str, Any]:
    """{"laboratory": readings}, or {} for a data set with neither file, or in another layout.

    Attributions are raw input gradients of the true class's logit. An image's mass is the sum of
    their magnitudes; images without any are left out and counted.

    Args:
        loader: Over a data set, in order. Where an image has no mask, groups alone are read.
        correct: (N,), whether the predicted class is the true one.
        seed: Of the bootstrap.

    Raises:
        ValueError: a file is malformed (file and line) or has no line for an image, a patch is not
            in its image, or a mask is not readable.
    """
    dataset = loader.dataset
    if not isinstance(dataset, CUB200):
        return {}
    backgrounds = _read_column(dataset, "backgrounds.txt", 1, lambda fields: fields[0])
    patches = _read_column(dataset, "null_patches.txt", 4, parse_box)
    if backgrounds is None and patches is None:
        return {}
    found: dict[str, Any] = {}
    if backgrounds is not None:
        classes = [dataset.classes[example.label] for example in dataset.examples]
        found["groups"] = group_accuracy(correct, classes, backgrounds)
    if all(example.mask is not None for example in dataset.examples):
        of_object, of_patch = _shares(model, loader, patches)
        found["object"] = mass_in_region(*of_object, seed=seed)
        if patches is not None:
            found["null_patch"] = mass_in_region(*of_patch, seed=seed)
    return {"laboratory": found}


def group_accuracy(
    correct: ArrayLike, classes: Sequence[str], backgrounds: Sequence[str]
) -> dict[str, Any]:
    """Accuracy over the groups (class, background) of images, each group counting the same.

    Args:
        correct: (N,) bool.
        classes: N names, as many as backgrounds.

    Returns:
        `mean_accuracy` and `worst` (of equally bad groups the largest) over groups of at least
        `FEWEST` images, None where there are none; these groups; how many were `left_out`.
    """
    groups = list(zip(classes, backgrounds, strict=True))
    images = Counter(groups)
    hits = Counter(group for group, hit in zip(groups, np.asarray(correct), strict=True) if hit)
    rows = [
        {"class": name, "background": kind, "images": count, "accuracy": hits[name, kind] / count}
        for (name, kind), count in sorted(images.items())
        if count >= FEWEST
    ]
    return {
        "mean_accuracy": float(np.mean([row["accuracy"] for row in rows])) if rows else None,
        "worst": min(rows, key=lambda row: (row["accuracy"], -row["images"]), default=None),
        "groups": rows,
        "left_out": len(images) - len(rows),
        "fewest_images": FEWEST,
    }


def mass_share(attribution: Tensor, region: np.ndarray) -> np.ndarray:
    """Share of an attribution's mass, the sum of its magnitudes, that lies in a region.

    Args:
        attribution: (N,3,H,W).
        region: bool (N,H,W).

    Returns:
        float64 (N,) in [0,1]; NaN for an image without mass.
    """
    mass = attribution.detach().double().abs().sum(dim=1).cpu().numpy()
    total = mass.sum(axis=(1, 2))
    inside = mass.sum(axis=(1, 2), where=region)
    has_mass = np.isfinite(total) & (total > 0)
    return np.divide(inside, total, out=np.full(len(mass), np.nan), where=has_mass)


def mass_in_region(mass: np.ndarray, area: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Mean share of the mass in a region beside the region's mean share of the area.

    Args:
        mass: (N,) from `mass_share`; images whose share is NaN are left out of both means.
        area: (N,) in [0,1].

    Returns:
        `mass` and `area`; `leakage`, the first by the second: 1 for a constant map, more where the
        map dwells on the region (a striking one draws the gradients of
        random networks too); `intervals` of mass and leakage; how many images were `left_out`.
        Numbers are None where there are no images, leakage where there is no area.
    """
    counted = ~np.isnan(mass)
    mass, area = mass[counted], area[counted]
    left_out = int((~counted).sum())
    if not len(mass):
        return {"mass": None, "area": None, "leakage": None, "intervals": {}, "left_out": left_out}
    statistics = {"mass": lambda drawn: drawn @ mass / len(mass)}
    scores = {"mass": float(mass.mean()), "area": float(area.mean()), "leakage": None}
    if area.any():
        scores["leakage"] = scores["mass"] / scores["area"]
        statistics["leakage"] = lambda drawn: _ratio(drawn @ mass, drawn @ area)
    ends = {
        key: bootstrap(statistic, len(mass), seed=seed).tolist()
        for key, statistic in statistics.items()
    }
    return scores | {"intervals": ends, "left_out": left_out}


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)


def _read_column(
    dataset: CUB200, name: str, columns: int, parse: Callable[[list[str]], Any]
) -> list[Any] | None:
    """What the data set's file `name` says of each of its images, in order; None without the file.

    Raises:
        ValueError: as `read_table`, or an image has no line.
    """
    file = dataset.root / name
    if not file.exists():
        return None
    table = read_table(file, columns, parse)
    for example in dataset.examples:
        if example.identity not in table:
            raise ValueError(f"{file}: no line for image {example.identity} ({example.name})")
    return [table[example.identity] for example in dataset.examples]


def _shares(model: nn.Module, loader: DataLoader, patches: Sequence[Box] | None) -> np.ndarray:
    """(2,2,N): of the object, then of the patch's visible part, each image's mass and area."""
    device = next(model.parameters()).device
    dataset = loader.dataset
    rows: list[np.ndarray] = []
    for batch in tqdm(loader, desc="attributing", unit="batch", leave=False):
        image, label = batch["image"].to(device), batch["label"].to(device)
        attribution = input_gradient(class_score(model, label), image)
        shape = attribution.shape[-2:]
        regions = np.zeros((2, len(image), *shape), bool)
        numbers = zip(batch["index"].tolist(), batch["size"].tolist(), strict=True)
        for place, (index, size) in enumerate(numbers):
            mask = read_mask(MaskFiles((dataset.examples[index].mask,)), shape, size) == 1
            regions[0, place] = mask
            if patches is not None:
                regions[1, place] = _patch(dataset, index, patches[index], size, shape) & ~mask
        rows.append(
            np.array([[mass_share(attribution, part), part.mean(axis=(1, 2))] for part in regions])
        )
    return np.concatenate(rows, axis=-1)


def _patch(dataset: CUB200, index: int, box: Box, size: list[int], shape: torch.Size) -> np.ndarray:
    """bool of `shape` (H,W): pixels of a box in an image file of `size`, resized as masks are."""
    (width, height), (x0, y0, x1, y1) = size, box
    if not (x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height):
        file, name = dataset.root / "null_patches.txt", dataset.examples[index].name
        raise ValueError(f"{file}: the box of {name} leaves its image of {width} x {height} pixels")
    pixels = np.zeros((height, width), np.uint8)
    pixels[round(y0) : round(y1), round(x0) : round(x1)] = 1
    return cv2.resize(pixels, tuple(shape)[::-1], interpolation=cv2.INTER_NEAREST) > 0
