"""What every training objective is."""

from abc import ABC, abstractmethod

from torch import Tensor

from robust_training.model import Classifier


class Objective(ABC):
    """Model, images (N,3,H,W) in [0,1] and labels (N,) -> named, weighted terms; the loss is their
    sum. Subclasses are frozen dataclasses without state."""

    @abstractmethod
    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]: ...
