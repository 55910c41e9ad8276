"""Batches that no step can be made of: kept on disk, and computed again."""

import copy
import dataclasses
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from robust_training.atomic_io import write_bytes
from robust_training.objectives import AttackState, Objective
from robust_training.training.checkpoint import serialized
from robust_training.training.step import Batch


@dataclass
class Attempt:
    """A batch on its way through a step, and what computes it again.

    Attributes:
        names: Of the images, as the data set calls them.
        seed: Of PyTorch's generators at the step's start.
        progress: Epochs trained so far, fractions included, for objectives that change.
        carried: What the attack of the step before left.
        terms: What came out; empty before.
    """

    batch: Batch
    names: list[str]
    seed: int
    progress: float
    carried: AttackState
    terms: dict[str, float] = dataclasses.field(default_factory=dict)

    def finite(self) -> bool:
        return all(map(math.isfinite, self.terms.values()))


def attempt(batch: Batch, names: list[str], seed: int, progress: float) -> Attempt:
    return Attempt(batch, names, seed, progress, copy.deepcopy(batch.carried))


class Buffers:
    """BatchNorm's running statistics and other buffers as they were before a step: a forward pass
    of a batch that is not finite may have spoiled them."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = list(model.buffers())
        self._copies = [buffer.clone() for buffer in self._buffers]

    def keep(self) -> None:
        for kept, buffer in zip(self._copies, self._buffers, strict=True):
            kept.copy_(buffer)

    @torch.no_grad()
    def restore(self) -> None:
        for kept, buffer in zip(self._copies, self._buffers, strict=True):
            buffer.copy_(kept)


def save_attempts(file: Path, model: nn.Module, attempts: Sequence[Attempt]) -> None:
    """Write what `replay` needs; tensors and plain values alone."""
    rows = [
        {
            "image": a.batch.image,
            "label": a.batch.label,
            "names": a.names,
            "seed": a.seed,
            "progress": a.progress,
            "carried": dataclasses.asdict(a.carried),
            "terms": a.terms,
        }
        for a in attempts
    ]
    write_bytes(file, serialized({"model": model.state_dict(), "batches": rows}))


@dataclass
class Replayed:
    """A batch computed again.

    Attributes:
        names: Of the images.
        terms: The objective's.
        pixels: Names of images with pixels that are not finite.
        gradients: Names of parameters whose gradient is not finite.
    """

    names: list[str]
    terms: dict[str, float]
    pixels: list[str]
    gradients: list[str]


def replay(file: str | os.PathLike, step: nn.Module, fabric: Fabric) -> list[Replayed]:
    """Compute the batches in `file` again, with the weights they met.

    Args:
        step: A `Step` with the run's network and objective, as Fabric wrapped it.

    Raises:
        ValueError: the file cannot be read or is of another network.
    """
    try:
        saved = torch.load(file, map_location=fabric.device, weights_only=True)
        step.module.model.load_state_dict(saved["model"])
        rows = saved["batches"]
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} holds no batch of this run: {reason}") from error
    objective = step.module.objective
    step.train()
    return [_computed(row, step, objective.at(row["progress"]), fabric) for row in rows]


def _computed(
    row: dict[str, Any], step: nn.Module, objective: Objective, fabric: Fabric
) -> Replayed:
    batch = Batch(row["image"], row["label"])
    batch.carried = _carried(row["carried"])
    step.module.objective = objective
    step.zero_grad()
    torch.manual_seed(row["seed"])
    terms = step(batch)
    fabric.backward(sum(terms.values()))
    spoiled = [not bool(image.isfinite().all()) for image in batch.image]
    return Replayed(
        names=row["names"],
        terms={name: term.item() for name, term in terms.items()},
        pixels=[name for name, bad in zip(row["names"], spoiled, strict=True) if bad],
        gradients=[
            name
            for name, parameter in step.module.model.backbone.named_parameters()
            if parameter.grad is not None and not parameter.grad.isfinite().all()
        ],
    )


def _carried(fields: Mapping[str, Any]) -> AttackState:
    return AttackState(**{**fields, "parts": [_carried(part) for part in fields["parts"]]})


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
