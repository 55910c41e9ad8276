"""Decoded, resized images in one memory-mapped file, so that training does not wait for them."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm import tqdm

_FORMAT = 1  # part of every key: another number makes every cache anew


def cached_images(
    folder: str | os.PathLike,
    files: Sequence[Path],
    read: Callable[[Path], tuple[np.ndarray, tuple[int, int]]],
    what: str,
) -> Path:
    """A file of all images, made where it is missing; `load_images` opens it.

    It is named by the images' paths, sizes and times of change, so changed data make a new one, and
    the old one goes. It appears whole or not at all; processes that ask at once wait for the first.

    Args:
        folder: Where caches are kept.
        read: Image file -> uint8 (S,S,3), the same S for all, and (width, height) of the file.
        what: Says in words what `read` does; another word makes another cache.

    Raises:
        ValueError: an image cannot be read, or the cache not be written; says how to go without.
    """
    folder = Path(folder).expanduser()
    place = hashlib.sha256("\n".join([what, *map(str, files)]).encode()).hexdigest()[:16]
    target = folder / f"{place}-{_fingerprint(files)}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{place}.lock"):
            if not target.is_file():
                _write(target, files, read)
                for old in folder.glob(f"{place}-*.npy"):
                    if old != target:
                        old.unlink()
    except OSError as error:
        raise ValueError(
            f"cannot write the image cache {folder}: {error.strerror or error}; name another "
            "folder (data.cache), or null to decode images every time"
        ) from error
    return target


@lru_cache(maxsize=8)
def load_images(cache: Path) -> np.memmap:
    """(N,) records `image`, uint8 (S,S,3), and `size`, (width, height) of the file; read-only.

    Raises:
        ValueError: the file is damaged; names it.
    """
    try:
        images = np.load(cache, mmap_mode="r")
        if images.dtype.names != ("size", "image"):
            raise ValueError(f"it holds {images.dtype}")
    except Exception as error:  # a damaged file makes NumPy raise almost anything
        raise ValueError(f"the image cache {cache} is damaged, remove it: {error}") from error
    return images


def _fingerprint(files: Sequence[Path]) -> str:
    stats = [_stat(file) for file in files]
    return hashlib.sha256(json.dumps([_FORMAT, stats]).encode()).hexdigest()[:16]


def _stat(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError as error:
        raise ValueError(f"cannot read image {file}: {error.strerror}") from error
    return stat.st_size, stat.st_mtime_ns


def _write(target: Path, files: Sequence[Path], read: Callable) -> None:
    partial = target.with_suffix(".partial")
    first, _ = read(files[0])
    record = np.dtype([("size", np.int32, 2), ("image", np.uint8, first.shape)])
    try:
        store = np.lib.format.open_memmap(partial, "w+", record, (len(files),))
        _reserve(partial)
        with ThreadPoolExecutor() as pool:
            rows = pool.map(read, files)
            for index, (image, size) in enumerate(
                tqdm(rows, "caching images", len(files), leave=False, unit="image")
            ):
                store[index] = (size, image)
        store.flush()
        del store
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _reserve(file: Path) -> None:
    """Take the disk space now: a memory map that runs out of it later kills the process."""
    if hasattr(os, "posix_fallocate"):
        with open(file, "r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
