"""Spurious correlations: does a classifier rely on something other than the object?

Data sets in CUB's layout can contain files for three measurements:

* Accuracy over groups of class and background (`backgrounds.txt`; Sagawa et al., ICLR 2020). Images
  with a background that is rare for their class in training are misclassified first.
* The fraction of attribution mass inside the object's mask. It is reported with the mask's fraction
  of the area, which is the value of a constant map.
* Leakage: attribution mass on a patch that is independent of the class (`null_patches.txt`; Shah et
  al., NeurIPS 2021).
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

from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score
from robust_training.progress import Progress
from wsol.annotations.ground_truth import MaskFiles
from wsol.data.cub import CUB200, parse_box, read_table
from wsol.data.dataset import Box, ImageDataset
from wsol.evaluation.metrics import bootstrap, mean_interval
from wsol.evaluation.pixel_metrics import read_mask

FEWEST = 5  # smallest group size; in smaller groups the minimum accuracy would be noise


@dataclass(frozen=True)
class SpuriousCues:
    """A data set's information about cues other than the object, for the images of a split.

    Attributes:
        backgrounds: Kind of background of each image. None if the data set has no backgrounds.txt.
        patches: Box in each image of a patch that is independent of the class. None if the data set
            has no null_patches.txt.
    """

    backgrounds: Sequence[str] | None
    patches: Sequence[Box] | None


def read_spurious_cues(dataset: ImageDataset, sizes: ArrayLike) -> SpuriousCues | None:
    """Reads backgrounds.txt and null_patches.txt of a data set in CUB's layout.

    Args:
        sizes: (N,2), width and height of the image files.

    Returns:
        None if the data set has neither file, or another layout.

    Raises:
        ValueError: a file is malformed or has no line for an image, or a patch is partly outside of
            its image. The message names the file.
    """
    if not isinstance(dataset, CUB200):
        return None
    backgrounds = _read_column(dataset, "backgrounds.txt", 1, lambda fields: fields[0])
    patches = _read_column(dataset, "null_patches.txt", 4, parse_box)
    if backgrounds is None and patches is None:
        return None
    for example, (x0, y0, x1, y1), (width, height) in zip(
        dataset.examples, patches or (), sizes, strict=patches is not None
    ):
        if not (x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height):
            raise ValueError(
                f"{dataset.root / 'null_patches.txt'}: the box of {example.name} extends outside "
                f"of its image of {width} x {height} pixels"
            )
    return SpuriousCues(backgrounds, patches)


def spurious_correlation(
    model: nn.Module, loader: DataLoader, cues: SpuriousCues, correct: ArrayLike, *, seed: int = 0
) -> dict[str, Any]:
    """Measures accuracy over groups, and gradient mass on the object and on the null patch.

    Attributions are raw input gradients of the true class's logit. The mass of an image is the sum
    of their magnitudes. Images with mass 0 are left out. Their number is in the result.

    Args:
        loader: Loads an `ImageDataset` in order. Mass is measured if all images have a mask.
        cues: From `read_spurious_cues` of the same data set.
        correct: bool (N,), whether the predicted class is the true one.

    Returns:
        `groups` (from `group_accuracy`), `object` and `null_patch` (from `mass_in_region`). A key
        is missing if it could not be measured.

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
    """Accuracy over groups of images with one class and background. Each group has equal weight.

    Args:
        correct: bool (N,), whether each image is classified correctly.
        classes, backgrounds: N names each.

    Returns:
        `groups`: class, background, size and accuracy of each group of at least `FEWEST` images.
        `mean_accuracy`: mean over the groups, or None without groups.
        `worst`: the group with the lowest accuracy, the largest of several; None without groups.
        `left_out`: number of smaller groups.
        `fewest_images`: `FEWEST`.
    """
    groups = list(zip(classes, backgrounds, strict=True))
    images = Counter(groups)
    hits = Counter(group for group, hit in zip(groups, np.asarray(correct), strict=True) if hit)
    rows = [
        {
            "class": name,
            "background": background,
            "images": count,
            "accuracy": hits[name, background] / count,
        }
        for (name, background), count in sorted(images.items())
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
    """Fraction of an attribution's mass (the sum of magnitudes) that lies in a region.

    Args:
        attribution: (N,3,H,W).
        region: bool (N,H,W).

    Returns:
        float64 (N,) in [0,1]. NaN for an image with mass 0.
    """
    mass = attribution.detach().double().abs().sum(dim=1).cpu().numpy()
    total = np.nan_to_num(mass.sum(axis=(1, 2)), posinf=0)
    return _ratio(mass.sum(axis=(1, 2), where=region), total)


def mass_in_region(mass: np.ndarray, area: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Compares the mean fraction of mass in a region with the region's mean fraction of the area.

    Args:
        mass: (N,) from `mass_fraction`. Images with NaN are left out of both means.
        area: (N,) in [0,1], the region's fraction of each image.

    Returns:
        `mass`, `area`: mean fractions, or None without images.
        `leakage`: mass / area, or None if the area is 0. It is 1 for a constant map. A value above
        1 does not prove learning: random networks can also exceed 1 in a high-contrast region.
        `intervals`: 95 % intervals of mass and leakage.
        `left_out`: number of images with mass 0.
    """
    counted = ~np.isnan(mass)
    mass, area = mass[counted], area[counted]
    left_out = int((~counted).sum())
    if not len(mass):
        return {"mass": None, "area": None, "leakage": None, "intervals": {}, "left_out": left_out}
    ends = {"mass": mean_interval(mass, seed=seed).tolist()}
    scores = {"mass": float(mass.mean()), "area": float(area.mean()), "leakage": None}
    if area.any():
        scores["leakage"] = scores["mass"] / scores["area"]
        drawn_leakage = bootstrap(
            lambda drawn: _ratio(drawn @ mass, drawn @ area), len(mass), seed=seed
        )
        ends["leakage"] = drawn_leakage.tolist()
    return scores | {"intervals": ends, "left_out": left_out}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divides; NaN if the denominator is not above 0."""
    nan = np.full(len(denominator), np.nan)
    return np.divide(numerator, denominator, out=nan, where=denominator > 0)


def _read_column(
    dataset: CUB200, name: str, columns: int, parse: Callable[[list[str]], Any]
) -> list[Any] | None:
    """Reads a value for each image, in order, from the data set's file `name`, if there is one.
    Raises ValueError if the file is malformed (`read_table`), or an image has no line."""
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
    """Fractions (2,2,N). Axes: region (object; patch without object pixels), quantity (mass, area),
    image."""
    device = next(model.parameters()).device
    examples = loader.dataset.examples
    rows: list[np.ndarray] = []
    for batch in Progress(loader, desc="attributing", unit="batch", leave=False):
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
    """The mask of a box in an image file of `size`, resized like other masks: bool of `shape`."""
    (width, height), (x0, y0, x1, y1) = size, box
    pixels = np.zeros((height, width), np.uint8)
    pixels[round(y0) : round(y1), round(x0) : round(x1)] = 1
    return cv2.resize(pixels, tuple(shape)[::-1], interpolation=cv2.INTER_NEAREST) > 0
