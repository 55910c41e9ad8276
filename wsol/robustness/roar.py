"""ROAR and KAR: does a new network need the pixels with large values in an attribution?

Remove And Retrain (Hooker et al., NeurIPS 2019) and Keep And Retrain, as in Kim, Seo and Jeon
(2019, arXiv 1903.11626; notebooks 3.4 and 3.5). ROAR replaces the most important pixels of every
image by the channel means of the training images, and KAR replaces all others. A network is trained
from scratch on these images. The baseline is the accuracy after random pixels were replaced.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from robust_training.atomic_io import new_folder
from robust_training.attribution.explanation import integrated_gradients
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import cross_entropy_score
from robust_training.models.classifier import Classifier
from robust_training.progress import Progress
from wsol.annotations.box_files import write_png
from wsol.data.dataset import ImageDataset
from wsol.data.inputs import to_pixels
from wsol.data.names import path_below
from wsol.robustness.adversarial_accuracy import is_correct

Importance = Callable[[Classifier, Tensor], Tensor]  # images (N,3,H,W) -> (N,H,W), at least 0
Mode = Literal["roar", "kar"]
FRACTIONS = (0.1, 0.5, 0.9)  # fewer than the source, for a CPU; it also has .3 and .7
RANDOM = "random"


def gradient(model: Classifier, image: Tensor) -> Tensor:
    """Gradient magnitudes of the predicted class's cross-entropy, summed over channels."""
    return _sum(input_gradient(_loss(model, image), image))


def gradient_x_input(model: Classifier, image: Tensor) -> Tensor:
    """Gradient times pixel. Mid-grey is 0, because pixels of the source lie in [-1,1]."""
    return _sum((image - 0.5) * input_gradient(_loss(model, image), image))


def integrated(model: Classifier, image: Tensor) -> Tensor:
    """Integrated gradients of the same loss from mid-grey in 20 steps."""
    grey = torch.full_like(image, 0.5)
    return _sum(integrated_gradients(_loss(model, image), image, grey, steps=20))


def random(model: Classifier, image: Tensor) -> Tensor:
    """The baseline: uniform noise."""
    return torch.rand_like(image[:, 0])


IMPORTANCES: Mapping[str, Importance] = {
    "gradient": gradient,
    "gradient_x_input": gradient_x_input,
    "integrated_gradients": integrated,
    RANDOM: random,
}


def _loss(model: Classifier, image: Tensor) -> Callable[[Tensor], Tensor]:
    with torch.no_grad():
        return cross_entropy_score(model, model(image).argmax(dim=1))


def _sum(attribution: Tensor) -> Tensor:
    return attribution.abs().sum(dim=1)


def replace_pixels(
    image: Tensor, importance: Tensor, fraction: float, mode: Mode, filler: Tensor
) -> Tensor:
    """Replaces pixels of images (N,3,H,W) by `filler` (3,).

    Args:
        importance: (N,H,W). PyTorch's global generator puts equal values in random order.
        fraction: Fraction of the pixels that count as important, in (0,1).
        mode: "roar" replaces the important pixels, "kar" all others.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"a fraction of pixels must lie between 0 and 1, not {fraction}")
    rows = importance.flatten(1)
    order = torch.rand_like(rows).argsort(dim=1)
    ranked = order.gather(1, rows.gather(1, order).argsort(dim=1, descending=True, stable=True))
    count = round(fraction * rows.shape[1])
    important = torch.zeros_like(rows, dtype=torch.bool).scatter(1, ranked[:, :count], True)
    replaced = important if mode == "roar" else ~important
    mask = replaced.view_as(importance)[:, None]
    return torch.where(mask, filler[:, None, None], image)


def channel_means(dataset: ImageDataset) -> Tensor:
    """Mean of each channel over all pixels of a split, (3,)."""
    total = torch.stack([dataset[index]["image"].mean(dim=(1, 2)) for index in range(len(dataset))])
    return total.mean(dim=0)


def write_replaced(
    folder: str | os.PathLike,
    model: Classifier,
    splits: Sequence[ImageDataset],
    *,
    importance: Importance,
    fraction: float,
    mode: Mode,
    seed: int = 0,
    batch_size: int = 32,
) -> None:
    """Writes a data set in CUB's layout with replaced pixels, at the size of the model's input.

    The folder appears complete or not at all.

    Args:
        splits: "train", then "test"; images of equal square size.
        seed: Seed of random importance and of the order of equal values.
    """
    folder = Path(folder)
    torch.manual_seed(seed)
    filler = channel_means(splits[0])
    lines: dict[str, list[str]] = defaultdict(list)
    with new_folder(folder) as partial:
        for dataset in splits:
            for batch in Progress(
                DataLoader(dataset, batch_size), desc="replacing pixels", leave=False
            ):
                image = batch["image"].to(model.device)
                found = importance(model, image)
                changed = replace_pixels(
                    image, found, fraction, mode, filler.to(model.device)
                ).cpu()
                for pixels, index, box in zip(
                    changed, batch["index"].tolist(), batch["box"].tolist(), strict=True
                ):
                    if not any(box):  # the layout needs a box; it does not affect accuracy
                        box = (0, 0, *pixels.shape[:0:-1])
                    example = dataset.examples[index]
                    name = f"{example.name}.png"  # a.jpg and a.png must not become one file
                    (values,) = to_pixels(pixels[None])
                    write_png(path_below(partial / "images", name), values)
                    x0, y0, x1, y1 = box
                    row = {
                        "images": name,
                        "image_class_labels": example.label + 1,
                        "train_test_split": int(dataset.split == "train"),
                        "bounding_boxes": f"{x0:.2f} {y0:.2f} {x1 - x0:.2f} {y1 - y0:.2f}",
                    }
                    for table, value in row.items():
                        lines[table].append(f"{example.identity} {value}")
        lines["classes"] = [f"{i + 1} {name}" for i, name in enumerate(splits[0].classes)]
        for name, rows in lines.items():
            (partial / f"{name}.txt").write_text("\n".join(rows) + "\n")
        shutil.rmtree(folder, ignore_errors=True)


def accuracy(model: Classifier, loader: DataLoader) -> float:
    """Fraction of images that are classified correctly."""
    model.eval()
    hits = [
        is_correct(model, batch["image"].to(model.device), batch["label"].to(model.device))
        for batch in loader
    ]
    return torch.cat(hits).double().mean().item()


def area(
    fractions: Sequence[float], accuracy: Sequence[float], random: Sequence[float], mode: Mode
) -> float:
    """Area between two curves of accuracy over the fraction of replaced pixels.

    Larger is better. For ROAR it is the curve of random pixels minus the curve of the attribution,
    for KAR the reverse. Both curves have the same ends: no pixel or every pixel is replaced.
    """
    if not len(fractions) == len(accuracy) == len(random) == len(set(fractions)):
        raise ValueError("an area needs different fractions, and one accuracy for each")
    gain = np.subtract(random, accuracy) if mode == "roar" else np.subtract(accuracy, random)
    replaced = np.array(fractions) if mode == "roar" else 1 - np.array(fractions)
    order = np.argsort(replaced)
    x = np.concatenate([[0.0], replaced[order], [1.0]])
    y = np.concatenate([[0.0], gain[order], [0.0]])
    return float(np.trapezoid(y, x))
