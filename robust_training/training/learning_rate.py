"""Learning rates: of which parameters, and when."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(backbone: nn.Module, multipliers: Mapping[str, float]) -> list[dict[str, Any]]:
    """Optimizer groups {params, multiplier}: one per pattern, and one with the rest first."""
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
    """Each group's after so many steps of the optimizer."""
    factors = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    return [base * factor(steps) for base, factor in factors]


def set_steps(scheduler: LambdaLR, steps: int) -> None:
    """Let the schedule stand where it does after so many steps: another number of processes, or of
    epochs in all, than before changes it."""
    scheduler.last_epoch = steps
    for group, rate in zip(scheduler.optimizer.param_groups, rates(scheduler, steps), strict=True):
        group["lr"] = rate
