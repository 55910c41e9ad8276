"""Learning rates: factors over training time, and factors for parts of the network."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import LambdaLR


class Schedule(ABC):
    """A factor on the learning rate as a function of training time. Subclasses are frozen
    dataclasses."""

    @abstractmethod
    def __call__(self, epoch: float, epochs: int) -> float:
        """Return the factor after `epoch` of `epochs` epochs; `epoch` may be fractional."""


@dataclass(frozen=True)
class Steps(Schedule):
    """Multiply by `factor` at each milestone (in epochs), after a linear warm-up.

    The defaults are from ART on CUB: a tenth at epochs 40, 80, 120 and 160.
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


def parameter_groups(backbone: nn.Module, multipliers: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return optimizer groups {params, multiplier}: one with the parameters that no pattern
    matches, then one for each pattern.

    Args:
        multipliers: Regular expression on parameter names -> factor on the learning rate; the first
            pattern found in a name counts.

    Raises:
        ValueError: A pattern matches no parameter.
    """
    groups: dict[str | None, list[nn.Parameter]] = {None: []} | {p: [] for p in multipliers}
    for name, parameter in backbone.named_parameters():
        pattern = next((p for p in multipliers if re.search(p, name)), None)
        groups[pattern].append(parameter)
    unused = [pattern for pattern, parameters in groups.items() if pattern and not parameters]
    if unused:
        raise ValueError(f"lr_multipliers: no parameter's name matches {', '.join(unused)}")
    return [
        {"params": parameters, "multiplier": multipliers[pattern] if pattern else 1.0}
        for pattern, parameters in groups.items()
        if parameters
    ]


def rates(scheduler: LambdaLR, steps: int) -> list[float]:
    """Return each group's learning rate after `steps` steps of the optimizer."""
    factors = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    return [base * factor(steps) for base, factor in factors]


def set_steps(scheduler: LambdaLR, steps: int) -> None:
    """Set the learning rates that apply after `steps` steps of the optimizer. A resumed run may
    have another number of processes or epochs than before, so steps are not simply counted."""
    scheduler.last_epoch = steps
    for group, rate in zip(scheduler.optimizer.param_groups, rates(scheduler, steps), strict=True):
        group["lr"] = rate
