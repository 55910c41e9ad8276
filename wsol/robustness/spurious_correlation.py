"""Spurious correlations: does a classifier rely on something other than the object?

Data sets in CUB's layout can hold files that expose this. Three measurements follow from them:

* Accuracy over groups of class and background (`backgrounds.txt`; Sagawa et al., ICLR 2020). A
  class in front of a background that is rare for it in training fails first.
* The fraction of attribution mass inside the object's mask, beside the mask's fraction of the area,
  which is the result of a constant map.
* Leakage: attribution mass on a patch that says nothing about the class (`null_patches.txt`; Shah
  et al., NeurIPS 2021).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from wsol.data.dataset import Box, ImageDataset
from wsol.evaluation.metrics import bootstrap
from wsol.evaluation.pixel_metrics import read_mask

FEWEST = 5  # images in a group; the worst accuracy is a minimum, so smaller groups are left out


@dataclass(frozen=True)
class SpuriousCues:
    """A data set's information about cues beside the object, for the images of a split in order.

    Attributes:
        backgrounds: Kind of background of each image; None where the data set does not say.
        patches: Box of a patch that says nothing about the class; None where there is none.
    """

    backgrounds: Sequence[str] | None
    patches: Sequence[Box] | None


def read_spurious_cues(dataset: ImageDataset, sizes: ArrayLike) -> SpuriousCues | None:
    """Reads backgrounds.txt and null_patches.txt of a data set in CUB's layout.

    Args:
        sizes: (N,2), width and height of the image files.

    Returns:
        None where the data set has neither file, or another layout.

    Raises:
        ValueError: a file is malformed (file and line) or has no line for an image, or a patch does
            not lie in its image.
    """
    if not isinstance(dataset, CUB200):
        return None
    backgrounds = _read_column(dataset, "backgrounds.txt", 1, lambda fields: fields[0])
    patches = _read_column(dataset, "null_patches.txt", 4, parse_box)
    if backgrounds is None and patches is None:
        return None
    for example, (x0, y0, x1, y1), size in zip(
        dataset.examples, patches or (), sizes, strict=patches is not None
    ):
        width, height = size
        if not (x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height):
            raise ValueError(
                f"{dataset.root / 'null_patches.txt'}: the box of {example.name} leaves its image "
                f"of {width} x {height} pixels"
            )
    return SpuriousCues(backgrounds, patches)


def spurious_correlation(
    model: nn.Module,
    loader: DataLoader,
    cues: SpuriousCues,
    correct: ArrayLike,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures accuracy over groups, and gradient mass on the object and on the null patch.

    Attributions are raw input gradients of the true class's logit. The mass of an image is the sum
    of their magnitudes; images without any are left out and counted.

    Args:
        loader: Loads an `ImageDataset` in order. Mass is measured where all images have a mask.
        cues: From `read_spurious_cues` of the same data set.
        correct: bool (N,), whether the predicted class is the true one.
        seed: Seed of the bootstrap.

    Returns:
        `groups` (from `group_accuracy`), `object` and `null_patch` (from `mass_in_region`), each
        where it could be measured.

    Raises:
        ValueError: a mask is not readable.
    """
    dataset = loader.dataset
    found: dict[str, Any] = {}
    if cues.backgrounds is not None:
        classes = [dataset.classes[example.label] for example in dataset.examples]
        found["groups"] = group_accuracy(correct, classes, cues.backgrounds)
    if all(example.mask is not None for example in dataset.examples):
        of_object, of_patch = _mass_and_area(model, loader, cues.patches)
        found["object"] = mass_in_region(*of_object, seed=seed)
        if cues.patches is not None:
            found["null_patch"] = mass_in_region(*of_patch, seed=seed)
    return found


def group_accuracy(
    correct: ArrayLike, classes: Sequence[str], backgrounds: Sequence[str]
) -> dict[str, Any]:
    """Accuracy over groups of images with one class and background; all groups count the same.

    Args:
        correct: bool (N,), whether the predicted class is the true one.
        classes: Names of the N images' classes.
        backgrounds: Kinds of the N images' backgrounds.

    Returns:
        `mean_accuracy` and the `worst` group (the largest of equally bad ones) over `groups` of at
        least `FEWEST` images, None without any; how many smaller groups were `left_out`.
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


def mass_fraction(attribution: Tensor, region: np.ndarray) -> np.ndarray:
    """Fraction of an attribution's mass that lies in a region; mass is the sum of magnitudes.

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
    """Mean fraction of the mass in a region, beside the region's mean fraction of the area.

    Args:
        mass: (N,) from `mass_fraction`; images with NaN are left out of both means.
        area: (N,) in [0,1], the region's fraction of each image.
        seed: Seed of the bootstrap.

    Returns:
        `mass` and `area`; `leakage`, their ratio: 1 for a constant map, above 1 for a map that is
        strong in the region (gradients of random networks are, too, in a striking region);
        `intervals` of mass and leakage; how many images were `left_out`. Numbers are None without
        images, and leakage is None without area.
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
    """Reads a value for each image, in order, from the data set's file `name`; None without it.

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


def _mass_and_area(
    model: nn.Module, loader: DataLoader, patches: Sequence[Box] | None
) -> np.ndarray:
    """Fractions of mass and area of each image, (2,2,N): first of the object, then of the part of
    the patch that the object does not hide."""
    device = next(model.parameters()).device
    examples = loader.dataset.examples
    rows: list[np.ndarray] = []
    for batch in tqdm(loader, desc="attributing", unit="batch", leave=False):
        image, label = batch["image"].to(device), batch["label"].to(device)
        attribution = input_gradient(class_score(model, label), image)
        shape = attribution.shape[-2:]
        regions = np.zeros((2, len(image), *shape), bool)
        pairs = zip(batch["index"].tolist(), batch["size"].tolist(), strict=True)
        for row, (index, size) in enumerate(pairs):
            mask = read_mask(MaskFiles((examples[index].mask,)), shape, size) == 1
            regions[0, row] = mask
            if patches is not None:
                regions[1, row] = _patch(patches[index], size, shape) & ~mask
        rows.append(
            np.array([[mass_fraction(attribution, r), r.mean(axis=(1, 2))] for r in regions])
        )
    return np.concatenate(rows, axis=-1)


def _patch(box: Box, size: list[int], shape: torch.Size) -> np.ndarray:
    """bool of `shape` (H,W): pixels of a box in an image file of `size`, resized like a mask."""
    (width, height), (x0, y0, x1, y1) = size, box
    pixels = np.zeros((height, width), np.uint8)
    pixels[round(y0) : round(y1), round(x0) : round(x1)] = 1
    return cv2.resize(pixels, tuple(shape)[::-1], interpolation=cv2.INTER_NEAREST) > 0
