"""The speed of exported localizers, compared with the same models in PyTorch."""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robust_training.models.creating import create_model
from wsol.benchmarks.timing import seconds_in_turn
from wsol.heatmaps.heatmap import Gradient
from wsol.localizer.export import export_program, smooth_images, write_program
from wsol.localizer.exported_program import load_program
from wsol.localizer.localizer import Localizer
from wsol.localizer.predictors import explain_by_classifier, explain_by_program


def program_speeds(
    names: Sequence[str], suffix: str, side: int, batches: Sequence[int], repeats: int
) -> Iterator[dict[str, Any]]:
    """Images per second with random weights, with heatmaps: one row for each model and batch.

    Args:
        names: timm's names of networks.
        side: Side of the images in pixels.
        suffix: Format of the programs, "onnx" or "pt2".
        repeats: Number of calls of each. The calls alternate, and the medians are compared.
    """
    for name in names:
        torch.manual_seed(0)
        model = create_model(name, 200, image_size=side).eval()
        for parameter in model.backbone.get_classifier().parameters():
            torch.nn.init.normal_(parameter, std=0.1)  # with a head of zeros, gradients are zero
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"localizer.{suffix}")
            write_program(export_program(model), Localizer(model, "gradient"), file)
            program = load_program(file)
        for count in batches:
            given = (smooth_images(count, side), [None] * count)
            calls = {
                "eager": partial(explain_by_classifier, model, Gradient(), *given),
                "exported": partial(explain_by_program, program, *given),
            }
            slow, fast = map(np.median, seconds_in_turn(calls, repeats).values())
            yield {
                "model": name,
                "batch": count,
                "eager, images/s": count / slow,
                f".{suffix}, images/s": count / fast,
                "ratio": slow / fast,
            }
