"""Communication between the processes of a run; a single process needs none."""

from collections.abc import Callable, Sequence

import torch
from lightning_fabric import Fabric


def in_any(fabric: Fabric, *flags: bool) -> tuple[bool, ...]:
    """Return for each flag whether it is set in any process."""
    if fabric.world_size == 1:
        return flags
    votes = torch.tensor(flags, dtype=torch.float32, device=fabric.device)
    return tuple(votes > 0 for votes in fabric.all_reduce(votes, reduce_op="sum").tolist())


def totals(fabric: Fabric, numbers: Sequence[float]) -> list[float]:
    """Return each number's sum over all processes."""
    if fabric.world_size == 1:
        return list(numbers)
    values = torch.tensor(numbers, dtype=torch.float64, device=fabric.device)
    return fabric.all_reduce(values, reduce_op="sum").tolist()


def write_once(fabric: Fabric, write: Callable[[], None]) -> None:
    """Call `write` in the first process; all processes wait for it.

    Raises:
        OSError: `write` raised one. It is raised in every process, so that none waits for another
            that has gone.
    """
    problem = None
    if fabric.is_global_zero:
        try:
            write()
        except OSError as error:
            problem = error.strerror or str(error)
    problem = fabric.broadcast(problem)
    if problem is not None:
        raise OSError(f"{problem}; what was saved before is whole, and the run can be resumed")
