"""The state of a run on disk: `last.ckpt`, written whole or not at all."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from robust_training.atomic_io import write_bytes
from robust_training.training.processes import write_once

LAST = "last.ckpt"
_FORMAT = 2  # of what stands in the file; 1 had none


class _WholeFiles(TorchCheckpointIO):
    """Hands over what PyTorch would write: on a full disk it fails with messages about positions,
    and leaves half a file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Path, storage_options=None) -> None:
        self.data = serialized(checkpoint)


def serialized(state: dict[str, Any]) -> memoryview:
    """What torch.load reads, as bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def save_checkpoint(fabric: Fabric, output: Path, state: dict[str, Any]) -> None:
    """Write `state` (modules, optimizers and plain values) to output/last.ckpt.

    Raises:
        OSError: it cannot be written; the file that was there before is left as it was.
    """
    files = fabric.strategy.checkpoint_io = _WholeFiles()
    fabric.save(output / LAST, state | {"format": _FORMAT})
    write_once(fabric, lambda: write_bytes(output / LAST, files.data))


def load_checkpoint(fabric: Fabric, output: Path, state: dict[str, Any]) -> None:
    """Fill `state` in place from output/last.ckpt; code in the file is never run.

    Raises:
        ValueError: there is none, or it is of another model, optimizer or version of this package.
    """
    file = output / LAST
    if not file.is_file():
        raise ValueError(f"nothing to resume: there is no {file}")
    try:
        found = _format(file)
        if found == _FORMAT:
            fabric.load(file, state, weights_only=True)
    except Exception as error:  # whatever a damaged file makes PyTorch raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{file} is damaged or does not fit this model and optimizer: {reason}"
        ) from error
    if found != _FORMAT:
        raise ValueError(
            f"{file} was written by another version of this package (format {found}, not "
            f"{_FORMAT}): resume the run with that version, or begin a new one"
        )


def _format(file: str | os.PathLike) -> int:
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True).get("format", 1)
