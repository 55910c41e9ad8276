"""The speed of exported localizers beside the classifiers that they were made from."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robust_training.models.classifier import Classifier, create_model
from wsol.heatmaps.heatmap import Gradient
from wsol.localizer.export import export_program, smooth_images, write_program
from wsol.localizer.exported_program import load_program
from wsol.localizer.localizer import Localizer
from wsol.localizer.predictors import Explanations, explain_by_classifier, explain_by_program


def program_speeds(
    names: Sequence[str], suffix: str, side: int, batches: Sequence[int], repeats: int
) -> Iterator[dict[str, Any]]:
    """Images per second with random weights, heatmaps included: one row for each model and batch.

    Args:
        names: timm's names of architectures.
        suffix: Format of the programs, "onnx" or "pt2".
        side: Side of the images in pixels.
        repeats: Number of calls of each; the two take turns, and their medians are compared.
    """
    for name in names:
        model = _random_model(name, side)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"localizer.{suffix}")
            write_program(export_program(model), Localizer(model), file)
            exported = partial(explain_by_program, load_program(file))
        eager = partial(explain_by_classifier, model, Gradient())
        for count in batches:
            images = smooth_images(count, side)
            slow, fast = _median_seconds([eager, exported], images, repeats)
            yield {
                "model": name,
                "batch": count,
                "eager, images/s": count / slow,
                f".{suffix}, images/s": count / fast,
                "ratio": slow / fast,
            }


def _random_model(name: str, side: int) -> Classifier:
    torch.manual_seed(0)
    model = create_model(name, 200, image_size=side).eval()
    for parameter in model.backbone.get_classifier().parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # a head of zeros has no gradient
    return model


def _median_seconds(
    calls: Sequence[Callable[..., Explanations]], images: Tensor, repeats: int
) -> list[float]:
    """Median seconds of each function; they take turns, after one call that warms up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for explain, times in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            explain(images, [None] * len(images))
            times.append(time.perf_counter() - start)
    return [float(np.median(times[1:])) for times in seconds]
