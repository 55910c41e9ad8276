"""The training loop."""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from tqdm import tqdm

from robust_training.models.classifier import Classifier, save_model
from robust_training.objectives import Objective
from robust_training.training import sanity_checks as symptoms
from robust_training.training.batches import EpochBatches, share
from robust_training.training.checkpoint import load_checkpoint
from robust_training.training.cpu import prepare_cpu
from robust_training.training.epoch import Progress, Training
from robust_training.training.interrupts import Pauses, continued
from robust_training.training.learning_rate import parameter_groups, rates
from robust_training.training.log import Row, write_log
from robust_training.training.processes import write_once
from robust_training.training.schedule import Schedule
from robust_training.training.step import Step

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
    save_minutes: float = 10.0,
    skip_nonfinite: int = 0,
    resume: bool = False,
    on_start: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Train `model`, and keep `output`/{last.ckpt, best/, log.csv, tensorboard/} up to date.

    `best/` is the model that `selection` prefers, the later one of equals. Batches are
    dicts with `image` (N,3,H,W) in [0,1] and `label` (N,). The same seed gives the same run,
    whatever the number of loader processes: generators start anew with every image and every step,
    from seed, epoch and place in the epoch, so a run resumed anywhere is the uninterrupted one.

    Args:
        train, validation: Loaders of data sets with a length; validation never comes from the test
            set. A data set with a method `name(index)` has its images called by that.
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
        save_minutes: How often last.ckpt is written within an epoch.
        skip_nonfinite: Steps of the run that may be left out because a term or a gradient was not
            finite; they leave weights, optimizer and buffers as they were.
        resume: Continue from output/last.ckpt.
        on_start: Called once everything is checked and loaded and training is about to begin.

    Returns:
        The rows of log.csv: one dict per epoch; lr is the first group's at the epoch's start.

    Raises:
        ValueError: nothing to resume, or a pattern that matches no parameter.
        FloatingPointError: a term or a gradient is not finite; says which, where, and what keeps
            the batch.
        OSError: the run cannot be written, the disk being full, say.
        Stopped: Ctrl-C or SIGTERM came, and the run is saved.
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
    if skip_nonfinite < 0 or not save_minutes >= 0:
        raise ValueError(
            f"skip_nonfinite and save_minutes must be 0 or more, not {skip_nonfinite} and "
            f"{save_minutes}"
        )
    if fabric.device.type == "cpu":
        prepare_cpu()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer_ = optimizer(parameter_groups(model.backbone, lr_multipliers or {}))
    for group in optimizer_.param_groups:
        group["lr"] *= group["multiplier"]
    per_epoch = share(train, fabric.world_size)
    updates = math.ceil(per_epoch / accumulate)
    scheduler = LambdaLR(optimizer_, lambda step: schedule(step / updates, epochs))
    step, optimizer_ = fabric.setup(Step(model, objective), optimizer_)
    state = {
        "step": step,
        "optimizer": optimizer_,
        "precision": fabric.strategy.precision,
        "epoch": 0,
        "progress": {},
        "best": -1.0,
        "log": [],
    }
    if resume:
        load_checkpoint(fabric, output, state)
    progress = continued(fabric, state["progress"], len(train))
    first = state["epoch"]
    begun = min(progress.batches // fabric.world_size, per_epoch)
    on_start()
    output.mkdir(parents=True, exist_ok=True)
    if state["log"]:  # a kill may have come between the checkpoint and the log
        write_once(fabric, partial(write_log, output, state["log"]))
    bar = tqdm(
        total=epochs * per_epoch,
        initial=first * per_epoch + begun,
        unit="step",
        disable=not fabric.is_global_zero,
    )
    with bar, Pauses(fabric, output, state, save_minutes) as pauses:
        training = Training(
            fabric=fabric,
            step=step,
            objective=objective,
            loader=train,
            optimizer=optimizer_,
            scheduler=scheduler,
            output=output,
            epochs=epochs,
            seed=seed,
            clip_norm=clip_norm,
            accumulate=accumulate,
            replays=replays,
            skip_nonfinite=skip_nonfinite,
            pause=pauses,
            bar=bar,
        )
        for epoch in range(first, epochs):
            bar.set_description(f"epoch {epoch + 1}/{epochs}")
            row = {"epoch": epoch + 1, "lr": rates(scheduler, epoch * updates)[0]}
            training.skipped = int(sum(row.get("skipped", 0) for row in state["log"]))
            training.train_epoch(epoch, progress)
            terms = progress.means(fabric)
            # not sooner: a new head starts at zero, learning rates and weights warm up
            if fabric.is_global_zero and epoch + 1 == min(epochs, max(3, epochs // 10)):
                found = symptoms.notes(terms, state["log"], objective, epoch)
                if training.last is not None:
                    with fabric.autocast():
                        found += symptoms.examine(model, objective.at(epoch + 1), training.last)
                for note in found:
                    bar.write(f"note: {note}")
            row |= terms
            if skip_nonfinite:
                row["skipped"] = progress.skipped
            started = time.perf_counter()
            batches = EpochBatches(validation, seed, epoch, "validation").starting_at(0)
            row |= _validate(fabric, model, batches, partial(pauses, progress))
            row["seconds"] = progress.seconds + time.perf_counter() - started
            is_best = selection == "last" or row["val_accuracy"] >= state["best"]
            if is_best:
                state["best"] = row["val_accuracy"]
                write_once(fabric, partial(save_model, model, output / "best"))
            progress = Progress(of=len(train))
            state |= {"epoch": epoch + 1, "log": [*state["log"], row], "progress": {}}
            pauses.save(progress)
            # last, for it says that the epoch is over
            write_once(fabric, partial(write_log, output, state["log"]))
    return state["log"]


@torch.no_grad()
def _validate(
    fabric: Fabric, model: Classifier, batches: Iterable, pause: Callable[[], None]
) -> dict[str, float]:
    model.eval()
    accuracy = MulticlassAccuracy(model.backbone.num_classes, average="micro").to(fabric.device)
    loss = MeanMetric().to(fabric.device)
    dtype = next(model.parameters()).dtype
    for batch in map(fabric.to_device, batches):
        pause()
        with fabric.autocast():
            logits = model(batch["image"].to(dtype)).float()
        accuracy.update(logits, batch["label"])
        loss.update(nn.functional.cross_entropy(logits, batch["label"]), len(logits))
    return {"val_accuracy": accuracy.compute().item(), "val_loss": loss.compute().item()}
