"""Learning-rate schedules: share of the full rate as a function of training progress."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


class Schedule(ABC):
    """Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(self, epoch: float, epochs: int) -> float:
        """Factor on the learning rate at `epoch`, a fraction of epochs included, of `epochs`."""


@dataclass(frozen=True)
class Steps(Schedule):
    """Multiply by `factor` at each milestone (in epochs), after a linear warm-up.

    The default is ART's on CUB: a tenth at epochs 40, 80, 120 and 160.
    """

    milestones: tuple[float, ...] = (40, 80, 120, 160)
    factor: float = 0.1
    warmup_epochs: float = 0

    def __call__(self, epoch: float, epochs: int) -> float:
        passed = sum(epoch >= milestone for milestone in self.milestones)
        return _warmup(epoch, self.warmup_epochs) * self.factor**passed


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 down to `final`, after a linear warm-up."""

    warmup_epochs: float = 0
    final: float = 0.0

    def __call__(self, epoch: float, epochs: int) -> float:
        if epoch < self.warmup_epochs:
            return _warmup(epoch, self.warmup_epochs)
        progress = (epoch - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-9)
        wave = (1 + math.cos(math.pi * min(progress, 1))) / 2
        return self.final + (1 - self.final) * wave


def _warmup(epoch: float, warmup_epochs: float) -> float:
    return min(1.0, (epoch + 1e-3) / warmup_epochs) if warmup_epochs > 0 else 1.0
