"""Saving a run while it trains, and stopping it on Ctrl-C or SIGTERM."""

import dataclasses
import signal
import threading
import time
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from robust_training.training.checkpoint import EpochProgress, save_checkpoint
from robust_training.training.processes import in_any


class Stopped(KeyboardInterrupt):
    """A run was asked to stop and has been saved. The message names the epoch and the batch.

    Attributes:
        status: The exit status that shells expect: 128 + the signal's number.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number


class Interrupts:
    """Saves `state`, the content of the checkpoint, every `minutes`, and after Ctrl-C (SIGINT) or
    SIGTERM. `check` sets its "progress".

    Inside its `with`, the first signal takes effect after the current step. A second signal takes
    effect at once."""

    def __init__(self, fabric: Fabric, output: Path, state: dict[str, Any], minutes: float) -> None:
        self._fabric = fabric
        self._output = output
        self._state = state
        self._seconds = 60 * minutes
        self._saved = time.monotonic()
        self._received: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        self._received = number
        self.__exit__()

    def check(self, progress: EpochProgress) -> None:
        """Save the run if it is time. Call this between two steps. Raises Stopped if one of the
        processes was asked to stop; all processes raise it."""
        due = self._fabric.is_global_zero and time.monotonic() - self._saved >= self._seconds
        stop, due = in_any(self._fabric, self._received is not None, due)
        if stop or due:
            self.save(progress)
        if stop:
            name = signal.Signals(self._received).name if self._received else "another process"
            raise Stopped(
                f"stopped by {name} in epoch {self._state['epoch'] + 1}, after {progress.batches} "
                f"of {progress.of} batches; --resume continues there",
                self._received or signal.SIGTERM,
            )

    def save(self, progress: EpochProgress) -> None:
        """Write last.ckpt."""
        kept = dataclasses.replace(progress, sums=progress.totals(self._fabric))
        self._state["progress"] = dataclasses.asdict(kept)
        save_checkpoint(self._fabric, self._output, self._state)
        self._saved = time.monotonic()
