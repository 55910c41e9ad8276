"""Many images, many processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from robust_training.models.classifier import create_model, save_model
from tests.helpers.commands import ROOT
from wsol.data.image_cache import cached_images, load_images

FORK = multiprocessing.get_context("fork")


def _read(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """One number from a file, all over an image: any mixture of two files shows."""
    return np.full((16, 16, 3), int(path.read_text()), np.uint8), (16, 16)


def _slowly(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    time.sleep(0.05)
    return _read(path)


def _files(folder: Path, value: int, count: int = 30) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"{index}.txt" for index in range(count)]
    for index, file in enumerate(files):
        partial = file.with_suffix(".new")
        partial.write_text(str(1 + (value + index) % 255))  # 0 is what nobody has written yet
        os.replace(partial, file)
    return files


def _ask(cache: Path, files: list[Path], reads: int, queue) -> None:
    """Open the cache `reads` times; every image must be of one file."""
    torn: list[int] = []
    while reads:
        try:
            images = load_images.__wrapped__(cached_images(cache, files, _read, "x"))["image"]
        except (OSError, ValueError):  # replaced between the two calls: named, not torn
            continue
        reads -= 1
        flat = images.reshape(len(files), -1)
        low, high = flat.min(axis=1), flat.max(axis=1)
        torn += np.flatnonzero((low != high) | (low == 0)).tolist()
    queue.put(torn)


def _torn_reads(tmp_path: Path, reads: int) -> list[int]:
    """Images that eight processes saw in pieces, while the files changed under them."""
    files = _files(tmp_path / "data", 0)
    queue = FORK.Queue()
    arguments = (tmp_path / "cache", files, reads, queue)
    workers = [FORK.Process(target=_ask, args=arguments, daemon=True) for _ in range(8)]
    for worker in workers:
        worker.start()
    value = 0
    while value < 2 * reads and any(worker.is_alive() for worker in workers):
        value += 1
        _files(tmp_path / "data", value)
        time.sleep(0.05)
    torn = [index for _ in workers for index in queue.get(timeout=120)]
    for worker in workers:
        worker.join()
    final = load_images(cached_images(tmp_path / "cache", files, _read, "x"))["image"]
    expected = [1 + (value + index) % 255 for index in range(len(files))]
    assert final[:, 0, 0, 0].tolist() == expected, "the last state of the files"
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1, "older ones are gone"
    return torn


def test_eight_processes_share_a_cache_whose_images_change(tmp_path):
    assert _torn_reads(tmp_path, 10) == []


@pytest.mark.slow
def test_eight_processes_share_a_cache_for_long(tmp_path):
    assert _torn_reads(tmp_path, 200) == []


def test_a_writer_that_is_killed_leaves_no_cache_and_no_lock(tmp_path):
    files = _files(tmp_path / "data", 7)
    cache = tmp_path / "cache"
    writer = FORK.Process(target=cached_images, args=(cache, files, _slowly, "x"))
    writer.start()
    deadline = time.time() + 30
    while not list(cache.glob("*.partial")) and time.time() < deadline:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert list(cache.glob("*.partial")), "it was killed while it wrote"
    assert not list(cache.glob("*.npy"))
    images = load_images(cached_images(cache, files, _read, "x"))["image"]
    assert images[:, 3, 3, 1].tolist() == [8 + index for index in range(30)]
    assert not list(cache.glob("*.partial"))


@pytest.mark.parametrize("damage", ["half", "other", "text", "objects"])
def test_a_damaged_cache_is_named(tmp_path, damage):
    files = _files(tmp_path / "data", 1)
    file = cached_images(tmp_path / "cache", files, _read, "x")
    if damage == "half":
        file.write_bytes(file.read_bytes()[:2000])
    elif damage == "other":
        np.save(file, np.zeros(3))
    elif damage == "text":
        file.write_text("no cache")
    else:
        np.save(file, np.array([{}], object))
    with pytest.raises(ValueError, match=rf"the image cache .*{file.name} is damaged, remove it"):
        load_images(file)


@pytest.mark.slow
def test_memory_and_speed_stay_flat_over_20000_images(toy, tmp_path):
    """RSS and processor time (which other programs' load does not change) at 10, 90 and 100 %."""
    count = 20_000
    torch.manual_seed(0)
    save_model(create_model("test_resnet", 4, image_size=64), tmp_path / "model")
    birds = sorted((toy / "images").rglob("*.jpg"))
    (tmp_path / "images").mkdir()
    for index in range(count):
        os.link(birds[index % len(birds)], tmp_path / "images" / f"{index:05d}.jpg")
    out = tmp_path / "out"
    command = [ROOT / "tools" / "localize.py", tmp_path / "model", tmp_path / "images"]
    tool = subprocess.Popen(
        [sys.executable, *command, "--output", out], stderr=subprocess.DEVNULL, cwd=ROOT
    )
    seen = []
    while tool.poll() is None:
        done = len(os.listdir(out / "heatmaps")) if (out / "heatmaps").exists() else 0
        fields = Path(f"/proc/{tool.pid}/stat").read_text().rpartition(")")[2].split()
        if done and fields[0] != "Z":
            pages, ticks = int(fields[21]), int(fields[11]) + int(fields[12])
            megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            seen.append((done, megabytes, ticks / os.sysconf("SC_CLK_TCK")))
        time.sleep(0.2)
    assert tool.returncode == 0

    def at(share: float) -> tuple[int, float, float]:
        return next(each for each in seen if each[0] >= share * count)

    start, tenth, late, end = seen[0], at(0.1), at(0.9), at(1)
    first = (tenth[0] - start[0]) / (tenth[2] - start[2])
    last = (end[0] - late[0]) / (end[2] - late[2])
    print(f"images a second: {first:.0f}, {last:.0f}; MB: {tenth[1]:.0f}, {end[1]:.0f}")
    assert end[1] - tenth[1] < 64  # 18,000 results of under 4 KB
    assert last > first / 2
