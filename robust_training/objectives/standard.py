"""Ordinary training: cross-entropy on the images as they are."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robust_training.models.classifier import Classifier
from robust_training.objectives.base import Objective


@dataclass(frozen=True)
class Standard(Objective):
    """Mean cross-entropy on the clean images."""

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(model(image), label)}
