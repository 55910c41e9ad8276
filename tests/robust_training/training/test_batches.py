"""The images of a step and their random draws depend only on seed, epoch and place."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from robust_training.training.batches import SeededBatches, batches_per_process, load_epoch, seed_of


class Drawing(Dataset):
    """Items with a draw of each generator. It counts the loaded items."""

    def __init__(self, size=24):
        self.size = size
        self.loaded = []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.loaded.append(index)
        # global generators, because data sets may use them
        draws = torch.rand(()).item(), np.random.rand(), random.random()  # noqa: NPY002 (seeded, too)
        return {"index": index, "draws": torch.tensor(draws)}


def seeded(size=24, batch_size=4, *, shuffle=True, drop_last=True, **settings):
    batches = SeededBatches(size, batch_size, shuffle=shuffle, drop_last=drop_last)
    return DataLoader(Drawing(size), batch_sampler=batches, **settings)


def plain(size=24, **settings):
    return DataLoader(Drawing(size), **({"batch_size": 4, "shuffle": True} | settings))


def batches(loader=None, first=0, rank=0, world=1):
    loaded = load_epoch(loader or seeded(), 3, 1, first=first, rank=rank, world=world)
    return [batch for batch, _ in loaded]


def flat(found):
    return [
        (int(i), *draws.tolist())
        for batch in found
        for i, draws in zip(batch["index"], batch["draws"], strict=True)
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_processes_and_generators_do_not_matter(workers):
    expected = flat(batches())
    torch.manual_seed(5)
    assert flat(batches(seeded(num_workers=workers))) == expected
    assert sorted(index for index, *_ in expected) == list(range(24))
    assert len({draw for _, *draws in expected for draw in draws}) == 3 * 24


def test_the_order_equals_a_shuffled_loaders_order():
    """Runs of earlier versions had such loaders. They can be resumed."""
    torch.manual_seed(seed_of(3, 1))
    order = [i for indices in plain().batch_sampler for i in indices]
    assert [index for index, *_ in flat(batches())] == order
    assert [index for index, *_ in flat(batches(seeded(shuffle=False)))] == list(range(24))


@pytest.mark.parametrize("make", [seeded, plain])
def test_processes_divide_the_batches_of_one(make):
    single = batches(make())
    both = [batches(make(), rank=rank, world=2) for rank in range(2)]
    assert flat(single) == flat([batch for pair in zip(*both, strict=True) for batch in pair])


def test_the_batch_size_does_not_matter():
    assert flat(batches()) == flat(batches(seeded(batch_size=8)))


def test_a_number_of_batches_that_is_no_multiple_of_the_processes():
    assert [len(batches(seeded(20), rank=r, world=2)) for r in range(2)] == [2, 2]
    kept = [batches(seeded(19, drop_last=False), rank=r, world=2) for r in range(2)]
    assert [len(each) for each in kept] == [3, 3]
    assert {i for each in kept for i, *_ in flat(each)} == set(range(19))
    assert [len(batches(plain(19), rank=r, world=2)) for r in range(2)] == [2, 2]
    for make in (seeded, plain):
        with pytest.raises(ValueError, match="fewer than 8 processes"):
            batches_per_process(make(), 8)


def test_an_epoch_begun_in_the_middle_loads_no_earlier_batch():
    loader = seeded()
    found = flat(batches(loader, first=4))
    assert found == flat(batches())[16:]
    assert len(loader.dataset.loaded) == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_loader_loads_and_drops_earlier_batches(workers):
    """The draws depend only on the number of loader processes."""
    expected = flat(batches(plain(num_workers=workers)))
    torch.manual_seed(5)
    assert flat(batches(plain(num_workers=workers), first=4)) == expected[16:]


def test_names_of_images():
    class Named(Drawing):
        def name(self, index):
            return f"bird {index}"

    named = DataLoader(Named(8), batch_sampler=SeededBatches(8, 4, shuffle=False))
    assert next(load_epoch(named, 0))[1] == ["bird 0", "bird 1", "bird 2", "bird 3"]
    assert [int(name) for name in next(load_epoch(seeded(shuffle=False), 0))[1]] == [0, 1, 2, 3]
    assert next(load_epoch(plain(), 0, first=1))[1][0] == "1 of batch 2"


def test_epochs_and_seeds_differ():
    orders = {
        tuple(SeededBatches(24, 24).begin_epoch(*seeds)[0].indices)
        for seeds in ((0, 0), (0, 1), (1, 0), (1, 1), (-1, 0))
    }
    assert len(orders) == 5
    assert seed_of(1, 2) == seed_of(1, 2) != seed_of(2, 1)


def test_outside_of_training_every_epoch_has_a_new_order():
    loader = seeded()
    batches(loader)
    orders = {tuple(index for index, *_ in flat(loader)) for _ in range(3)}
    assert len(orders) == 3


class Slow(Drawing):
    def __getitem__(self, index):
        time.sleep(0 if index < 4 else 60)
        return super().__getitem__(index)


class Kept(DataLoader):
    """Keeps its iterator alive, like a stored exception with a reference to it."""

    def __iter__(self):
        self.kept = super().__iter__()
        return self.kept


@pytest.mark.parametrize(("kind", "images"), [(DataLoader, Drawing), (Kept, Slow)])
def test_loader_processes_end_when_the_epoch_is_left(kind, images):
    """Another daemonic process stays alive."""
    host = multiprocessing.Process(target=time.sleep, args=(60,), daemon=True)
    host.start()
    batches = SeededBatches(8, 4, shuffle=False)
    loaded = load_epoch(kind(images(8), batch_sampler=batches, num_workers=1), 0)
    next(loaded)
    (worker,) = (p for p in multiprocessing.active_children() if p is not host)
    before = signal.getsignal(signal.SIGCHLD)
    loaded.close()
    assert not worker.is_alive()
    assert host.is_alive()
    assert signal.getsignal(signal.SIGCHLD) is before
    host.kill()
    host.join()


@pytest.mark.ci
def test_python_exits_after_an_unfinished_epoch(tmp_path):
    script = tmp_path / "left.py"
    script.write_text(
        "import torch\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "from robust_training.training.batches import load_epoch\n"
        "class Images(TensorDataset):\n"
        "    def __getitem__(self, index):\n"
        "        return {'image': super().__getitem__(index)}\n"
        "left = load_epoch(DataLoader(Images(torch.arange(8)), 2, num_workers=1), 0)\n"
        "next(left)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("make", [seeded, plain])
def test_signals_of_a_job_do_not_reach_loader_processes(make):
    """Ctrl-C and SIGTERM often reach every process of a job."""
    loaded = load_epoch(make(num_workers=1), 0)
    next(loaded)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    assert len(list(loaded)) == 5
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
