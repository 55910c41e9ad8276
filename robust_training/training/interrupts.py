"""Between two steps: where a run is saved, and stopped when it is asked to."""

import dataclasses
import signal
import threading
import time
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from robust_training.training.checkpoint import save_checkpoint
from robust_training.training.epoch import Progress
from robust_training.training.processes import in_any


class Stopped(KeyboardInterrupt):
    """A run was asked to stop, and has saved itself; says where.

    Attributes:
        status: The exit status that shells expect: 128 + the signal's number.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number


class Pauses:
    """Saves `state` every so many minutes, and when Ctrl-C (SIGINT) or SIGTERM came.

    Signals are noted inside its `with`; a second one acts at once.

    Args:
        state: What `load_checkpoint` fills; "progress" is set here.
    """

    def __init__(self, fabric: Fabric, output: Path, state: dict[str, Any], minutes: float) -> None:
        self._fabric = fabric
        self._output = output
        self._state = state
        self._seconds = 60 * minutes
        self._saved = time.monotonic()
        self._received: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Pauses":
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

    def __call__(self, progress: Progress) -> None:
        """Save the run if it is time.

        Raises:
            Stopped: in all processes, if one was asked to stop.
        """
        due = self._fabric.is_global_zero and time.monotonic() - self._saved >= self._seconds
        stop, due = in_any(self._fabric, self._received is not None, due)
        if stop or due:
            self.save(progress)
        if stop:
            name = signal.Signals(self._received).name if self._received else "another process"
            raise Stopped(
                f"stopped by {name} in epoch {self._state['epoch'] + 1}, after {progress.batches} "
                f"of {progress.of} batches; --resume goes on from there",
                self._received or signal.SIGTERM,
            )

    def save(self, progress: Progress) -> None:
        """Write last.ckpt."""
        kept = dataclasses.replace(progress, sums=progress.total(self._fabric))
        self._state["progress"] = dataclasses.asdict(kept)
        save_checkpoint(self._fabric, self._output, self._state)
        self._saved = time.monotonic()


def continued(fabric: Fabric, saved: dict[str, Any], of: int) -> Progress:
    """The progress that `save` wrote, in an epoch whose loader has `of` batches.

    Raises:
        ValueError: the epoch was begun with another number of batches.
    """
    progress = Progress(**saved) if saved else Progress(of=of)
    if progress.batches == 0:
        return Progress(of=of)
    if progress.of != of:
        raise ValueError(
            f"the run stopped after {progress.batches} of {progress.of} batches of an epoch, which "
            f"has {of} now: resume it with the images and the batch size that it had"
        )
    if not fabric.is_global_zero:  # the first process has the sums of all
        progress.sums = {name: [0.0, 0] for name in progress.sums}
    return progress
