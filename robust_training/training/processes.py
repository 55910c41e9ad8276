"""Communication between the processes of a run."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from lightning_fabric import Fabric

_T = TypeVar("_T")


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
    """Call `write` in the first process; all processes wait for it. Raises OSError if `write`
    failed. Every process raises the error, so that none waits for a process that has ended."""
    problem = None
    if fabric.is_global_zero:
        try:
            write()
        except OSError as error:
            problem = error.strerror or str(error)
    problem = fabric.broadcast(problem)
    if problem is not None:
        raise OSError(f"{problem}; the last checkpoint is complete, and the run can be resumed")


def rank_and_world(fabric: Fabric | None) -> tuple[int, int]:
    """Return this process's rank and the number of processes; None stands for one process."""
    return (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)


def gather(fabric: Fabric | None, compute: Callable[[], _T]) -> list[_T] | None:
    """Call `compute` in every process and collect the results in the first process.

    Args:
        fabric: The processes. If None, there is only this process.

    Returns:
        The results in the order of the processes' ranks. None in all processes but the first.

    Raises:
        ValueError: `compute` raised one. It is raised in the first process, which does not wait for
            a process that has ended.
    """
    rank, world = rank_and_world(fabric)
    if world == 1:
        return [compute()]
    try:
        found, problem = compute(), None
    except ValueError as error:
        found, problem = None, str(error)
    everything = [None] * world if rank == 0 else None
    torch.distributed.gather_object((found, problem), everything)
    if everything is None:
        return None
    for _, problem in everything:
        if problem is not None:
            raise ValueError(problem)
    return [found for found, _ in everything]
