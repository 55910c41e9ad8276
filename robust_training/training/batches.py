"""Which images a step sees, and how they are drawn: a function of seed, epoch and batch alone."""

import atexit
import hashlib
import itertools
import multiprocessing
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


def seed_of(*numbers: int | str) -> int:
    """A seed of 64 bits for what these numbers name."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest())


class EpochBatches:
    """The batches of one process in one epoch of `loader`.

    Process r of n takes batches r, r + n, ... of an order that the seed and the epoch decide, so
    that n processes see in a step what one sees in n batches. What a data set draws for an item,
    from the generators of PyTorch, NumPy or Python, depends on its place in that order, not on
    loader processes. So an epoch can be begun anywhere in it, and no skipped image is loaded.

    Where the batches are no multiple of n, the last ones are left out if the loader drops its last
    batch; otherwise the first ones fill up.
    """

    def __init__(
        self, loader: DataLoader, *seeds: int | str, rank: int = 0, world: int = 1
    ) -> None:
        self._loader = loader
        self._seeds = seeds
        # samplers, too, draw from PyTorch's generator
        torch.default_generator.manual_seed(seed_of(*seeds))
        order = list(loader.batch_sampler)
        count = share(loader, world)
        places = [0, *itertools.accumulate(map(len, order))]
        numbers = (number % len(order) for number in range(rank, count * world, world))
        self._batches = [(places[number], order[number]) for number in numbers]

    def __len__(self) -> int:
        return len(self._batches)

    def indices(self, number: int) -> list[int]:
        """Of the data set's items in this process's batch `number`."""
        return self._batches[number][1]

    def starting_at(self, first: int) -> Iterator[Any]:
        """What the loader makes of batch `first` and those after it."""
        loader = self._loader
        keys = (
            [(index, seed_of(*self._seeds, place)) for place, index in enumerate(indices, begin)]
            for begin, indices in self._batches[first:]
        )
        workers = {} if not loader.num_workers else {"prefetch_factor": loader.prefetch_factor}
        return iter(
            DataLoader(
                _Seeded(loader.dataset),
                batch_sampler=keys,
                num_workers=loader.num_workers,
                collate_fn=loader.collate_fn,
                pin_memory=loader.pin_memory,
                timeout=loader.timeout,
                worker_init_fn=_Worker(loader.worker_init_fn),
                multiprocessing_context=loader.multiprocessing_context,
                **workers,
            )
        )


def share(loader: DataLoader, world: int) -> int:
    """Batches of each of `world` processes in an epoch."""
    count = len(loader) // world if loader.drop_last else -(-len(loader) // world)
    if count == 0:
        raise ValueError(
            f"{len(loader)} batches of training images are fewer than {world} processes"
        )
    return count


class _Seeded(Dataset):
    """A data set whose items come with the seed of what they draw."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, seed = key
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (data sets may use it)
        random.seed(seed)
        return self.dataset[index]


class _Worker:
    """Starts a loader process that leaves Ctrl-C and SIGTERM, which often reach every process of a
    job, to the main one: it finishes its step and ends the others then."""

    def __init__(self, start: Callable[[int], None] | None) -> None:
        self.start = start

    def __call__(self, number: int) -> None:
        for request in (signal.SIGINT, signal.SIGTERM):
            signal.signal(request, signal.SIG_IGN)
        if self.start is not None:
            self.start(number)


@atexit.register
def _end_loader_processes() -> None:
    """Python ends them by SIGTERM when it exits, and would wait for ever: they leave that alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch takes it for a worker's failure
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
