"""The state of a run on disk: `last.ckpt`, written whole or not at all."""

import os
import pickle
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

LAST = "last.ckpt"


def save_checkpoint(fabric: Fabric, output: Path, state: dict[str, Any]) -> None:
    """Write `state` (modules, optimizers and plain values) to output/last.ckpt."""
    partial = output / f".{LAST}.partial"
    fabric.save(partial, state)
    if fabric.is_global_zero:
        os.replace(partial, output / LAST)
    fabric.barrier()


def load_checkpoint(fabric: Fabric, output: Path, state: dict[str, Any]) -> None:
    """Fill `state` in place from output/last.ckpt; code in the file is never run.

    Raises:
        ValueError: there is none, or it is of another model or optimizer.
    """
    file = output / LAST
    if not file.is_file():
        raise ValueError(f"nothing to resume: there is no {file}")
    try:
        fabric.load(file, state, weights_only=True)
    except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{file} is damaged or does not fit this model and optimizer: {reason}"
        ) from error
