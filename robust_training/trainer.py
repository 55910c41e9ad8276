"""The training loop."""

import csv
import io
import itertools
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from tqdm import tqdm

from robust_training.checkpoint import load_checkpoint, save_checkpoint
from robust_training.cpu import prepare_cpu
from robust_training.files import write_text
from robust_training.model import Classifier, save_model
from robust_training.objectives import Objective
from robust_training.schedule import Schedule
from robust_training.step import Batch, Step, second_derivatives

Selection = Literal["val_accuracy", "last"]
OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]


def fit(
    fabric: Fabric,
    model: Classifier,
    objective: Objective,
    train: DataLoader,
    validation: DataLoader,
    output: str | os.PathLike,
    *,
    optimizer: OptimizerFactory,
    schedule: Schedule,
    epochs: int,
    seed: int = 0,
    lr_multipliers: Mapping[str, float] | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    replays: int = 1,
    channels_last: bool = False,
    selection: Selection = "val_accuracy",
    resume: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> list[dict[str, float]]:
    """Train `model`, and keep `output`/{last.ckpt, best/, log.csv, tensorboard/} up to date.

    `best/` is the model that `selection` prefers, the later one of equals. Batches are
    dicts with `image` (N,3,H,W) in [0,1] and `label` (N,). The same seed gives the same run; every
    epoch starts its random generators anew from seed, epoch and process, so a resumed run is the
    uninterrupted one.

    Args:
        train, validation: Loaders; validation never comes from the test set.
        lr_multipliers: Regular expression -> factor on the learning rate of the backbone
            parameters whose name it finds; the first that matches counts.
        clip_norm: Largest gradient norm, or None.
        accumulate: Batches whose mean gradient makes one step of the optimizer; the last step of an
            epoch takes what is left. BatchNorm still sees one batch at a time.
        replays: Steps in a row on each batch, an attack going on where the step before left it, so
            that one attack step each adds up (Shafahi et al., NeurIPS 2019). An epoch keeps its
            number of steps: it takes a share of 1 / replays of the batches.
        selection: Which epoch becomes `best/`: the one with the highest validation accuracy, or the
            "last" one, where validation images are too few to rank epochs, or where accuracy would
            favour the epochs before robustness sets in.
        resume: Continue from output/last.ckpt.
        on_start: Called once everything is checked and loaded and training is about to begin.

    Returns:
        The rows of log.csv: one dict per epoch; lr is the first group's at the epoch's start.

    Raises:
        ValueError: nothing to resume, or a pattern that matches no parameter.
        FloatingPointError: a term is not finite; says which, and where.
    """
    output = Path(output)
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}")
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1 batch, not {accumulate}")
    if replays < 1 or (replays > 1 and accumulate > 1):
        raise ValueError(
            f"replays must be at least 1, and 1 where gradients are accumulated, not {replays}"
        )
    if fabric.device.type == "cpu":
        prepare_cpu()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer_ = optimizer(parameter_groups(model.backbone, lr_multipliers or {}))
    for group in optimizer_.param_groups:
        group["lr"] *= group["multiplier"]
    train = fabric.setup_dataloaders(train)
    per_epoch = len(train)  # of this process's share
    updates = math.ceil(per_epoch / accumulate)
    scheduler = LambdaLR(optimizer_, lambda step: schedule(step / updates, epochs))
    step, optimizer_ = fabric.setup(Step(model, objective), optimizer_)
    validation = fabric.setup_dataloaders(validation, use_distributed_sampler=False)
    state = {
        "step": step,
        "optimizer": optimizer_,
        "scheduler": scheduler,
        "epoch": 0,
        "best": -1.0,
        "log": [],
    }
    if resume:
        load_checkpoint(fabric, output, state)
    first = state["epoch"]
    _set_epoch(scheduler, first, updates)
    train._num_iter_calls = first  # from which Fabric derives a distributed sampler's shuffle
    on_start()
    output.mkdir(parents=True, exist_ok=True)
    writer = None
    if fabric.is_global_zero:
        writer = SummaryWriter(str(output / "tensorboard"), purge_step=first + 1)
    bar = tqdm(
        total=epochs * per_epoch,
        initial=first * per_epoch,
        unit="step",
        disable=not fabric.is_global_zero,
    )
    with bar:
        for epoch in range(first, epochs):
            bar.set_description(f"epoch {epoch + 1}/{epochs}")
            torch.manual_seed((seed * 100_003 + epoch) * 1_009 + fabric.global_rank)
            started = time.perf_counter()
            row = {"epoch": epoch + 1, "lr": optimizer_.param_groups[0]["lr"]}
            terms = _train_epoch(
                fabric,
                step,
                (objective.at(epoch + number / per_epoch) for number in range(per_epoch)),
                train,
                optimizer_,
                scheduler,
                clip_norm,
                accumulate,
                replays,
                bar,
            )
            # not sooner: a new head starts at zero, learning rates and weights warm up
            if fabric.is_global_zero and epoch + 1 == min(epochs, max(3, epochs // 10)):
                for note in _small_terms(terms):
                    bar.write(note)
            row |= terms
            row |= _validate(fabric, model, validation)
            row["seconds"] = time.perf_counter() - started
            state["log"] = [*state["log"], row]
            state["epoch"] = epoch + 1
            is_best = selection == "last" or row["val_accuracy"] >= state["best"]
            if is_best:
                state["best"] = row["val_accuracy"]
            if writer is not None:
                if is_best:
                    save_model(model, output / "best")
                _write_log(output / "log.csv", state["log"])
                for name, value in row.items():
                    writer.add_scalar(name, value, epoch + 1)
                writer.flush()
            save_checkpoint(fabric, output, state)
    if writer is not None:
        writer.close()
    return state["log"]


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


def _set_epoch(scheduler: LambdaLR, epoch: int, updates: int) -> None:
    """Where the schedule stands after `epoch` epochs of so many updates each: another number of
    processes, or of epochs in all, than before changes it."""
    scheduler.last_epoch = epoch * updates
    rates = zip(
        scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
    )
    for group, base, factor in rates:
        group["lr"] = base * factor(scheduler.last_epoch)


def _train_epoch(
    fabric: Fabric,
    step: nn.Module,
    objectives: Iterator[Objective],
    loader: DataLoader,
    optimizer: Optimizer,
    scheduler: LambdaLR,
    clip_norm: float | None,
    accumulate: int,
    replays: int,
    bar: tqdm,
) -> dict[str, float]:
    step.train()
    means: dict[str, MeanMetric] = {}
    for number, batch in enumerate(_replayed(loader, replays)):
        group = min(accumulate, len(loader) - number // accumulate * accumulate)
        is_last = number % accumulate == group - 1
        step.module.objective = next(objectives)
        with fabric.no_backward_sync(step, enabled=not is_last), second_derivatives():
            terms = step(batch)
            values = {name: term.item() for name, term in terms.items()}
            if not all(map(_finite, values.values())):
                raise FloatingPointError(
                    f"the loss is not finite at {bar.desc.strip(': ')}, step {number + 1}: {values}"
                )
            fabric.backward(sum(terms.values()) / group)
        if is_last:
            if clip_norm is not None:
                fabric.clip_gradients(step, optimizer, max_norm=clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        for name, value in values.items():
            means.setdefault(name, MeanMetric().to(fabric.device)).update(value, len(batch.label))
        bar.update()
        bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
    return {name: mean.compute().item() for name, mean in means.items()}


def _small_terms(terms: Mapping[str, float]) -> list[str]:
    total = sum(map(abs, terms.values()))
    return [
        f"note: {name} is {abs(value) / total:.0e} of the loss and trains next to nothing; its "
        "weight may be too small"
        for name, value in terms.items()
        if 0 < abs(value) < 1e-4 * total
    ]


def _replayed(loader: DataLoader, replays: int) -> Iterator[Batch]:
    """As many batches as the loader has, each `replays` times in a row."""
    batches = (Batch(batch["image"], batch["label"]) for batch in loader)
    repeated = (batch for batch in batches for _ in range(replays))
    return itertools.islice(repeated, len(loader))


def _finite(value: float) -> bool:
    return abs(value) < float("inf")


@torch.no_grad()
def _validate(fabric: Fabric, model: Classifier, loader: DataLoader) -> dict[str, float]:
    model.eval()
    accuracy = MulticlassAccuracy(model.backbone.num_classes, average="micro").to(fabric.device)
    loss = MeanMetric().to(fabric.device)
    dtype = next(model.parameters()).dtype
    for batch in loader:
        with fabric.autocast():
            logits = model(batch["image"].to(dtype)).float()
        accuracy.update(logits, batch["label"])
        loss.update(nn.functional.cross_entropy(logits, batch["label"]), len(logits))
    return {"val_accuracy": accuracy.compute().item(), "val_loss": loss.compute().item()}


def _write_log(file: Path, rows: list[dict[str, float]]) -> None:
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(file, text.getvalue())
