"""The image cache: the same items, whole or not at all, never stale."""

import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest
import torch

from wsol.data.cub import CUB200
from wsol.data.image_cache import cached_images, load_images
from wsol.data.loaders import DataConfig


@pytest.fixture
def copy(toy, tmp_path):
    return shutil.copytree(toy, tmp_path / "CUB_200_2011")


def items(root, cache, split="train"):
    data = DataConfig(str(root), image_size=32, batch_size=4, num_workers=0, cache=cache)
    torch.manual_seed(3)
    return list(data.training_loader() if split == "train" else data.loader(split))


@pytest.mark.parametrize("split", ["train", "test"])
def test_cached_pixels_are_the_same_bit_for_bit(toy, tmp_path, split):
    """Also by a loader process, and from the file that an earlier one has made."""
    decoded = items(toy, None, split)
    for _ in range(2):
        cached = items(toy, tmp_path / "cache", split)
        for expected, batch in zip(decoded, cached, strict=True):
            assert expected.keys() == batch.keys()
            for key in expected:
                atol = 1e-4 if key == "box" else 0  # rescaled in another order
                torch.testing.assert_close(batch[key], expected[key], rtol=0, atol=atol)
    data = DataConfig(str(toy), 32, batch_size=4, num_workers=1, cache=str(tmp_path / "cache"))
    torch.testing.assert_close(
        next(iter(data.loader("test")))["image"], items(toy, None, "test")[0]["image"]
    )


def test_a_changed_image_makes_a_new_cache_and_the_old_one_goes(copy, tmp_path):
    folder = tmp_path / "cache"
    before = items(copy, folder, "test")[0]["image"]
    (first,) = folder.glob("*.npy")
    path = CUB200(copy, "test").examples[0].path
    other = CUB200(copy, "test").examples[-1].path
    shutil.copy(other, path)
    after = items(copy, folder, "test")
    assert (after[0]["image"][0] != before[0]).any()
    torch.testing.assert_close(after[0]["image"][0], after[-1]["image"][-1])
    (second,) = folder.glob("*.npy")
    assert second != first


def test_a_broken_image_leaves_no_cache(copy, tmp_path):
    CUB200(copy, "test").examples[5].path.write_text("no image")
    with pytest.raises(ValueError, match="cannot read image"):
        items(copy, tmp_path / "cache", "test")
    assert not list((tmp_path / "cache").glob("*.npy"))
    assert not list((tmp_path / "cache").glob("*.partial"))
    CUB200(copy, "test").examples[5].path.unlink()
    with pytest.raises(ValueError, match="cannot read image"):
        items(copy, tmp_path / "cache", "test")


def test_a_cache_that_cannot_be_written_says_how_to_go_without(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"image cache .*file/x.*data.cache"):
        items(toy, tmp_path / "file" / "x", "test")


def _slow(path):
    time.sleep(0.05)
    with open(path.parent / f"read-by-{os.getpid()}", "a") as log:
        log.write(".")
    return np.full((4, 4, 3), int(path.read_text()), np.uint8), (4, 4)


def _ask(folder, files, queue):
    record = load_images(cached_images(folder, files, _slow, "test"))
    queue.put([int(image.min()) for image in record["image"]])


def test_processes_that_ask_at_once_share_one_whole_cache(tmp_path):
    files = [tmp_path / f"{index}.txt" for index in range(6)]
    for index, file in enumerate(files):
        file.write_text(str(index))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (tmp_path / "cache", files, queue)
    processes = [context.Process(target=_ask, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=30) for _ in processes] == [list(range(6))] * 4
    for process in processes:
        process.join()
    (log,) = tmp_path.glob("read-by-*")
    assert len(log.read_text()) == 7  # the first image also says how large all are
