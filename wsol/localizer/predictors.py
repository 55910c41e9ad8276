"""Networks that predict boxes: classifiers with a heatmap method, exported programs, detectors."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robust_training.models.classifier import Classifier
from wsol.boxes import outer_boxes
from wsol.detectors.base import Network
from wsol.heatmaps.heatmap import Gradient, HeatmapMethod
from wsol.heatmaps.methods import find_method
from wsol.localizer.exported_program import Program
from wsol.localizer.localization import OBJECT
from wsol.localizer.saved_models import ART_THRESHOLD


@dataclass(frozen=True)
class Prediction:
    """Boxes in one image at the network's size.

    Attributes:
        boxes: (K,4) half-open xyxy in an image of size `frame`, the best first.
        scores: One for each box, in [0,1].
        frame: (width, height).
        label: The class of the boxes, or None.
        heatmap: float64 (S,S) in [0,1], or None.
    """

    boxes: np.ndarray
    scores: Sequence[float]
    frame: tuple[int, int]
    label: int | None
    heatmap: np.ndarray | None = None


class BoxPredictor(ABC):
    """Predicts boxes in a batch of images. Subclasses keep no state between calls, so that several
    threads can share one.

    Attributes:
        model: The network.
        image_size: Side of the square images that the network takes.
        class_names: One for each label; numbers as text if the names are not known.
        predicts_classes: Whether a class can be asked for.
        method: The heatmap method; None if it cannot be chosen.
        threshold: Fraction of the heatmap's maximum that the box's region exceeds; None without
            heatmaps.
    """

    model: object
    image_size: int
    class_names: Sequence[str]
    predicts_classes: bool = True
    method: HeatmapMethod | None = None
    threshold: float | None = None

    @abstractmethod
    def predict(
        self, images: Tensor, labels: Sequence[int | None], count: int
    ) -> Iterator[Prediction]:
        """Predict at most `count` boxes in each of the images (N,3,S,S) in [0,1].

        Args:
            labels: The class to look for in each image; None is the predicted class.
        """


class HeatmapPredictor(BoxPredictor):
    """Predicts the boxes around the hottest regions of a class's heatmap."""

    threshold: float

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0,1], not {self.threshold}")

    @abstractmethod
    def explain(
        self, images: Tensor, labels: Sequence[int | None]
    ) -> tuple[Tensor, list[int], np.ndarray]:
        """Probabilities (N,C), explained classes, and their heatmaps float64 (N,S,S) in [0,1]."""

    def predict(
        self, images: Tensor, labels: Sequence[int | None], count: int
    ) -> Iterator[Prediction]:
        probability, explained, heatmaps = self.explain(images, labels)
        column = torch.tensor(explained, device=probability.device)[:, None]
        scores = probability.gather(1, column)[:, 0].tolist()
        for heatmap, label, score in zip(heatmaps, explained, scores, strict=True):
            boxes = outer_boxes(heatmap, self.threshold)[:count]
            yield Prediction(boxes, [score] * len(boxes), heatmap.shape[::-1], label, heatmap)


@dataclass(frozen=True)
class ClassifierPredictor(HeatmapPredictor):
    """A classifier and a heatmap method."""

    model: Classifier
    method: HeatmapMethod
    threshold: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.num_classes < 1:
            raise ValueError("the model has no classes to localize: it is a backbone without head")
        if not self.method.fits(self.model):
            architecture = self.model.backbone.pretrained_cfg["architecture"]
            raise ValueError(f"{self.method} is not possible with {architecture}")
        self.model.eval()

    @property
    def image_size(self) -> int:
        return self.model.image_size

    @property
    def class_names(self) -> Sequence[str]:
        return self.model.class_names or [*map(str, range(self.model.num_classes))]

    def explain(
        self, images: Tensor, labels: Sequence[int | None]
    ) -> tuple[Tensor, list[int], np.ndarray]:
        images = images.to(self.model.device)
        with torch.no_grad():
            probability = _probability(self.model(images))
        pairs = zip(labels, probability.argmax(dim=1).tolist(), strict=True)
        explained = [predicted if label is None else label for label, predicted in pairs]
        classes = torch.tensor(explained, device=images.device)
        return probability, explained, self.method(self.model, images, classes)


@dataclass(frozen=True)
class ProgramPredictor(HeatmapPredictor):
    """An exported program, which makes heatmaps of the predicted class only."""

    model: Program
    threshold: float

    @property
    def image_size(self) -> int:
        return self.model.image_size

    @property
    def class_names(self) -> Sequence[str]:
        return self.model.class_names

    def explain(
        self, images: Tensor, labels: Sequence[int | None]
    ) -> tuple[Tensor, list[int], np.ndarray]:
        logits, heatmaps = self.model(images)
        probability = _probability(logits)
        predicted = probability.argmax(dim=1).tolist()
        if any(label not in (None, p) for label, p in zip(labels, predicted, strict=True)):
            raise ValueError("an exported localizer makes heatmaps of the predicted class only")
        return probability, predicted, heatmaps.double().numpy()


@dataclass(frozen=True)
class DetectorPredictor(BoxPredictor):
    """A detector.

    If a class is asked for, its likeliest boxes are predicted. If it has none, the likeliest box of
    all classes is, with score 0, as the evaluator does.
    """

    model: Network

    def __post_init__(self) -> None:
        self.model.eval()

    @property
    def image_size(self) -> int:
        return self.model.backbone.image_size

    @property
    def class_names(self) -> Sequence[str]:
        return self.model.class_names if self.predicts_classes else [OBJECT]

    @property
    def predicts_classes(self) -> bool:
        return self.model.predicts_classes

    def predict(
        self, images: Tensor, labels: Sequence[int | None], count: int
    ) -> Iterator[Prediction]:
        with torch.no_grad():
            detections = self.model.detect(images.to(self.model.backbone.device))
        for label, found in zip(labels, (each.cpu() for each in detections), strict=True):
            if label is None and found.labels is not None and len(found.labels):
                label = int(found.labels[0])
            boxes, scores = (found.boxes, found.scores) if label is None else found.of_class(label)
            pixels = boxes[:count].double().numpy()
            yield Prediction(pixels, scores[:count].tolist(), (1, 1), label)


def box_predictor(
    model: Classifier | Network | Program | BoxPredictor,
    method: HeatmapMethod | str | None,
    threshold: float | None,
) -> BoxPredictor:
    """Make a predictor from a network; `Localizer` describes the arguments.

    Raises:
        ValueError: the network is of no known kind, or takes no method or threshold.
    """
    if isinstance(model, Network | BoxPredictor):
        if method is not None or threshold is not None:
            raise ValueError("a detector makes no heatmaps: leave out method and threshold")
        return DetectorPredictor(model) if isinstance(model, Network) else model
    if isinstance(model, Program):
        if method is not None:
            raise ValueError("an exported localizer has its own heatmap method: leave method out")
        return ProgramPredictor(model, model.threshold if threshold is None else threshold)
    if not isinstance(model, Classifier):
        raise ValueError(
            f"{type(model).__name__} is no Classifier: robust_training.wrap_model makes one from "
            "any timm classifier"
        )
    if not isinstance(method, HeatmapMethod):
        method = Gradient() if method is None else find_method(method)
    return ClassifierPredictor(model, method, ART_THRESHOLD if threshold is None else threshold)


def _probability(logits: Tensor) -> Tensor:
    """Softmax (N,C); ValueError if a probability is not finite."""
    probability = logits.softmax(dim=1)
    if not probability.isfinite().all():
        raise ValueError("the model's probabilities are not finite: its weights are damaged")
    return probability
