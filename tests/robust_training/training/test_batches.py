"""Which images a step sees depends on seed, epoch and place alone."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from robust_training.training.batches import EpochBatches, seed_of


class Drawing(Dataset):
    """Items with a draw of each generator; counts what is loaded."""

    def __init__(self, size=24):
        self.size = size
        self.loaded = []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.loaded.append(index)
        draws = torch.rand(()).item(), np.random.rand(), random.random()  # noqa: NPY002
        return {"index": index, "draws": torch.tensor(draws)}


def batches(first=0, rank=0, world=1, size=24, **loader):
    settings = {"batch_size": 4, "shuffle": True, "drop_last": True} | loader
    loader = DataLoader(Drawing(size), **settings)
    return list(EpochBatches(loader, 3, 1, rank=rank, world=world).starting_at(first))


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
    assert flat(batches(num_workers=workers)) == expected
    assert sorted(index for index, *_ in expected) == list(range(24))
    assert len({draw for _, *draws in expected for draw in draws}) == 3 * 24


def test_processes_share_the_batches_of_one():
    alone = batches()
    both = [batches(rank=rank, world=2) for rank in range(2)]
    assert flat(alone) == flat([batch for pair in zip(*both, strict=True) for batch in pair])
    assert flat(alone) == flat(batches(batch_size=8))


def test_batches_that_do_not_divide():
    assert [len(batches(rank=r, world=2, size=20)) for r in range(2)] == [2, 2]
    kept = [batches(rank=r, world=2, size=19, drop_last=False) for r in range(2)]
    assert [len(each) for each in kept] == [3, 3]
    assert {i for each in kept for i, *_ in flat(each)} == set(range(19))
    with pytest.raises(ValueError, match="fewer than 8 processes"):
        batches(world=8)


def test_an_epoch_begun_within_loads_nothing_before():
    loader = DataLoader(Drawing(), 4, shuffle=True)
    found = flat(EpochBatches(loader, 3, 1).starting_at(4))
    assert found == flat(batches())[16:]
    assert len(loader.dataset.loaded) == 8


def test_epochs_and_seeds_differ():
    orders = {
        tuple(EpochBatches(DataLoader(Drawing(), 24, shuffle=True), *seeds).indices(0))
        for seeds in ((0, 0), (0, 1), (1, 0), (1, 1), (-1, 0))
    }
    assert len(orders) == 5
    assert seed_of(1, 2) == seed_of(1, 2) != seed_of(2, 1)


def test_python_exits_though_an_epoch_was_left_in_the_middle(tmp_path):
    """Whatever still refers to it: an error that somebody keeps, say."""
    script = tmp_path / "left.py"
    script.write_text(
        "import torch\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "from robust_training.training.batches import EpochBatches\n"
        "loader = DataLoader(TensorDataset(torch.arange(8)), 2, shuffle=True, num_workers=1)\n"
        "left = EpochBatches(loader, 0).starting_at(0)\n"
        "next(left)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
