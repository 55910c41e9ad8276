"""Validation after each epoch: accuracy, and whether the objective's terms were trained."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import cross_entropy_score
from robust_training.models.classifier import Classifier
from robust_training.objectives import Objective, Standard, Sum
from robust_training.objectives.base import AttackingObjective
from robust_training.training.log import Row
from robust_training.training.step import CROSS_ENTROPY, Batch, Step

TERM_IMAGES = 128  # about as many validation images measure the terms
MOVED = 0.01  # a term that falls by a smaller fraction did not train
UNTRAINED = "_untrained"  # ending of the column with a term's value for an untrained network
COSINE = "val_gradient_cosine"  # column with the mean of `gradient_cosine`
BEFORE = "_before"  # ending of the column with a value before the training
_NOISE = 2 / 255


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
    network is known. The cross-entropy of clean images is not repeated. If the objective attacks
    images, `COSINE` is measured on the same images.

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
    has_cosine, cosine = attacks_images(objective), MeanMetric().to(fabric.device)
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
            if number in chosen and has_cosine:
                torch.manual_seed(number)  # of the noise
                with fabric.autocast():
                    cosine.update(gradient_cosine(model, image.to(dtype), label))
            if number in chosen:
                torch.manual_seed(number)  # of the attack
                with fabric.autocast(), torch.enable_grad():
                    found = Step(model, objective)(Batch(image, label))
                own = [n for n in found if is_attacked or not n.endswith(CROSS_ENTROPY)]
                if not own and not has_cosine:
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
        **({COSINE: cosine.compute().item()} if has_cosine else {}),
    }


def has_start_values(objective: Objective) -> bool:
    """Whether `start_values` of an objective, or of a part of a sum, are not empty."""
    if isinstance(objective, Sum):
        return any(has_start_values(part.objective) for part in objective.parts)
    if isinstance(objective, Standard):  # its only term is the cross-entropy of clean images
        return False
    return attacks_images(objective) or not objective.untrained_terms()


def start_values(measured: Row) -> Row:
    """Return the values of `validate` before the training, with which later ones are compared:
    those of `COSINE`, and of terms whose value for an untrained network is not known."""
    return {
        column + BEFORE: value
        for column, value in measured.items()
        if column == COSINE or (_term_of(column) is not None and column + UNTRAINED not in measured)
    }


def attacks_images(objective: Objective) -> bool:
    """Whether the objective, or a part of a sum, trains with an attack that takes steps."""
    if isinstance(objective, Sum):
        return any(attacks_images(part.objective) for part in objective.parts)
    return isinstance(objective, AttackingObjective) and objective.attack.steps > 0


def gradient_cosine(model: Classifier, image: Tensor, label: Tensor) -> Tensor:
    """Return the cosine (N,) between the input gradient of the cross-entropy at an image and at the
    same image with uniform noise of at most 2/255.

    Adversarial training makes this gradient steady. If it fails by overfitting to its attack
    (catastrophic overfitting, Wong et al., ICLR 2020), the accuracy does not show it, but this
    cosine falls below its value before the training (docs/experiments/cub200.md).

    Args:
        image: (N,3,H,W) in [0,1].
        label: (N,).
    """
    noisy = (image + _NOISE * (2 * torch.rand_like(image) - 1)).clamp(0, 1)
    score = cross_entropy_score(model, label)
    pair = (input_gradient(score, each).float().flatten(1) for each in (image, noisy))
    return nn.functional.cosine_similarity(*pair)


def training_notes(log: Sequence[Row]) -> list[str]:
    """Return sentences on each term, whether it fell or not, and `training_warnings`."""
    return [*_moved_terms(log), *training_warnings(log)]


def training_warnings(log: Sequence[Row]) -> list[str]:
    """Return `unmoved_terms` and `overfitting`."""
    return [*unmoved_terms(log), *overfitting(log)]


def overfitting(log: Sequence[Row]) -> list[str]:
    """Return a sentence if training under attack made the gradient turn more under noise than
    before."""
    last = log[-1] if log else {}
    now, before = last.get(COSINE, math.nan), last.get(COSINE + BEFORE, math.nan)
    if not now < before:
        return []
    return [
        "the input gradient turns more under noise than before this training (mean cosine "
        f"{now:.2f}, {before:.2f} before): the network probably overfits to the attack, which the "
        "accuracy does not show, and its maps are then poor; raise attack.steps or reduce "
        "attack.eps"
    ]


def unmoved_terms(log: Sequence[Row]) -> list[str]:
    """Return a sentence for each term that training did not move on validation images.

    A term moved if its last value is at least 1 % below the value for an untrained network. If this
    is not known, the value before the training counts, and in logs of earlier versions that of the
    first epoch. Cross-entropies are not judged."""
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


def _moved_terms(log: Sequence[Row]) -> list[str]:
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
    last = log[-1] if log else {}
    for column, now in last.items():
        name = _term_of(column)
        if name is None:
            continue
        if column + UNTRAINED in last:
            yield name, now, last[column + UNTRAINED], "for an untrained network"
        elif column + BEFORE in last:
            yield name, now, last[column + BEFORE], "before this training"
        elif len(log) > 1:
            yield name, now, log[0].get(column, now), "after the first epoch"


def _term_of(column: str) -> str | None:
    """The name of the term that a column of validation holds. None for all other columns."""
    name = column.removeprefix("val_")
    if name in (column, "accuracy", "loss") or column == COSINE:
        return None
    return None if name.endswith((CROSS_ENTROPY, UNTRAINED, BEFORE)) else name


def _spread(count: int, wanted: int) -> set[int]:
    """`wanted` of the numbers below `count`, evenly spread; all of them if there are fewer."""
    return {number * count // min(count, wanted) for number in range(min(count, wanted))}
