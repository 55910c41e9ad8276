"""From image files to boxes in their own pixels."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from robust_training.model import Classifier, load_model
from wsol.boxes import largest_boxes, rescale
from wsol.data.image import read_image
from wsol.data.transforms import eval_transform
from wsol.heatmap import Gradient, HeatmapMethod
from wsol.hub import local_folder
from wsol.program import is_program, open_program

ART_THRESHOLD = 0.2  # of the published evaluation, where no validation images chose a better one
ImageLike = str | os.PathLike | Image.Image | np.ndarray


@dataclass(frozen=True)
class Localization:
    """What was found in one image.

    Attributes:
        box: Half-open (x0, y0, x1, y1) in the image's own pixels; zeros where there is none.
        label: Predicted class.
        class_name: Its name, or the number as text.
        score: Its probability.
        heatmap: float64 (S,S) in [0,1] at the model's input size.
        size: (width, height) of the image.
    """

    box: tuple[float, float, float, float]
    label: int
    class_name: str
    score: float
    heatmap: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class Localizer:
    """A classifier used as a localizer: the box around the predicted class's heatmap.

    Attributes:
        model: In evaluation mode.
        method: How a heatmap is made.
        threshold: Share of the heatmap's maximum that the box's region exceeds.
    """

    model: Classifier
    method: HeatmapMethod = Gradient()
    threshold: float = ART_THRESHOLD

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike,
        *,
        method: HeatmapMethod | None = None,
        threshold: float | None = None,
        device: str | torch.device = "cpu",
    ) -> "Localizer":
        """From a run's folder, a model folder, an exported .onnx or .pt2, or a hub's model.

        Args:
            folder: A path, `hf-hub:user/name`, or `user/name` where there is no such path.
            method: How a heatmap is made; None is `Gradient()`.
            threshold: None takes the one that evaluation chose on validation images for
                `Gradient()` (the run's metrics.json), else ART's published 0.2.
        """
        if is_program(folder):
            return cls(*open_program(folder, method, threshold, device))
        folder = local_folder(folder)
        model = load_model(model_folder(folder)).to(device)
        method = method or Gradient()
        if threshold is None:
            threshold = ART_THRESHOLD
            if method == Gradient():
                place = Path(folder).resolve()
                run = place.parent if place.name == "best" else place
                threshold = chosen_threshold(run / "metrics.json")
        return cls(model, method, threshold)

    def predict(
        self, images: Iterable[ImageLike], *, batch_size: int = 32
    ) -> Iterator[Localization]:
        """Localize paths, PIL images or uint8 (H,W,3) RGB arrays, in order.

        Camera orientation of files is applied, so boxes are in the image as viewers show it.
        """
        remaining = iter(images)
        while batch := list(islice(remaining, batch_size)):
            yield from self._predict(batch)

    def _predict(self, batch: list[ImageLike]) -> Iterator[Localization]:
        transform = eval_transform(self.model.image_size)
        pixels = [_pixels(image) for image in batch]
        resized = np.stack([transform(image=p, bboxes=[])["image"] for p in pixels])
        device = self.model.device
        image = torch.from_numpy(resized).to(device).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            probability, label = self.model(image).softmax(dim=1).max(dim=1)
        heatmaps = self.method(self.model, image, label)
        names = self.model.class_names
        for source, heatmap, index, score in zip(
            pixels, heatmaps, label.tolist(), probability.tolist(), strict=True
        ):
            size = (source.shape[1], source.shape[0])
            box = rescale(largest_boxes(heatmap, [self.threshold]), heatmap.shape[::-1], size)[0]
            yield Localization(
                box=tuple(box.tolist()),
                label=index,
                class_name=names[index] if names else str(index),
                score=score,
                heatmap=heatmap,
                size=size,
            )


def model_folder(folder: str | os.PathLike) -> Path:
    """A run's best model, or the folder itself."""
    best = Path(folder) / "best"
    return best if best.is_dir() else Path(folder)


def chosen_threshold(metrics: Path) -> float:
    """Of gradient maps, by validation images, from a run's metrics.json; else ART's published one.

    Raises:
        ValueError: the file is not a run's.
    """
    if not metrics.is_file():
        return ART_THRESHOLD
    try:
        rows = json.loads(metrics.read_text())["localization"]
        chosen = [
            float(row["threshold"])
            for row in rows
            if row["heatmap"] == "gradient" and row["policy"] == "val"
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{metrics} is not the metrics file of a run: {error}") from error
    return chosen[0] if chosen else ART_THRESHOLD


def _pixels(image: ImageLike) -> np.ndarray:
    if isinstance(image, str | os.PathLike):
        return read_image(image, upright=True)
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            f"an image array is uint8 (H,W,3) RGB, not {pixels.dtype} {tuple(pixels.shape)}"
        )
    return pixels
