"""The settings of the training loop."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer

from robust_training.training.schedule import Schedule


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of a training run: `optimizer`, `schedule` and `epochs` are required.

    Attributes:
        optimizer: A function from parameter groups to a torch optimizer, for example
            `functools.partial(torch.optim.AdamW, lr=1e-3)`.
        schedule: Learning rate over time.
        epochs: Passes over the training images. 0 saves the network as it is before training:
            pretrained features with an untrained head.
        seed: Seed of everything random. The same seed gives the same run.
        lr_multipliers: Regular expression on parameter names -> factor on the learning rate of the
            backbone's parameters; the first pattern found in a name counts.
        clip_norm: Largest gradient norm. If None, gradients are not clipped.
        balance: Norm of the gradient of each added term, as a fraction of the norm of the
            cross-entropy's gradient; see `step.Balance`. The weights of the objective then have no
            effect. If None, the objective's weights are used as they are.
        accumulate: Number of batches for one step of the optimizer, by their mean gradient. The
            last step of an epoch uses the remaining batches. BatchNorm uses one batch at a time.
        replays: Steps in a row on each batch. Each step continues the attack of the step before, so
            that single attack steps add up (Shafahi et al., NeurIPS 2019). An epoch keeps its
            number of steps and uses a fraction 1 / replays of its batches.
        channels_last: Use the channels_last memory format, which is faster on GPUs.
        selection: Epoch that becomes best/: "val_accuracy" takes the highest validation accuracy.
            "last" takes the last epoch. Use it if there are too few validation images to compare
            epochs, or if early epochs are accurate but not yet robust.
        save_minutes: Minutes between two checkpoints within an epoch.
        skip_nonfinite: Steps of the run that may be skipped because a term or a gradient was not
            finite. A skipped step does not change weights, optimizer and buffers.
    """

    optimizer: Callable[[Iterable], Optimizer]
    schedule: Schedule
    epochs: int
    seed: int = 0
    lr_multipliers: dict[str, float] | None = None
    clip_norm: float | None = None
    balance: float | None = None
    accumulate: int = 1
    replays: int = 1
    channels_last: bool = False
    selection: Literal["val_accuracy", "last"] = "val_accuracy"
    save_minutes: float = 10.0
    skip_nonfinite: int = 0

    def __post_init__(self) -> None:
        for name in ("accumulate", "replays"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("epochs", "skip_nonfinite", "save_minutes"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, or None, not {self.clip_norm}")
        if self.balance is not None and not self.balance > 0:
            raise ValueError(f"balance must be above 0, or None, not {self.balance}")
        if self.replays > 1 and self.accumulate > 1:
            raise ValueError("replays must be 1 if gradients are accumulated (accumulate > 1)")
        if self.selection not in ("val_accuracy", "last"):
            raise ValueError(f'selection must be "val_accuracy" or "last", not {self.selection!r}')
