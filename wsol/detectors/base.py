"""The interface of detectors: settings, and a network on a classifier's backbone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robust_training.models.classifier import Classifier


@dataclass(frozen=True)
class Detections:
    """Boxes in one image, the most probable first.

    Attributes:
        boxes: (K,4) half-open x0, y0, x1, y1 as fractions of the image's sides, in [0,1].
        labels: int64 (K,), or None if the detector predicts no classes.
        scores: (K,) in [0,1].
    """

    boxes: Tensor
    labels: Tensor | None
    scores: Tensor

    def cpu(self) -> "Detections":
        labels = None if self.labels is None else self.labels.cpu()
        return Detections(self.boxes.cpu(), labels, self.scores.cpu())

    def best_box(self, label: int) -> Tensor:
        """The most probable box (4,) of a class; without one, of all classes; else zeros."""
        boxes, _ = self.of_class(label)
        return boxes[0] if len(boxes) else self.boxes.new_zeros(4)

    def of_class(self, label: int) -> tuple[Tensor, Tensor]:
        """Boxes (K,4) and scores (K,) of a class. Without any, the most probable box of all classes
        with score 0."""
        if self.labels is None:
            return self.boxes, self.scores
        own = self.labels == label
        if own.any():
            return self.boxes[own], self.scores[own]
        return self.boxes[:1], torch.zeros_like(self.scores[:1])


class Network(nn.Module, ABC):
    """Images (N,3,H,W) in [0,1] -> boxes in each.

    Attributes:
        predicts_classes: Whether its boxes have labels.
        settings: The settings of the network.
        backbone: The classifier below the detector's head. The classifier's own head is unused.
        class_names: Class names of the training images, in the order of `Detections.labels`.
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
        """`forward`, then the steps that are too slow for validation after every epoch."""
        return self(image)

    @abstractmethod
    def losses(self, image: Tensor, box: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Named, weighted terms of the loss, which is their sum.

        Args:
            box: (N,4) half-open xyxy as fractions of the image's sides, each with an area.
            label: int64 (N,).
        """

    def distance(self, image: Tensor, box: Tensor, label: Tensor) -> Tensor:
        """The distance (N,) of the predicted boxes to `box`, which an attack increases.

        It takes the arguments of `losses`, in evaluation mode. Here it is the loss of all images
        together, for each image. So the gradient of an image is that of its own loss, up to a
        positive factor.
        """
        total = torch.stack(list(self.losses(image, box, label).values())).sum()
        return total.expand(len(image))


class Detector(ABC):
    """The settings of a kind of detector. Subclasses are frozen dataclasses."""

    @abstractmethod
    def build(self, backbone: Classifier, class_names: list[str]) -> Network:
        """Build a network on `backbone`, with a new head.

        Raises:
            ValueError: the backbone has no feature maps to build on.
        """


def stages(backbone: Classifier) -> list[dict]:
    """timm's description of the backbone's stages: channels ("num_chs"), stride ("reduction").

    Raises:
        ValueError: timm does not describe the stages of this architecture.
    """
    timm_model = backbone.backbone
    if not hasattr(timm_model, "forward_intermediates"):
        raise ValueError(
            f"no detector on {backbone.architecture}: timm gives no feature maps of it"
        )
    return list(timm_model.feature_info)


def corner_scale(image: Tensor) -> Tensor:
    """Factors (4,) from fractions (x0, y0, x1, y1) to pixels of images (N,3,H,W)."""
    return image.new_tensor(image.shape[:1:-1]).repeat(2)


def feature_maps(backbone: Classifier, image: Tensor, count: int) -> list[Tensor]:
    """The feature maps of the last `count` stages, (N,C,h,w) each, from fine to coarse."""
    return backbone.backbone.forward_intermediates(
        backbone.prepare(image), indices=count, intermediates_only=True
    )
