"""Settings of the process for its device, and threads."""

import ctypes
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_T = TypeVar("_T")

# each has a switch `allow_tf32`, for convolutions and for matrix products
TF32 = torch.backends.cudnn, torch.backends.cuda.matmul

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def prepare_device(device: torch.device) -> None:
    """Change settings of this process until it ends.

    On a GPU: float32 is computed as float32, not as TF32. TF32 has 10 bits, PyTorch uses it for
    convolutions unless it is told not to, and finite differences vanish in it
    (docs/experiments/cub200.md).

    On a CPU: denormals become zero, because softplus produces many of them, and a computation with
    one takes a hundred times as long. The process keeps freed memory. Otherwise glibc returns every
    tensor above 32 MB, and often smaller tensors, to the system. To map the memory of a large
    activation again takes longer than to compute it (a quarter of an exact ART step on
    MobileNetV2).
    """
    if device.type == "cuda":
        for each in TF32:
            each.allow_tf32 = False
    if device.type != "cpu":
        return
    torch.set_flush_denormal(True)
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 2**27)


def map_in_threads(function: Callable[..., _T], *arguments: Iterable) -> list[_T]:
    """Calls a function for each tuple of arguments, in as many threads as PyTorch uses, and returns
    the results in order. The first exception is raised.

    Use it for functions that release Python's lock for most of their time, as OpenCV's, NumPy's and
    Numba's do. `OMP_NUM_THREADS` and `torch.set_num_threads` set the number of threads."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return list(threads.map(function, *arguments))
