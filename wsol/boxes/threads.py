"""A function of one image, called for many images at once."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_T = TypeVar("_T")


def map_in_threads(function: Callable[..., _T], *arguments: Iterable) -> list[_T]:
    """Calls a function for each tuple of arguments, in as many threads as PyTorch uses.

    Use it for functions that release Python's lock for most of their time, as OpenCV's, NumPy's and
    Numba's do. `OMP_NUM_THREADS` and `torch.set_num_threads` set the number of threads.

    Returns:
        The results in order. The first exception is raised.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(function, *arguments))
