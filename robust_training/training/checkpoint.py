"""The state of a run on disk: `last.ckpt`, written completely or not at all."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import TorchCheckpointIO

from robust_training.atomic_io import write_bytes
from robust_training.training.processes import totals, write_once

LAST = "last.ckpt"
_FORMAT = 2  # version of the file's content; files of version 1 have no version number


@dataclass
class EpochProgress:
    """The progress of an epoch.

    Attributes:
        batches: Batches done, by all processes together.
        of: Number of batches of the loader; it does not depend on the number of processes.
        sums: Name of a term -> [its sum over images, number of images], in this process.
        skipped: Steps skipped in this epoch because a term or a gradient was not finite.
        seconds: Training time of this epoch.
        before: Columns of the log with values that were measured before the first epoch.
    """

    batches: int = 0
    of: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)
    skipped: int = 0
    seconds: float = 0.0
    before: dict[str, float] = field(default_factory=dict)

    def add(self, terms: dict[str, float], images: int) -> None:
        """Count the mean terms of a batch."""
        for name, value in terms.items():
            pair = self.sums.setdefault(name, [0.0, 0])
            pair[0] += value * images
            pair[1] += images

    def totals(self, fabric: Fabric) -> dict[str, list[float]]:
        """Return `sums` over all processes."""
        numbers = totals(fabric, [number for pair in self.sums.values() for number in pair])
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return {name: list(pair) for name, pair in zip(self.sums, pairs, strict=True)}

    def means(self, fabric: Fabric) -> dict[str, float]:
        """Return each term's mean over the images of all processes."""
        return {name: total / count for name, (total, count) in self.totals(fabric).items()}


def read_progress(fabric: Fabric, saved: dict[str, Any], of: int) -> EpochProgress:
    """Return the progress in a checkpoint; the loader has `of` batches in an epoch. Raises
    ValueError if the epoch was begun with another number of batches."""
    progress = EpochProgress(**saved) if saved else EpochProgress(of=of)
    if progress.batches == 0:
        return EpochProgress(of=of)
    if progress.of != of:
        raise ValueError(
            f"the run stopped after {progress.batches} of {progress.of} batches of an epoch, but "
            f"an epoch now has {of}: resume with the same images and batch size"
        )
    if not fabric.is_global_zero:  # the first process has the sums of all processes
        progress.sums = {name: [0.0, 0] for name in progress.sums}
    return progress


class _InMemory(TorchCheckpointIO):
    """Keeps the bytes in memory. On a full disk, PyTorch itself would leave an incomplete file, and
    its error message would not name the cause."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Path, storage_options=None) -> None:
        self.data = serialized(checkpoint)


def serialized(state: dict[str, Any]) -> memoryview:
    """Return the bytes that `torch.load` reads."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def save_checkpoint(fabric: Fabric, output: Path, state: dict[str, Any]) -> None:
    """Write `state` (modules, optimizers and plain values) to output/last.ckpt. Raises OSError if
    it cannot be written. An earlier file stays unchanged."""
    files = fabric.strategy.checkpoint_io = _InMemory()
    fabric.save(output / LAST, state | {"format": _FORMAT})
    write_once(fabric, lambda: write_bytes(output / LAST, files.data))


def load_checkpoint(fabric: Fabric, output: Path, state: dict[str, Any]) -> None:
    """Fill `state` in place from output/last.ckpt. No code in the file is run. Raises ValueError if
    there is no such file, or it belongs to another model, optimizer or version of this package."""
    file = output / LAST
    if not file.is_file():
        raise ValueError(f"nothing to resume: there is no {file}")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True).get("format", 1)
        if found == _FORMAT:
            fabric.load(file, state, weights_only=True)
    except Exception as error:  # for a damaged file, PyTorch raises many kinds of errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{file} is damaged or does not fit this model and optimizer: {reason}"
        ) from error
    if found != _FORMAT:
        raise ValueError(
            f"{file} was written by another version of this package (format {found}, not "
            f"{_FORMAT}): resume the run with that version, or begin a new one"
        )
