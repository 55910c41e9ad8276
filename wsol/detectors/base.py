"""What every detector is: settings, and a network on a classifier's backbone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robust_training.models.classifier import Classifier


@dataclass(frozen=True)
class Detections:
    """Boxes in one image, the likeliest first.

    Attributes:
        boxes: (K,4) half-open x0, y0, x1, y1 as shares of the image's sides, in [0,1].
        labels: int64 (K,), or None of a detector that knows no classes.
        scores: (K,) in [0,1].
    """

    boxes: Tensor
    labels: Tensor | None
    scores: Tensor

    def cpu(self) -> "Detections":
        labels = None if self.labels is None else self.labels.cpu()
        return Detections(self.boxes.cpu(), labels, self.scores.cpu())

    def best_box(self, label: int) -> Tensor:
        """The likeliest box (4,) of that class; where it has none, of all; zeros without any."""
        boxes, _ = self.of_class(label)
        return boxes[0] if len(boxes) else self.boxes.new_zeros(4)

    def of_class(self, label: int) -> tuple[Tensor, Tensor]:
        """Boxes (K,4) and scores (K,) of that class; where it has none, the likeliest box of all,
        with score 0."""
        if self.labels is None:
            return self.boxes, self.scores
        own = self.labels == label
        if own.any():
            return self.boxes[own], self.scores[own]
        return self.boxes[:1], torch.zeros_like(self.scores[:1])


class Network(nn.Module, ABC):
    """Images (N,3,H,W) in [0,1] -> what is found in each.

    Attributes:
        predicts_classes: Whether its boxes have labels.
        settings: What it was built with.
        backbone: Of the classifier that it grew on: front end and timm model. Its head is unused.
        class_names: Of the images that it learns from, in the order of `Detections.labels`.
    """

    predicts_classes: ClassVar[bool] = False

    def __init__(self, settings: "Detector", backbone: Classifier, class_names: list[str]) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = backbone
        self.class_names = class_names

    @abstractmethod
    def forward(self, image: Tensor) -> list[Detections]: ...

    def detect(self, image: Tensor) -> list[Detections]:
        """As `forward`, with all that is worth its time once, not after every epoch."""
        return self(image)

    @abstractmethod
    def losses(self, image: Tensor, box: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Named, weighted terms; the loss is their sum.

        Args:
            box: (N,4) half-open xyxy, shares of the image's sides, each with an area.
            label: int64 (N,).
        """


class Detector(ABC):
    """A kind of detector. Subclasses are frozen dataclasses: its settings."""

    @abstractmethod
    def build(self, backbone: Classifier, class_names: list[str]) -> Network:
        """A network on `backbone`, with a fresh head.

        Raises:
            ValueError: the backbone has no feature maps to build on.
        """


def stages(backbone: Classifier) -> list[dict]:
    """timm's record of the backbone's stages: channels ("num_chs") and stride ("reduction").

    Raises:
        ValueError: timm knows none.
    """
    timm_model = backbone.backbone
    if not hasattr(timm_model, "forward_intermediates"):
        architecture = timm_model.pretrained_cfg["architecture"]
        raise ValueError(f"timm gives no feature maps of {architecture} to detect on")
    return list(timm_model.feature_info)


def feature_maps(backbone: Classifier, image: Tensor, count: int) -> list[Tensor]:
    """The last `count` stages' maps, (N,C,h,w) each, from fine to coarse."""
    return backbone.backbone.forward_intermediates(
        backbone.prepare(image), indices=count, intermediates_only=True
    )
