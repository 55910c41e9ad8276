"""Localizers as programs that need no Python package of ours (docs/export.md).

A program takes images and returns logits and heatmaps.
"""

import contextlib
import io
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram

from robust_training.attribution.export_graph import TracedGradient
from robust_training.models.classifier import Classifier
from wsol.data.text_files import first_cause
from wsol.heatmaps.heatmap import CLIP, Gradient
from wsol.localizer.exported_program import METADATA, load_program
from wsol.localizer.localizer import Localizer

# Allowed differences between a program and its localizer. Rounding changes a heatmap by 1e-6. But
# if an activation lies on the kink of a ReLU, rounding also decides which slope is taken.
LOGITS_TOLERANCE = 1e-3  # largest difference, as a fraction of the largest logit
HEATMAP_TOLERANCE = 1e-3  # mean difference of heatmaps in [0,1]
BATCHES = (1, 3)


class ExportedHeatmap(nn.Module):
    """Attribution (N,3,S,S) -> heatmap, float32 (N,S,S) in [0,1], equal to `attribution_heatmap`,
    in operators that torch.export and ONNX support. S is at least 2.

    Both filters are linear and separable, also at borders. Therefore a multiplication by one matrix
    applies both to the rows, and another multiplication applies both to the columns.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        sigma = Gradient().sigma
        width = 2 * int(4 * sigma + 0.5) + 1
        smooth = cv2.blur(np.eye(side), (1, 3), borderType=cv2.BORDER_CONSTANT)
        smooth = cv2.GaussianBlur(
            smooth, (1, width), sigmaX=sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT
        )
        self.register_buffer("smooth", torch.from_numpy(smooth).float())

    def forward(self, attribution: Tensor) -> Tensor:
        maps = attribution.abs().mean(dim=1)
        low, high = (_percentile(maps.flatten(1), percent) for percent in CLIP)
        maps = _stretched(torch.minimum(torch.maximum(maps, low), high))
        return _stretched(self.smooth @ maps @ self.smooth.T)


def _percentile(values: Tensor, percent: float) -> Tensor:
    """Linearly interpolated percentile of each row, (N,M) -> (N,1,1). Sorts only the tail."""
    place = percent / 100 * (values.shape[1] - 1)
    rank = int(place)
    if percent < 50:
        tail = values.topk(rank + 2, dim=1, largest=False).values
        low, high = tail[:, -2], tail[:, -1]
    else:
        tail = values.topk(values.shape[1] - rank, dim=1).values
        low, high = tail[:, -1], tail[:, -2]
    return (low + (place - rank) * (high - low))[:, None, None]


def _stretched(maps: Tensor) -> Tensor:
    """Stretches each map to [0,1], like `min_max`."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    span = high - low
    return torch.where(span > 0, (maps - low) / torch.where(span > 0, span, 1.0), 0.0)


class _LogitsAndHeatmaps(nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.gradient = TracedGradient(model)
        self.heatmap = ExportedHeatmap(model.image_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, gradient = self.gradient(images)
        return logits, self.heatmap(gradient)


def export_program(model: Classifier) -> ExportedProgram:
    """Traces images (N,3,S,S) in [0,1], any N -> logits (N,C), predicted classes' maps (N,S,S).

    Args:
        model: In evaluation mode, on the CPU.

    Raises:
        ValueError: the architecture cannot be traced. The message names it and the reason.
    """
    side = model.image_size
    batch = {"images": {0: torch.export.Dim("batch")}}
    try:
        with _quiet(), torch.no_grad():
            example = (torch.zeros(2, 3, side, side),)
            return torch.export.export(_LogitsAndHeatmaps(model), example, dynamic_shapes=batch)
    except Exception as error:  # PyTorch's tracers raise many types of errors
        raise ValueError(f"{model.architecture} cannot be exported: {_reason(error)}") from error


def write_program(program: ExportedProgram, localizer: Localizer, file: str | os.PathLike) -> float:
    """Writes `export_program(localizer.model)` to a file, if its results equal the localizer's.

    Args:
        localizer: With `Gradient()` heatmaps, on the CPU.
        file: Ends in .onnx or .pt2.

    Returns:
        The largest difference of its heatmaps (in [0,1]) from the localizer's on a few images.

    Raises:
        ValueError: this format lacks an operator (the message names it), or the results differ. No
            file is written.
    """
    if localizer.method != Gradient():
        raise ValueError(f"only maps of {Gradient()} can be exported, not of {localizer.method}")
    file = Path(file)
    if file.suffix not in _WRITERS:
        raise ValueError(f"a program's file ends in {' or '.join(_WRITERS)}, not as {file.name}")
    model = localizer.model
    metadata = {
        "class_names": json.dumps(list(localizer.class_names)),
        "image_size": str(model.image_size),
        "threshold": str(localizer.threshold),
        "architecture": model.architecture,
        "wsol": version("wsol"),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".partial-{file.name}")
    try:
        _WRITERS[file.suffix](program, metadata, partial)
        difference = _largest_difference(localizer, partial)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def _largest_difference(localizer: Localizer, file: Path) -> float:
    """The largest difference of the heatmaps of a few images, in batches of several sizes;
    ValueError if the program computes something else."""
    program, model = load_program(file), localizer.model
    largest = 0.0
    for count in BATCHES:
        images = smooth_images(count, model.image_size)
        with torch.no_grad():
            logits = model(images)
        ours = localizer.method(model, images, logits.argmax(dim=1))
        its_logits, its_heatmaps = program(images)
        off = np.abs(its_heatmaps.double().numpy() - ours)
        logits_off = (its_logits - logits).abs().max() / logits.abs().max().clamp(min=1e-6)
        if not (logits_off <= LOGITS_TOLERANCE and off.mean() <= HEATMAP_TOLERANCE):
            raise ValueError(
                f"the {file.suffix} of {model.architecture} was wrong "
                f"and is not kept: on {count} image(s) its logits differ by {logits_off:.1e} of "
                f"the largest, its heatmaps by {off.mean():.1e} on average"
            )
        largest = max(largest, off.max().item())
    return largest


def smooth_images(count: int, side: int) -> Tensor:
    """Random images (N,3,S,S) in [0,1] without high frequencies, always the same."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    return F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


def _write_pt2(program: ExportedProgram, metadata: Mapping[str, str], file: Path) -> None:
    torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})


def _write_onnx(program: ExportedProgram, metadata: Mapping[str, str], file: Path) -> None:
    try:
        with _quiet():  # not optimized: onnxruntime does that when it loads the file
            written = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                verbose=False,
                input_names=["images"],
                output_names=["logits", "heatmap"],
            )
    except ImportError as error:
        raise ValueError("writing .onnx needs packages: pip install 'wsol[export]'") from error
    except Exception as error:  # whatever PyTorch's converter raises
        name = metadata["architecture"]
        raise ValueError(f"{name} cannot be written as ONNX: {_reason(error)}") from error
    written.model.metadata_props.update(metadata)
    written.save(file, external_data=False)


_WRITERS = {".pt2": _write_pt2, ".onnx": _write_onnx}


def _reason(error: BaseException) -> str:
    """The operator that the first cause names, or else the first line of that cause."""
    text = first_cause(error)
    operator = re.search(r"op='([\w.]+)'", text)
    return f"there is no operator for {operator[1]}" if operator else text.splitlines()[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporters print and log about their progress and future versions."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
