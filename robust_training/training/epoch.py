"""One epoch of training."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from robust_training.objectives import Objective
from robust_training.training.batches import EpochBatches, seed_of, share
from robust_training.training.learning_rate import set_steps
from robust_training.training.nan_guard import (
    Attempt,
    Buffers,
    attempt,
    gradient_norm,
    save_attempts,
)
from robust_training.training.processes import in_any, totals
from robust_training.training.step import Batch, second_derivatives


@dataclass
class Progress:
    """How far an epoch has come.

    Attributes:
        batches: Done, of all processes together.
        of: Batches that the loader has, whatever the number of processes.
        sums: Name of a term -> [its sum over images, images], in this process.
        skipped: Steps left out in this epoch because something was not finite.
        seconds: Spent on it.
    """

    batches: int = 0
    of: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)
    skipped: int = 0
    seconds: float = 0.0

    def means(self, fabric: Fabric) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.total(fabric).items()}

    def total(self, fabric: Fabric) -> dict[str, list[float]]:
        """`sums` of all processes together."""
        numbers = totals(fabric, [number for pair in self.sums.values() for number in pair])
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return {name: list(pair) for name, pair in zip(self.sums, pairs, strict=True)}


@dataclass
class Training:
    """What steps have in common; `train_epoch` makes an epoch of them.

    Attributes:
        step: As Fabric wrapped it, and its optimizer.
        pause: Called between two steps, where a run can be saved or stopped.
    """

    fabric: Fabric
    step: nn.Module
    objective: Objective
    loader: DataLoader
    optimizer: Optimizer
    scheduler: LambdaLR
    output: Path
    epochs: int
    seed: int
    clip_norm: float | None
    accumulate: int
    replays: int
    skip_nonfinite: int
    pause: Callable[[Progress], None]
    bar: tqdm

    def __post_init__(self) -> None:
        self.model = self.step.module.model
        self.buffers = Buffers(self.model)
        self.per_epoch = share(self.loader, self.fabric.world_size)
        self.skipped = 0  # in epochs before this one
        self.last: Batch | None = None

    def train_epoch(self, epoch: int, progress: Progress) -> None:
        """Train from where `progress` stands to the epoch's end, and keep it up to date.

        Raises:
            FloatingPointError: a term or a gradient is not finite, once too often; says which, and
                where, and keeps the batch.
        """
        self.step.train()
        fabric, unit = self.fabric, self.accumulate * self.replays
        started = time.perf_counter() - progress.seconds
        first = min(progress.batches // fabric.world_size, self.per_epoch)
        if first < self.per_epoch:
            first -= first % unit  # another number of processes may have stopped within a step
        updates = [math.ceil(number / self.accumulate) for number in (self.per_epoch, first)]
        set_steps(self.scheduler, epoch * updates[0] + updates[1])
        batches = EpochBatches(
            self.loader, self.seed, epoch, rank=fabric.global_rank, world=fabric.world_size
        )
        stream = self._stream(batches, epoch, first)
        for begin in range(first, self.per_epoch, self.accumulate):
            end = min(begin + self.accumulate, self.per_epoch)
            self._update(stream, epoch, begin, end, progress)
            progress.batches = end * fabric.world_size
            progress.seconds = time.perf_counter() - started
            self.bar.update(end - begin)
            if end % self.replays == 0 or end == self.per_epoch:
                self.pause(progress)

    def _stream(self, batches: EpochBatches, epoch: int, first: int) -> Iterator[Attempt]:
        """What each step from `first` on is to compute: every batch `replays` times in a row."""
        name = getattr(self.loader.dataset, "name", str)
        loaded = batches.starting_at(first // self.replays)
        for number in range(first, self.per_epoch):
            index = number // self.replays
            if number == first or number % self.replays == 0:
                items = self.fabric.to_device(next(loaded))
                batch = Batch(items["image"], items["label"])
                names = [name(i) for i in batches.indices(index)]
            place = number * self.fabric.world_size + self.fabric.global_rank
            seed = seed_of(self.seed, epoch, "step", place)
            yield attempt(batch, names, seed, epoch + number / self.per_epoch)

    def _update(
        self, stream: Iterator[Attempt], epoch: int, begin: int, end: int, progress: Progress
    ) -> None:
        """One step of the optimizer, from batches `begin` to `end`; none if one is not finite."""
        self.buffers.keep()
        tried: list[Attempt] = []
        failed: list[Attempt] | None = None
        for number in range(begin, end):
            current = next(stream)
            if failed is None:
                tried.append(current)
                if not self._accumulate(current, number + 1 == end, end - begin):
                    failed = [] if current.finite() else [current]
        if failed is None and not self._gradients_are_finite():
            failed = tried
        if failed is None:
            self.optimizer.step()
            self._count(tried, progress)
        else:
            self.buffers.restore()
            progress.skipped += 1
            self._report(failed, epoch + 1, begin + 1, progress)
        self.optimizer.zero_grad()
        set_steps(self.scheduler, self.scheduler.last_epoch + 1)
        self.last = tried[-1].batch

    def _accumulate(self, current: Attempt, is_last: bool, size: int) -> bool:
        """Add the gradients of a batch to those of its step; False, and none are added, if a term
        is not finite in any process."""
        torch.manual_seed(current.seed)
        self.step.module.objective = self.objective.at(current.progress)
        with (
            self.fabric.no_backward_sync(self.step, enabled=not is_last),
            second_derivatives(),
        ):
            terms = self.step(current.batch)
            current.terms = {name: term.item() for name, term in terms.items()}
            (is_bad,) = in_any(self.fabric, not current.finite())
            if not is_bad:
                self.fabric.backward(sum(terms.values()) / size)
        self.bar.set_postfix({k: f"{v:.3f}" for k, v in current.terms.items()}, refresh=False)
        return not is_bad

    def _gradients_are_finite(self) -> bool:
        """After clipping them; the same in all processes."""
        if self.clip_norm is None:
            norm = gradient_norm(list(self.step.parameters()))
        else:
            norm = self.fabric.clip_gradients(
                self.step, self.optimizer, max_norm=self.clip_norm, error_if_nonfinite=False
            )
        # a scaler of 16-bit gradients looks for their overflow, and skips steps, by itself
        scaled = getattr(self.fabric.strategy.precision, "scaler", None) is not None
        return scaled or math.isfinite(norm.item())

    def _count(self, tried: list[Attempt], progress: Progress) -> None:
        for each in tried:
            count = len(each.batch.label)
            for name, value in each.terms.items():
                pair = progress.sums.setdefault(name, [0.0, 0])
                pair[0] += value * count
                pair[1] += count

    def _report(self, failed: list[Attempt], epoch: int, step: int, progress: Progress) -> None:
        """Keep the batches that failed in this process; raise, or say that the step is skipped."""
        fabric = self.fabric
        rank = f"-process{fabric.global_rank}" if fabric.world_size > 1 else ""
        file = self.output / f"nonfinite-epoch{epoch}-step{step}{rank}.pt"
        line = f"not finite at epoch {epoch}/{self.epochs}, step {step}"
        if failed:
            what = "a gradient is" if all(each.finite() for each in failed) else "the loss is"
            names = [name for each in failed for name in each.names]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            terms = ", then ".join(str(each.terms) for each in failed)
            line = f"{what} {line}: {terms} of images {', '.join(names[:3])}{more}"
            try:
                save_attempts(file, self.model, failed)
                line += f"; --replay {file} computes them again"
            except OSError as error:
                line += f"; {error}"
        if self.skipped + progress.skipped > self.skip_nonfinite:
            raise FloatingPointError(line)
        if failed:
            self.bar.write(f"note: a step is skipped: {line}")
