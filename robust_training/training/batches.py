"""Batches of an epoch and their random draws. Both depend only on seed, epoch and place."""

import atexit
import hashlib
import multiprocessing
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler


def seed_of(*numbers: int | str) -> int:
    """A hash of `numbers`, as a seed of 64 bits."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest())


@dataclass(frozen=True)
class SeededIndices:
    """The indices of one batch. Iteration seeds the generators of PyTorch, NumPy and Python before
    each index. So the random draws for an image depend on its place in the epoch, not on the
    process that loads it.

    Attributes:
        indices: Indices into the data set.
        place: Position of the first index in the epoch's order.
        seeds: Seeds of the epoch.
    """

    indices: list[int]
    place: int
    seeds: tuple[int | str, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        for place, index in enumerate(self.indices, self.place):
            seed_generators(seed_of(*self.seeds, place))
            yield index


class SeededBatches(Sampler[SeededIndices]):
    """A batch sampler that lets `fit` resume within an epoch without loading the images before.

    Use it as `DataLoader(dataset, batch_sampler=SeededBatches(len(dataset), 32))`. Outside of `fit`
    it is an ordinary sampler with a new random order for each epoch.

    Args:
        size: Number of images.
        batch_size: Images of a batch, in each process.
        shuffle: Draw a random order; otherwise the images come in the data set's order.
        drop_last: Leave out a last, smaller batch.
    """

    def __init__(
        self, size: int, batch_size: int, *, shuffle: bool = True, drop_last: bool = True
    ) -> None:
        order = RandomSampler(range(size)) if shuffle else SequentialSampler(range(size))
        self._sampler = BatchSampler(order, batch_size, drop_last)
        self._next: list[SeededIndices] | None = None

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[SeededIndices]:
        if self._next is None:
            self.begin_epoch(torch.randint(2**62, ()).item())
        batches, self._next = self._next, None
        yield from batches

    def begin_epoch(
        self, *seeds: int | str, first: int = 0, rank: int = 0, world: int = 1
    ) -> list[SeededIndices]:
        """Set the batches that the next iteration yields, and return them: the batches of one
        process, starting with its batch `first`.

        `seeds` determine the order. Process r of n takes batches r, r + n, ..., so n processes use
        the same images in one step as a single process in n steps. If the number of batches is not
        a multiple of n, the last batches are left out (with `drop_last`) or the first are repeated.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(*seeds))  # PyTorch's sampler draws from it
            order = list(self._sampler)
        batch_size = self._sampler.batch_size
        numbers = range(rank, self.per_process(world) * world, world)
        chosen = [number % len(order) for number in numbers[first:]]
        self._next = [SeededIndices(order[i], i * batch_size, seeds) for i in chosen]
        return self._next

    def per_process(self, world: int) -> int:
        """Number of batches that each of `world` processes takes from an epoch."""
        return len(self) // world if self._sampler.drop_last else -(-len(self) // world)


def batches_per_process(loader: DataLoader, world: int) -> int:
    """Number of batches that each of `world` processes takes from an epoch of `loader`. Raises
    ValueError if there are fewer batches than processes."""
    sampler = loader.batch_sampler
    is_seeded = isinstance(sampler, SeededBatches)
    count = sampler.per_process(world) if is_seeded else len(loader) // world
    if count == 0:
        raise ValueError(
            f"{len(loader)} batches of training images are fewer than {world} processes; give a "
            "smaller batch_size or fewer processes"
        )
    return count


def load_epoch(
    loader: DataLoader, *seeds: int | str, first: int = 0, rank: int = 0, world: int = 1
) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield the batches of one process in an epoch, starting with its batch `first`, and the names
    of their images. Close the iterator to end the loader's processes.

    With `SeededBatches`, no batch before `first` is loaded, and the result does not depend on the
    number of loader processes. Any other loader is seeded before each batch. Batches before `first`
    and batches of other processes are loaded and dropped. Loader processes draw from their own
    generators.
    """
    sampler = loader.batch_sampler
    if isinstance(sampler, SeededBatches):
        chosen = sampler.begin_epoch(*seeds, first=first, rank=rank, world=world)
        name = getattr(loader.dataset, "name", str)
        with closing(_loaded(loader)) as batches:
            for indices, batch in zip(chosen, batches, strict=True):
                yield batch, [name(index) for index in indices.indices]
        return
    numbers = range(rank, batches_per_process(loader, world) * world, world)[first:]
    seed_generators(seed_of(*seeds))
    with closing(_loaded(loader)) as batches:
        for number, batch in enumerate(batches):
            if number in numbers:
                count = len(next(iter(batch.values())))
                yield batch, [f"{i + 1} of batch {number + 1}" for i in range(count)]
            seed_generators(seed_of(*seeds, number + 1))


def seed_generators(seed: int) -> None:
    """Seed the CPU generators of PyTorch, NumPy and Python, which data sets may draw from."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (data sets may use the global generator)
    random.seed(seed)


def _loaded(loader: DataLoader) -> Iterator[Any]:
    """Yield the batches of `loader`. Its processes end with this iterator. Ctrl-C and SIGTERM are
    blocked in them (not in persistent processes): both signals often reach every process of a job,
    but the main process must finish its step first."""
    if loader.persistent_workers:
        yield from loader
        return
    before = multiprocessing.active_children()
    with _signals_blocked():
        batches = iter(loader)
    kill = partial(_kill, [p for p in multiprocessing.active_children() if p not in before])
    atexit.register(kill)  # otherwise Python would send them SIGTERM when it exits, and wait
    try:
        yield from batches
    finally:
        del batches  # PyTorch ends the processes here, unless a traceback still refers to it
        kill()
        atexit.unregister(kill)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM in processes that are started inside the `with`, if the system can
    block signals."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(processes: list[multiprocessing.Process]) -> None:
    """Kill the processes that are alive, without PyTorch's SIGCHLD handler, which would report a
    failure."""
    alive = [process for process in processes if process.is_alive()]
    has_handler = (
        hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    )
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if alive and has_handler else None
    for process in alive:
        process.kill()
    for process in alive:
        process.join()
    if handler is not None:
        signal.signal(signal.SIGCHLD, handler)
