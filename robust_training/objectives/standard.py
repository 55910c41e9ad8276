"""Ordinary training: cross-entropy on the clean images."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robust_training.models.classifier import Classifier
from robust_training.objectives.base import Objective


@dataclass(frozen=True)
class Standard(Objective):
    """Mean cross-entropy on the clean images.

    Attributes:
        label_smoothing: Fraction of the target that is spread evenly over all classes, in [0,1)
            (Szegedy et al., CVPR 2016, arXiv 1512.00567).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing of Standard must lie in [0,1), not {self.label_smoothing}"
            )

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        loss = F.cross_entropy(model(image), label, label_smoothing=self.label_smoothing)
        return {"cross_entropy": loss}
