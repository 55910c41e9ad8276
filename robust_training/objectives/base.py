"""What every training objective is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from robust_training.attacks.pgd import PGD
from robust_training.autograd.batch_norm import BatchNormMode, under_attack
from robust_training.autograd.curvature import Score
from robust_training.models.classifier import Classifier

Reduction = Literal["mean", "sum"]


@dataclass
class AttackState:
    """What an attack leaves for the next step on the same batch; empty before the first.

    Attributes:
        perturbed: (N,3,H,W) where the attack ended, and the next one starts.
        support: (N,K) pixels that ART's attack compares.
        parts: The same for each part of a `Sum`.
    """

    perturbed: Tensor | None = None
    support: Tensor | None = None
    parts: list["AttackState"] = field(default_factory=list)


class Objective(ABC):
    """Model, images (N,3,H,W) in [0,1] and labels (N,) -> named, weighted terms; the loss is their
    sum. Subclasses are frozen dataclasses without state."""

    @abstractmethod
    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]: ...

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        """The same, for objectives whose attack can go on from the step before: it finds in
        `state` where that ended, and leaves there where it ends itself."""
        return self(model, image, label)

    def at(self, epoch: float) -> "Objective":
        """The objective as it stands after so many epochs, for those that change over time."""
        return self


class AttackingObjective(Objective):
    """An objective that trains on attacked images; subclasses have these two fields.

    Attributes:
        attack: Climbs what the method's inner maximisation says.
        attack_batch_norm: BatchNorm during the attack.
    """

    attack: PGD
    attack_batch_norm: BatchNormMode

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        return self.forward_with_state(model, image, label, AttackState())

    @abstractmethod
    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]: ...

    def perturb(self, model: Classifier, score: Score, image: Tensor, state: AttackState) -> Tensor:
        """The attacked images (N,3,H,W), from where `state` stands."""
        with under_attack(model, self.attack_batch_norm):
            state.perturbed = self.attack(score, image, state.perturbed)
        return state.perturbed

    def require_attack(self, *, random_start: bool = False) -> None:
        """ValueError unless the attack takes steps, from a random start where a score needs one."""
        name = type(self).__name__
        if self.attack.steps < 1:
            raise ValueError(f"attack.steps of {name} must be at least 1, not {self.attack.steps}")
        if random_start and not self.attack.random_start:
            raise ValueError(
                f"attack.random_start of {name} must be true: at the image itself what its attack "
                "climbs has no slope"
            )


def require(objective: Objective, *names: str, above: float = -1, least: float = 0) -> None:
    """ValueError unless these fields of `objective` are at least `least` and above `above`."""
    for name in names:
        value = getattr(objective, name)
        if not (value >= least and value > above):
            bound = "positive" if above == 0 else f"{least:g} or more"
            raise ValueError(f"{name} of {type(objective).__name__} must be {bound}, not {value}")


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """One number for a batch from one per image (N,)."""
    return values.sum() if reduction == "sum" else values.mean()
