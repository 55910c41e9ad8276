"""Finds steps with a loss or gradient that is not finite, skips them, saves and repeats them."""

import copy
import dataclasses
import math
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from robust_training.atomic_io import write_bytes
from robust_training.objectives import AttackState
from robust_training.training.checkpoint import serialized
from robust_training.training.processes import in_any
from robust_training.training.step import Batch


@dataclass
class MicroBatch:
    """A batch of a step, with everything that is needed to compute it again.

    Attributes:
        seed: Seed of PyTorch's generators at the start of its forward pass.
        epoch: Epochs trained so far, fractions included, for objectives that change over time.
        attack_state: State of the attack after the step before.
        terms: Values of the objective's terms; empty before they are computed.
    """

    batch: Batch
    names: list[str]
    seed: int
    epoch: float
    attack_state: AttackState = dataclasses.field(init=False)
    terms: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.attack_state = copy.deepcopy(self.batch.attack_state)

    def is_finite(self) -> bool:
        return all(map(math.isfinite, self.terms.values()))

    def saved(self) -> dict[str, Any]:
        """Return what `replay` needs, as tensors and plain values only."""
        return {
            "image": self.batch.image,
            "label": self.batch.label,
            "names": self.names,
            "seed": self.seed,
            "progress": self.epoch,
            "attack_state": dataclasses.asdict(self.attack_state),
            "terms": self.terms,
        }


class NanGuard:
    """Accepts only finite steps. Any other step is skipped if the run may still skip one, and stops
    the run otherwise. Its batches are saved in `output` in both cases.

    Args:
        allowed: Number of steps that may be skipped in the whole run.
        skipped: Number of those that were skipped so far.
        note: Shows a line to the user.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        output: Path,
        *,
        epochs: int,
        allowed: int,
        skipped: int,
        note: Callable[[str], None],
    ) -> None:
        self._fabric = fabric
        self._model = model
        self._output = output
        self._epochs = epochs
        self._left = allowed - skipped
        self._note = note
        self._buffers = list(model.buffers())
        self._copies = [buffer.clone() for buffer in self._buffers]

    def before_step(self) -> None:
        """Copy BatchNorm's running statistics and other buffers, because the forward pass of a
        batch that is not finite changes them."""
        for kept, buffer in zip(self._copies, self._buffers, strict=True):
            kept.copy_(buffer)

    def accepts(
        self,
        micro_batches: Sequence[MicroBatch],
        terms: Sequence[Mapping[str, Tensor]],
        norm: Tensor | None,
        *,
        epoch: int,
        step: int,
    ) -> bool:
        """Return whether the optimizer may take the step; if not, restore the buffers.

        All processes return the same. Terms and norm are read from the device here, all at once.
        The terms' values are stored in `micro_batches`.

        Args:
            terms: The objective's terms for each of `micro_batches`, detached.
            norm: Norm of the step's gradient. If None, the gradient is not checked.
            epoch, step: Both count from 1, for messages.

        Raises:
            FloatingPointError: No further step may be skipped. The message names the term, the
                images and the option that computes them again.
        """
        tensors = [term.reshape(1) for each in terms for term in each.values()]
        norms = [] if norm is None else [norm.reshape(1)]
        values = iter(torch.cat(tensors + norms).tolist())
        for micro_batch, each in zip(micro_batches, terms, strict=True):
            micro_batch.terms = {name: next(values) for name in each}
        failed = [each for each in micro_batches if not each.is_finite()][:1]
        (is_bad,) = in_any(self._fabric, bool(failed))
        if not is_bad:
            if math.isfinite(next(values, 0.0)):
                return True
            failed = list(micro_batches)
        for kept, buffer in zip(self._copies, self._buffers, strict=True):
            buffer.copy_(kept)
        self._left -= 1
        self._report(failed, epoch, step)
        return False

    def _report(self, failed: Sequence[MicroBatch], epoch: int, step: int) -> None:
        """Save the batches that failed in this process. Raise, or report a skipped step."""
        line = f"not finite at epoch {epoch}/{self._epochs}, step {step}"
        if failed:
            subject = "a gradient is" if all(each.is_finite() for each in failed) else "the loss is"
            names = [name for each in failed for name in each.names]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            terms = ", then ".join(str(each.terms) for each in failed)
            line = f"{subject} {line}: {terms} of images {', '.join(names[:3])}{more}"
            several = self._fabric.world_size > 1
            process = f"-process{self._fabric.global_rank}" if several else ""
            file = self._output / f"nonfinite-epoch{epoch}-step{step}{process}.pt"
            try:
                batches = [each.saved() for each in failed]
                write_bytes(
                    file, serialized({"model": self._model.state_dict(), "batches": batches})
                )
                line += f"; --replay {file} computes them again"
            except OSError as error:
                line += f"; {error}"
        if self._left < 0:
            raise FloatingPointError(line)
        if failed:
            self._note(f"a step is skipped: {line}")


def replay(file: str | os.PathLike, step: nn.Module, fabric: Fabric) -> Iterator[str]:
    """Compute the batches in `file` again, with the same weights and random numbers.

    Args:
        step: A `Step` with the run's network and objective, after `fabric.setup`.

    Yields:
        Lines: the images, their terms, and which pixels and gradients are not finite.

    Raises:
        ValueError: The file cannot be read or belongs to another network.
    """
    try:
        saved = torch.load(file, map_location=fabric.device, weights_only=True)
        step.module.model.load_state_dict(saved["model"])
        rows = saved["batches"]
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file} is not a saved batch of this run: {reason}") from error
    step.train()
    for row in rows:
        batch, names = Batch(row["image"], row["label"]), row["names"]
        batch.attack_state = _attack_state(row["attack_state"])
        step.zero_grad()
        torch.manual_seed(row["seed"])
        terms = step(batch, row["progress"])
        fabric.backward(sum(terms.values()))
        yield f"images: {', '.join(names)}"
        pairs = zip(names, batch.image, strict=True)
        spoiled = [name for name, image in pairs if not image.isfinite().all()]
        if spoiled:
            yield f"pixels that are not finite: {', '.join(spoiled)}"
        for name, term in terms.items():
            yield f"{name}: {term.item()}{'' if term.isfinite() else '  <- not finite'}"
        found = [
            name
            for name, parameter in step.module.model.backbone.named_parameters()
            if parameter.grad is not None and not parameter.grad.isfinite().all()
        ]
        if found:
            yield f"parameters whose gradient is not finite: {len(found)}, the first {found[0]}"


def _attack_state(fields: Mapping[str, Any]) -> AttackState:
    return AttackState(**{**fields, "parts": [_attack_state(part) for part in fields["parts"]]})
