"""What every training objective is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from robust_training.model import Classifier


@dataclass
class Carried:
    """What an attack leaves for the next step on the same batch; empty before the first.

    Attributes:
        perturbed: (N,3,H,W) where the attack ended, and the next one starts.
        support: (N,K) pixels that ART's attack compares.
    """

    perturbed: Tensor | None = None
    support: Tensor | None = None


class Objective(ABC):
    """Model, images (N,3,H,W) in [0,1] and labels (N,) -> named, weighted terms; the loss is their
    sum. Subclasses are frozen dataclasses without state."""

    @abstractmethod
    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]: ...

    def carry_on(
        self, model: Classifier, image: Tensor, label: Tensor, carried: Carried
    ) -> dict[str, Tensor]:
        """The same, for objectives whose attack can go on from the step before: it finds in
        `carried` where that ended, and leaves there where it ends itself."""
        return self(model, image, label)
