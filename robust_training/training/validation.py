"""Validation after each epoch: accuracy, and whether the objective's terms were trained."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from robust_training.models.classifier import Classifier
from robust_training.objectives import Objective
from robust_training.objectives.base import AttackingObjective
from robust_training.training.log import Row
from robust_training.training.step import CROSS_ENTROPY, Batch, Step

TERM_IMAGES = 128  # about as many validation images measure the terms
MOVED = 0.01  # a term that falls by a smaller fraction did not train
UNTRAINED = "_untrained"  # ending of the column with a term's value for an untrained network


@torch.no_grad()
def validate(
    fabric: Fabric,
    model: Classifier,
    objective: Objective,
    batches: Iterator[tuple[dict[str, Tensor], list[str]]],
    count: int,
    check_interrupts: Callable[[], None],
) -> dict[str, float]:
    """Return accuracy and mean cross-entropy on the validation images, and terms of the objective.

    The terms are measured without augmentation and with the objective's attack, on about
    `TERM_IMAGES` images: `val_<term>`, and `val_<term>_untrained` if the value for an untrained
    network is known. The cross-entropy of clean images is not repeated.

    Args:
        batches: Batches and the names of their images.
        count: Number of batches.
        check_interrupts: Called before each batch.
    """
    model.eval()
    accuracy = MulticlassAccuracy(model.num_classes, average="micro").to(fabric.device)
    loss = MeanMetric().to(fabric.device)
    terms: dict[str, MeanMetric] = {}
    dtype = next(model.parameters()).dtype
    chosen: set[int] = set()
    is_attacked = isinstance(objective, AttackingObjective)
    with closing(batches):
        for number, (items, _) in enumerate(batches):
            check_interrupts()
            batch = fabric.to_device(items)
            image, label = batch["image"], batch["label"]
            with fabric.autocast():
                logits = model(image.to(dtype)).float()
            accuracy.update(logits, label)
            loss.update(nn.functional.cross_entropy(logits, label), len(label))
            if number == 0:
                chosen = _spread(count, max(1, round(TERM_IMAGES / len(label))))
            if number in chosen:
                torch.manual_seed(number)  # of the attack
                with fabric.autocast(), torch.enable_grad():
                    found = Step(model, objective)(Batch(image, label))
                own = [n for n in found if is_attacked or not n.endswith(CROSS_ENTROPY)]
                if not own:
                    chosen = set()
                for name in own:
                    mean = terms.setdefault(name, MeanMetric().to(fabric.device))
                    mean.update(found[name].detach(), len(label))
    known = objective.untrained_terms()
    return {
        "val_accuracy": accuracy.compute().item(),
        "val_loss": loss.compute().item(),
        **{f"val_{name}": mean.compute().item() for name, mean in terms.items()},
        **{f"val_{name}{UNTRAINED}": known[name] for name in terms if name in known},
    }


def unmoved_terms(log: Sequence[Row]) -> list[str]:
    """Return a sentence for each term that training did not move on validation images.

    A term moved if its last value is at least 1 % below the value for an untrained network, or
    below the first epoch's value if the former is not known. Cross-entropies are not judged."""
    found = []
    for name, now, start, before in _terms(log):
        if start == 0:
            found.append(f"{name} has weight 0: this run is a control without it")
        elif not _moved(now, start):
            found.append(
                f"{name} did not train: on validation images it is {now:.4g}, and {start:.4g} "
                f"{before}; raise its weight (or set balance), the learning rate or the number of "
                "epochs"
            )
    return found


def moved_terms(log: Sequence[Row]) -> list[str]:
    """Return a sentence for each term that fell, with both values."""
    return [
        f"{name} fell on validation images: it is {now:.4g}, and {start:.4g} {before}"
        for name, now, start, before in _terms(log)
        if start != 0 and _moved(now, start)
    ]


def _moved(now: float, start: float) -> bool:
    return now <= start - MOVED * abs(start)


def _terms(log: Sequence[Row]) -> Iterator[tuple[str, float, float, str]]:
    """Name, last value and value to compare with of each term, and what the latter is."""
    for column, now in log[-1].items() if log else ():
        name = column.removeprefix("val_")
        if name in (column, "accuracy", "loss") or name.endswith((CROSS_ENTROPY, UNTRAINED)):
            continue
        known = log[-1].get(column + UNTRAINED)
        if known is not None:
            yield name, now, known, "for an untrained network"
        elif len(log) > 1:
            yield name, now, log[0].get(column, now), "after the first epoch"


def _spread(count: int, wanted: int) -> set[int]:
    """`wanted` of the numbers below `count`, evenly spread; all of them if there are fewer."""
    return {number * count // min(count, wanted) for number in range(min(count, wanted))}
