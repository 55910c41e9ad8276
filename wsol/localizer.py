"""From image files to boxes in their own pixels."""

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import cv2
import numpy as np
import torch

from robust_training.model import Classifier, load_model
from wsol.boxes import largest_contours, rescale
from wsol.data.transforms import eval_transform
from wsol.heatmap import Gradient, HeatmapMethod
from wsol.inputs import ImageLike, each_image, read_pixels
from wsol.methods import find_method

ART_THRESHOLD = 0.2  # of the published evaluation, where no validation images chose a better one
_GRADIENT = Gradient()
Box = tuple[float, float, float, float]
Label = int | str


@dataclass(frozen=True)
class Localization:
    """What was found in one image.

    Attributes:
        box: Half-open (x0, y0, x1, y1) in the image's own pixels; zeros where there is none.
        label: Class that was looked for: the predicted one unless another was asked for.
        class_name: Its name, or the number as text.
        score: Its probability.
        heatmap: float64 (S,S) in [0,1] at the model's input size.
        size: (width, height) of the image.
        others: Further boxes that were asked for, the largest contour's first.
        path: Of an image that came as a file.
    """

    box: Box
    label: int
    class_name: str
    score: float
    heatmap: np.ndarray
    size: tuple[int, int]
    others: tuple[Box, ...] = ()
    path: Path | None = None

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All of them, the largest contour's first; none where nothing was found."""
        return (self.box, *self.others) if any(self.box) else ()

    def full_heatmap(self) -> np.ndarray:
        """float64 (height,width) in [0,1]: the heatmap over the image's own pixels."""
        return cv2.resize(self.heatmap, self.size, interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class _Ready:
    """An image at the network's size: float32 (3,S,S) in [0,1]."""

    image: torch.Tensor
    label: int | None
    size: tuple[int, int]
    path: Path | None


@dataclass(frozen=True)
class Localizer:
    """A classifier used as a localizer: the box around a class's heatmap.

    Attributes:
        model: Of `robust_training.create_model` or `load_model`; it is put in evaluation mode.
        method: How a heatmap is made.
        threshold: Share of the heatmap's maximum that the box's region exceeds.
    """

    model: Classifier
    method: HeatmapMethod = _GRADIENT
    threshold: float = ART_THRESHOLD

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0,1], not {self.threshold}")
        if not self.method.fits(self.model):
            architecture = self.model.backbone.pretrained_cfg["architecture"]
            raise ValueError(f"{self.method} is not possible with {architecture}")
        self.model.eval()

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike,
        *,
        method: HeatmapMethod | str | None = None,
        threshold: float | None = None,
        device: str | torch.device = "cpu",
    ) -> "Localizer":
        """From a run's folder or a model folder, trained here or by timm.

        Args:
            method: How a heatmap is made, or its name (`wsol.methods`); None is `Gradient()`.
            threshold: None takes the one that evaluation chose on validation images for this method
                (the run's metrics.json), else ART's published 0.2.

        Raises:
            ValueError: there is no model in the folder, or the method is not possible with it.
        """
        model = load_model(model_folder(folder)).to(device)
        method = find_method(method) if isinstance(method, str) else method or _GRADIENT
        if threshold is None:
            place = Path(folder).resolve()
            run = place.parent if place.name == "best" else place
            threshold = chosen_threshold(run / "metrics.json", method)
        return cls(model, method, threshold)

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        labels: Label | Iterable[Label | None] | None = None,
        boxes: int = 1,
        batch_size: int = 32,
        on_unreadable: Callable[[ValueError], None] | None = None,
    ) -> Iterator[Localization]:
        """Localize images in order, a batch at a time; nothing is kept of those given out.

        Args:
            images: One or many: paths, folders (all images in them, sorted), PIL images, uint8
                arrays (H,W,3), float tensors (3,H,W) in [0,1], all RGB. Camera orientation of files
                is applied, so boxes are in the image as viewers show it.
            labels: Class to look for, by number or name: one for all, or one for each image. None
                is the predicted one.
            boxes: At most so many in each image, of the largest contours.
            on_unreadable: Called with the error of an image that cannot be read, which is then left
                out; None raises it.

        Raises:
            ValueError: what is no image, a class that the model does not know, or another number of
                labels than of images.
        """
        if boxes < 1 or batch_size < 1:
            raise ValueError(f"boxes and batch_size must be at least 1, not {boxes}, {batch_size}")
        one = labels is None or isinstance(labels, Label)
        wanted = repeat(self._index(labels)) if one else map(self._index, labels)
        ready = self._ready(images, wanted, on_unreadable)
        batches = iter(lambda: list(islice(ready, batch_size)), [])
        return (place for batch in batches for place in self._localize(batch, boxes))

    def _ready(
        self,
        images: ImageLike | Iterable[ImageLike],
        wanted: Iterator[int | None],
        on_unreadable: Callable[[ValueError], None] | None,
    ) -> Iterator[_Ready]:
        transform = eval_transform(self.model.image_size)
        for image in each_image(images):
            label = next(wanted, -1)
            if label == -1:
                raise ValueError("there are fewer labels than images")
            try:
                pixels = read_pixels(image)
            except ValueError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(error)
                continue
            resized = torch.tensor(transform(image=pixels, bboxes=[])["image"])
            unit = resized if resized.is_floating_point() else resized.float() / 255
            path = Path(image) if isinstance(image, str | os.PathLike) else None
            yield _Ready(unit.permute(2, 0, 1), label, pixels.shape[1::-1], path)
        if not isinstance(wanted, repeat) and next(wanted, -1) != -1:
            raise ValueError("there are more labels than images")

    def _localize(self, batch: list[_Ready], boxes: int) -> Iterator[Localization]:
        device = next(self.model.parameters()).device
        image = torch.stack([ready.image for ready in batch]).to(device)
        with torch.no_grad():
            probability = self.model(image).softmax(dim=1)
        predicted = probability.argmax(dim=1).tolist()
        pairs = zip(batch, predicted, strict=True)
        labels = [p if ready.label is None else ready.label for ready, p in pairs]
        label = torch.tensor(labels, device=device)
        scores = probability.gather(1, label[:, None])[:, 0].tolist()
        heatmaps = self.method(self.model, image, label)
        names = self.model.class_names
        for ready, heatmap, index, score in zip(batch, heatmaps, labels, scores, strict=True):
            found = largest_contours(heatmap, self.threshold, boxes)
            first, *others = map(tuple, rescale(found, heatmap.shape[::-1], ready.size).tolist())
            yield Localization(
                box=first,
                label=index,
                class_name=names[index] if names else str(index),
                score=score,
                heatmap=heatmap,
                size=ready.size,
                others=tuple(others),
                path=ready.path,
            )

    def _index(self, label: Label | None) -> int | None:
        """Of a class by number or name."""
        if label is None:
            return None
        names, count = list(self.model.class_names or ()), self.model.backbone.num_classes
        if label in names:
            return names.index(label)
        if isinstance(label, str) and not label.isdecimal():
            near = difflib.get_close_matches(label, names, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ValueError(f"the model knows no class {label!r}{hint}")
        if not 0 <= int(label) < count:
            raise ValueError(f"class {label} is not in 0 to {count - 1}")
        return int(label)


def model_folder(folder: str | os.PathLike) -> Path:
    """A run's best model, or the folder itself."""
    best = Path(folder) / "best"
    return best if best.is_dir() else Path(folder)


def chosen_threshold(metrics: Path, method: HeatmapMethod = _GRADIENT) -> float:
    """Of a method, by validation images, from a run's metrics.json; else ART's published one.

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
            if row["policy"] == "val" and _is_called(row["heatmap"], method)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{metrics} is not the metrics file of a run: {error}") from error
    return chosen[0] if chosen else ART_THRESHOLD


def _is_called(name: str, method: HeatmapMethod) -> bool:
    try:
        return find_method(name) == method
    except ValueError:  # another program's map
        return False
