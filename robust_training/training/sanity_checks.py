"""What a run shows that cannot learn, in words."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robust_training.attacks.pgd import PGD
from robust_training.attribution.gradients import input_gradient
from robust_training.attribution.scores import class_score
from robust_training.autograd.curvature import Score
from robust_training.models.classifier import Classifier
from robust_training.objectives import Objective, Sum
from robust_training.training.log import Row
from robust_training.training.step import Batch, Step

_IMAGES = 8


def notes(
    terms: Mapping[str, float], log: Sequence[Row], objective: Objective, epoch: int
) -> list[str]:
    """What an epoch's mean terms say, beside the rows of the epochs before it.

    Args:
        epoch: Epochs before this one.
    """
    total = sum(map(abs, terms.values()))
    found = [
        f"{name} is {abs(value) / total:.0e} of the loss and trains next to nothing; its "
        "weight may be too small"
        for name, value in terms.items()
        if 0 < abs(value) < 1e-4 * total
    ]
    comparable = objective.at(0) == objective.at(epoch)  # no term has a warm-up
    if len(log) >= 2 and terms.keys() <= log[0].keys() and comparable:
        first, now = (sum(row[name] for name in terms) for row in (log[0], terms))
        if not now < first:
            found.append(
                f"the loss has not fallen since the first epoch ({first:.4g}, now {now:.4g}); the "
                "learning rate may be too small or too large"
            )
    return found


def examine(model: Classifier, objective: Objective, batch: Batch) -> list[str]:
    """What a few images of a training batch say; the model is left in evaluation mode."""
    batch = Batch(batch.image[:_IMAGES], batch.label[:_IMAGES])
    image, label = batch.image.to(next(model.parameters()).dtype), batch.label
    model.eval()
    found = []
    with torch.no_grad():
        logits = model(image)
    spread = (logits - logits[:1]).abs().max()
    if len(image) > 1 and spread <= 1e-6 * logits.abs().max():
        found.append("all images get the same logits: the network does not look at them")
    gradient = input_gradient(class_score(model, label), image)
    empty = int((gradient.flatten(1).abs().amax(dim=1) == 0).sum())
    if empty:
        found.append(
            f"the gradient of the class score is zero on {empty} of {len(image)} training images: "
            "they have no map"
        )
    watches: list[_Watched] = []
    step = Step(model, _watched(objective, watches))
    if watches:
        step(batch)
    for watch in watches:
        found.extend(watch.complaints())
    return found


@dataclass(frozen=True)
class _Watched(PGD):
    """An attack that remembers what it did."""

    seen: list[tuple[Tensor, ...]] = field(default_factory=list)

    def __call__(self, score: Score, image: Tensor, start: Tensor | None = None) -> Tensor:
        start = self.start(image) if start is None else start
        perturbed = super().__call__(score, image, start)
        moved = min((perturbed - before).abs().max() for before in (image, start))
        scores = (score(each).detach().mean() for each in (start, perturbed))
        self.seen.append((moved, *scores))
        return perturbed

    def complaints(self) -> Iterator[str]:
        for moved, before, after in self.seen:
            if moved == 0:
                yield "the attack's steps leave images as they are: its eps or its gradient is zero"
            elif not after > before:
                yield (
                    f"the attack does not raise what it climbs ({before:.4g} before its steps, "
                    f"{after:.4g} after): step_size may be too large, or the score flat"
                )


def _watched(objective: Objective, watches: list[_Watched]) -> Objective:
    if isinstance(objective, Sum):
        parts = tuple(
            dataclasses.replace(part, objective=_watched(part.objective, watches))
            for part in objective.parts
        )
        return dataclasses.replace(objective, parts=parts)
    attack = getattr(objective, "attack", None)
    if type(attack) is not PGD:
        return objective
    watch = _Watched(**{f.name: getattr(attack, f.name) for f in dataclasses.fields(PGD)})
    watches.append(watch)
    return dataclasses.replace(objective, attack=watch)
