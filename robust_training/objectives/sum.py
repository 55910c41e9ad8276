"""Several objectives together, each with a weight and a warm-up."""

from collections import Counter
from dataclasses import dataclass, replace

from torch import Tensor

from robust_training.models.classifier import Classifier
from robust_training.objectives.base import AttackState, Objective


@dataclass(frozen=True)
class Part:
    """A part of a `Sum`.

    Attributes:
        objective: Any objective.
        weight: Weight of all its terms.
        warmup_epochs: Number of epochs in which the weight increases linearly from 0.
    """

    objective: Objective
    weight: float = 1.0
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and self.warmup_epochs >= 0):
            raise ValueError(
                "weight and warmup_epochs of a Part must be 0 or more, not "
                f"{self.weight} and {self.warmup_epochs}"
            )

    def at(self, epoch: float) -> "Part":
        fraction = min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs else 1.0
        return Part(self.objective.at(epoch), fraction * self.weight)


@dataclass(frozen=True)
class Sum(Objective):
    """The weighted terms of all parts, named `<objective>.<term>`.

    A number follows the objective's name if two parts have the same class. With `Standard` and a
    part with a warm-up, training is ordinary at first, and the part's weight increases.
    """

    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts of Sum must name at least one objective")

    def __call__(self, model: Classifier, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        return self.forward_with_state(model, image, label, AttackState())

    def forward_with_state(
        self, model: Classifier, image: Tensor, label: Tensor, state: AttackState
    ) -> dict[str, Tensor]:
        if not state.parts:
            state.parts = [AttackState() for _ in self.parts]
        terms = {}
        for name, part, own in zip(self._names(), self.parts, state.parts, strict=True):
            found = part.objective.forward_with_state(model, image, label, own)
            terms |= {f"{name}.{term}": part.weight * value for term, value in found.items()}
        return terms

    def untrained_terms(self) -> dict[str, float]:
        return {
            f"{name}.{term}": part.weight * value
            for name, part in zip(self._names(), self.parts, strict=True)
            for term, value in part.objective.untrained_terms().items()
        }

    def at(self, epoch: float) -> "Sum":
        return replace(self, parts=tuple(part.at(epoch) for part in self.parts))

    def _names(self) -> list[str]:
        kinds = [type(part.objective).__name__ for part in self.parts]
        totals, seen = Counter(kinds), Counter()
        names = []
        for kind in kinds:
            seen[kind] += 1
            names.append(f"{kind}{seen[kind]}" if totals[kind] > 1 else kind)
        return names
