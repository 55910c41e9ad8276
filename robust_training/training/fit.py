"""The training loop."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from robust_training.devices import prepare_device
from robust_training.models.classifier import Classifier
from robust_training.models.saving import save_model
from robust_training.objectives import Objective
from robust_training.progress import Progress
from robust_training.training import sanity_checks
from robust_training.training.batches import batches_per_process, load_epoch, seed_of
from robust_training.training.checkpoint import EpochProgress, load_checkpoint, read_progress
from robust_training.training.interrupts import Interrupts
from robust_training.training.log import Row, write_log
from robust_training.training.nan_guard import MicroBatch, NanGuard
from robust_training.training.processes import write_once
from robust_training.training.schedule import parameter_groups, rates, set_steps
from robust_training.training.settings import TrainingSettings
from robust_training.training.step import Balance, Batch, Step, second_derivatives_explained
from robust_training.training.validation import BEFORE, has_start_values, start_values, validate

_BALANCE_EVERY = 10  # steps between two measurements of the terms' gradients


def fit(
    model: Classifier,
    objective: Objective,
    train: DataLoader,
    validation: DataLoader,
    output: str | os.PathLike,
    settings: TrainingSettings,
    *,
    fabric: Fabric | None = None,
    resume: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Train `model`, and keep `output`/{last.ckpt, best/, log.csv, tensorboard/} up to date.

    `settings.selection` determines the epoch in `best/`. If epochs are equal, the later one is
    kept. The same seed gives the same run: generators are seeded for every image and every step,
    from seed, epoch and place in the epoch. So a resumed run equals the uninterrupted run.

    Args:
        train, validation: DataLoaders that support `len()`. Their batches are dicts with `image`
            (N,3,H,W) in [0,1] and `label` (N,). The validation images must not come from the test
            set. If the data set has a method `name(index)`, messages use the names that it returns.
            Make the training loader with `batch_sampler=SeededBatches(...)`. Then a run resumes
            within an epoch at once, and the number of loader processes may change. With any other
            loader, a resumed run loads the epoch's earlier images again and drops them. Random
            draws then depend on the number of loader processes. With several training processes,
            every process then loads all batches.
            A loader's processes end with each epoch. With `persistent_workers` they go on: the
            caller must stop them, and they receive Ctrl-C.
        fabric: Devices, precision, processes, and further loggers, which receive each row of
            log.csv; the best single device by default.
        resume: Continue from output/last.ckpt.
        on_start: Called once, after all checks and loading, before training.

    Returns:
        The rows of log.csv, one dict for each epoch; `lr` is the first parameter group's learning
        rate at the epoch's start.

    Raises:
        ValueError: There is nothing to resume, or a pattern of lr_multipliers matches no parameter.
        FloatingPointError: A term or a gradient is not finite. The message names the term, the step
            and the file with the saved batch.
        OSError: The run cannot be written, for example to a full disk.
        Stopped: Ctrl-C or SIGTERM was received, and the run is saved.
    """
    fabric = fabric or Fabric(devices=1)
    output, epochs = Path(output), settings.epochs
    prepare_device(fabric.device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = settings.optimizer(parameter_groups(model.backbone, settings.lr_multipliers or {}))
    for group in optimizer.param_groups:
        group["lr"] *= group["multiplier"]
    batches_in_epoch = batches_per_process(train, fabric.world_size)
    steps = math.ceil(batches_in_epoch / settings.accumulate)
    scheduler = LambdaLR(optimizer, lambda step: settings.schedule(step / steps, epochs))
    step, optimizer = fabric.setup(Step(model, objective), optimizer)
    state = {
        "step": step,
        "optimizer": optimizer,
        "precision": fabric.strategy.precision,
        "epoch": 0,
        "progress": {},
        "best": -1.0,
        "log": [],
    } | ({} if settings.balance is None else {"balance": {}})
    if resume:
        load_checkpoint(fabric, output, state)
    progress = read_progress(fabric, state["progress"], len(train))
    on_start()
    output.mkdir(parents=True, exist_ok=True)
    # the process may have been killed after the checkpoint and before the log was written
    if state["log"]:
        write_once(fabric, partial(write_log, output, state["log"]))
    bar = Progress(
        total=epochs * batches_in_epoch,
        initial=state["epoch"] * batches_in_epoch + progress.batches // fabric.world_size,
        unit="batch",
        disable=not fabric.is_global_zero,
    )
    guard = NanGuard(
        fabric,
        model,
        output,
        epochs=epochs,
        allowed=settings.skip_nonfinite,
        skipped=progress.skipped + int(sum(row.get("skipped", 0) for row in state["log"])),
        note=lambda line: bar.write(f"note: {line}"),
    )
    with bar, Interrupts(fabric, output, state, settings.save_minutes) as interrupts:
        balance = Balance(settings.balance, state.get("balance", {}))
        loop = _Loop(
            fabric, step, optimizer, scheduler, train, settings, balance, guard, interrupts, bar
        )

        def measure(number: int) -> Row:
            return validate(
                fabric,
                model,
                objective.at(number),
                load_epoch(validation, settings.seed, max(number - 1, 0), "validation"),
                len(validation),
                partial(interrupts.check, progress),
            )

        def end_epoch(number: int, row: Row) -> None:
            """Validate, save the model if it is the best, save the run, and log the row."""
            nonlocal progress
            started = time.perf_counter()
            loop.validation_terms = measure(number)
            row |= loop.validation_terms | progress.before
            for column, value in state["log"][0].items() if state["log"] else ():
                if column.endswith(BEFORE):
                    row[column] = value
            row["seconds"] = progress.seconds + time.perf_counter() - started
            if settings.selection == "last" or row["val_accuracy"] >= state["best"]:
                state["best"] = row["val_accuracy"]
                write_once(fabric, partial(save_model, model, output / "best"))
            progress = EpochProgress(of=len(train))
            state.update(epoch=number, log=[*state["log"], row], progress={})
            interrupts.save(progress)
            # the log is written last: a row means that the epoch is complete
            write_once(fabric, partial(write_log, output, state["log"]))
            fabric.log_dict(row, step=number)

        if epochs == 0:
            state["log"] = []  # of the same run, which was resumed
            end_epoch(0, {"epoch": 0, "lr": 0.0})
        elif has_start_values(objective.at(0)) and state["epoch"] == progress.batches == 0:
            progress.before = start_values(measure(0))
        for epoch in range(state["epoch"], epochs):
            bar.set_description(f"epoch {epoch + 1}/{epochs}")
            row = {"epoch": epoch + 1, "lr": rates(scheduler, epoch * steps)[0]}
            last_batch = loop.train_epoch(epoch, progress)
            terms, now = progress.means(fabric), objective.at(epoch + 1)
            if fabric.is_global_zero and sanity_checks.is_due(epoch, epochs):
                found = sanity_checks.check_terms(terms, state["log"], objective, epoch)
                if last_batch is not None:
                    with fabric.autocast():
                        found += sanity_checks.check_network(model, now, last_batch)
                for line in found:
                    bar.write(f"note: {line}")
            row |= terms | {f"{name}_factor": f for name, f in balance.factors().items()}
            if settings.skip_nonfinite:
                row["skipped"] = progress.skipped
            end_epoch(epoch + 1, row)
    return state["log"]


@dataclass
class _Loop:
    """Runs epochs and steps; `fabric.setup` returned `step` and `optimizer`."""

    fabric: Fabric
    step: nn.Module
    optimizer: Optimizer
    scheduler: LambdaLR
    loader: DataLoader
    settings: TrainingSettings
    balance: Balance
    guard: NanGuard
    interrupts: Interrupts
    bar: Progress
    validation_terms: dict[str, float] = field(default_factory=dict)  # shown in the bar

    def train_epoch(self, epoch: int, progress: EpochProgress) -> Batch | None:
        """Train the rest of the epoch after `progress`, and update `progress`. Return the last
        batch, or None if the epoch was already complete."""
        world, settings = self.fabric.world_size, self.settings
        accumulate, replays = settings.accumulate, settings.replays
        self.step.train()
        started = time.perf_counter() - progress.seconds
        batches_in_epoch = batches_per_process(self.loader, world)
        first = min(progress.batches // world, batches_in_epoch)
        if first < batches_in_epoch:
            # with another number of processes than before, `first` may lie within a step
            first -= first % (accumulate * replays)
        steps = math.ceil(batches_in_epoch / accumulate)
        set_steps(self.scheduler, epoch * steps + math.ceil(first / accumulate))
        last_batch = None
        with closing(self._micro_batches(epoch, first, batches_in_epoch)) as micro_batches:
            for begin in range(first, batches_in_epoch, accumulate):
                end = min(begin + accumulate, batches_in_epoch)
                last_batch = self._take_step(micro_batches, epoch, begin, end, progress)
                progress.batches = end * world
                progress.seconds = time.perf_counter() - started
                self.bar.update(end - begin)
                if end % replays == 0 or end == batches_in_epoch:
                    self.interrupts.check(progress)
        return last_batch

    def _micro_batches(self, epoch: int, first: int, batches_in_epoch: int) -> Iterator[MicroBatch]:
        """Yield this process's micro-batches, starting with number `first`. Each batch of the
        loader is yielded `replays` times in a row."""
        fabric, seed, replays = self.fabric, self.settings.seed, self.settings.replays
        rank, world = fabric.global_rank, fabric.world_size
        loaded = load_epoch(
            self.loader, seed, epoch, first=first // replays, rank=rank, world=world
        )
        with closing(loaded):
            for number in range(first, batches_in_epoch):
                if number == first or number % replays == 0:
                    items, names = next(loaded)
                    items = fabric.to_device(items)
                    batch = Batch(items["image"], items["label"])
                step_seed = seed_of(seed, epoch, "step", number * world + rank)
                yield MicroBatch(batch, names, step_seed, epoch + number / batches_in_epoch)

    def _take_step(
        self,
        micro_batches: Iterator[MicroBatch],
        epoch: int,
        begin: int,
        end: int,
        progress: EpochProgress,
    ) -> Batch:
        """Take one step of the optimizer with the mean gradient of the micro-batches from number
        `begin` to `end` (exclusive). Skip the step if a term or the gradient is not finite. Return
        the last batch."""
        self.guard.before_step()
        taken: list[MicroBatch] = []
        terms: list[dict[str, Tensor]] = []
        for number in range(begin, end):
            taken.append(next(micro_batches))
            torch.manual_seed(taken[-1].seed)
            is_last = number + 1 == end
            with (
                self.fabric.no_backward_sync(self.step, enabled=not is_last),
                second_derivatives_explained(),
            ):
                found = self.step(taken[-1].batch, taken[-1].epoch)
                if number == begin and (begin // self.settings.accumulate) % _BALANCE_EVERY == 0:
                    self.balance.measure(self.fabric, found, self._parameters())
                self.fabric.backward(self.balance.loss(found) / (end - begin))
            terms.append({name: term.detach() for name, term in found.items()})
        # a gradient scaler (fp16) detects overflow and skips steps itself
        is_scaled = getattr(self.fabric.strategy.precision, "scaler", None) is not None
        norm = None if is_scaled else self._clip()
        if self.guard.accepts(taken, terms, norm, epoch=epoch + 1, step=begin + 1):
            if is_scaled:
                self._clip()
            self.optimizer.step()
            for each in taken:
                progress.add(each.terms, len(each.batch.label))
        else:
            progress.skipped += 1
        self.optimizer.zero_grad()
        set_steps(self.scheduler, self.scheduler.last_epoch + 1)
        shown = {name: f"{value:.3f}" for name, value in taken[-1].terms.items()}
        shown |= {name: f"{value:.3f}" for name, value in self.validation_terms.items()}
        self.bar.set_postfix(shown, refresh=False)
        return taken[-1].batch

    def _parameters(self) -> list[nn.Parameter]:
        return [each for each in self.step.parameters() if each.requires_grad]

    def _clip(self) -> Tensor:
        """Clip the gradient if `clip_norm` is set. Return the norm before clipping."""
        if self.settings.clip_norm is None:
            gradients = [p.grad for p in self.step.parameters() if p.grad is not None]
            return nn.utils.get_total_norm(gradients)
        return self.fabric.clip_gradients(
            self.step, self.optimizer, max_norm=self.settings.clip_norm, error_if_nonfinite=False
        )
