"""The interface of training objectives."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from robust_training.attacks.base import Attack
from robust_training.autograd.batch_norm import BatchNormMode, attack_mode
from robust_training.autograd.curvature import Score
from robust_training.models.classifier import Classifier

Reduction = Literal["mean", "sum"]


@dataclass
class AttackState:
    """State of an attack, for the next step on the same batch. Empty before the first step.

    Attributes:
        perturbed: (N,3,H,W), the last images of the attack. The next attack starts at them.
        support: (N,K), the pixels that ART's attack compares.
        parts: One state for each part of a `Sum`.
    """

    perturbed: Tensor | None = None
    support: Tensor | None = None
    parts: list["AttackState"] = field(default_factory=list)


class Objective(ABC):
    """Model, images (N,3,H,W) in [0,1] and labels (N,) -> named, weighted terms.

    The loss is the sum of the terms. Subclasses are frozen dataclasses without state.
    """

    @abstractmethod
    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]: ...

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        """Return the terms. If the objective has an attack, it continues the attack of the step
        before: it starts at the images in `state`, and stores its last images there.
        """
        return self(model, image, label)

    def untrained_terms(self) -> dict[str, float]:
        """Return the values of terms for an untrained network, as far as they are known."""
        return {}

    def at(self, epoch: float) -> "Objective":
        """Return the objective after `epoch` epochs, if it changes over time."""
        return self


class AttackingObjective(Objective):
    """An objective that trains on attacked images. Subclasses have these two fields.

    Attributes:
        attack: Increases the score of the method's inner maximisation.
        attack_batch_norm: Mode of BatchNorm during the attack.
    """

    attack: Attack
    attack_batch_norm: BatchNormMode

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        return self.forward_with_state(model, image, label, AttackState())

    @abstractmethod
    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]: ...

    def perturb(self, model: Classifier, score: Score, image: Tensor, state: AttackState) -> Tensor:
        """Return the attacked images (N,3,H,W), starting from `state`."""
        with attack_mode(model, self.attack_batch_norm):
            state.perturbed = self.attack(score, image, state.perturbed)
        return state.perturbed

    def check_attack(self, *, random_start: bool = False) -> None:
        """Raise ValueError if the attack has no steps, or no random start and needs one."""
        name = type(self).__name__
        if self.attack.steps < 1:
            raise ValueError(f"attack.steps of {name} must be at least 1, not {self.attack.steps}")
        if random_start and not self.attack.random_start:
            raise ValueError(
                f"attack.random_start of {name} must be true: the score of its attack has no "
                "gradient at the image itself"
            )


def check_at_least(minimum: float, objective: Objective, *names: str) -> None:
    """Raise ValueError unless these fields of `objective` are `minimum` or more."""
    for name in names:
        value = getattr(objective, name)
        if not value >= minimum:
            owner = type(objective).__name__
            raise ValueError(f"{name} of {owner} must be {minimum:g} or more, not {value}")


def check_positive(objective: Objective, *names: str) -> None:
    """Raise ValueError unless these fields of `objective` are positive."""
    for name in names:
        value = getattr(objective, name)
        if not value > 0:
            raise ValueError(f"{name} of {type(objective).__name__} must be positive, not {value}")


def check_choice(objective: Objective, name: str, choices: Collection[str]) -> None:
    """Raise ValueError unless this field of `objective` is one of `choices`."""
    value = getattr(objective, name)
    if value not in choices:
        owner = type(objective).__name__
        raise ValueError(f"{name} of {owner} must be one of {list(choices)}, not {value!r}")


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """Reduce one number per image (N,) to one number for the batch."""
    return values.sum() if reduction == "sum" else values.mean()
