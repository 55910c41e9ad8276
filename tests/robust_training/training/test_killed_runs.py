"""A run that was killed, stopped or out of disk space resumes and equals the uninterrupted run."""

import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robust_training.attacks.pgd import PGD
from robust_training.models.saving import load_model
from robust_training.objectives import AdversarialTraining
from robust_training.training.interrupts import Stopped
from tests.helpers.commands import ROOT
from tests.helpers.commands import train as train_tool
from tests.robust_training.training.test_fit import Stripes, train
from wsol.cli.parser import run as run_tool

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
DISK = ("--config", ROOT / "configs" / "methods" / "standard.yaml")
ATTACKED = AdversarialTraining(attack=PGD(2 / 255, 2 / 255, 1))


def rows(folder):
    with open(folder / "log.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)["step"]


def assert_whole(folder):
    """All files after a kill can be read."""
    if (folder / "last.ckpt").exists():
        assert weights(folder)
    if (folder / "best").exists():
        load_model(folder / "best")


def assert_same_run(folder, whole):
    """Weights, logs and best models are equal bit for bit. The folder has no other file."""
    expected, found = weights(whole), weights(folder)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert rows(folder) == rows(whole)
    best = Path("best") / "model.safetensors"
    assert (folder / best).read_bytes() == (whole / best).read_bytes()
    names = [{p.relative_to(f) for p in f.rglob("*")} for f in (folder, whole)]
    assert names[0] == names[1]


def killed_runs(folder, points, *data):
    script = ROOT / "tests" / "helpers" / "killed_run.py"
    command = [sys.executable, *map(str, (script, folder, points, *data))]
    subprocess.run(command, check=True, env=ENVIRONMENT, timeout=1800)
    for point in range(points):
        assert_whole(folder / str(point) / "killed")
        assert_same_run(folder / str(point) / "run", folder / "whole" / "run")


@pytest.mark.ci
def test_a_run_killed_while_it_writes_equals_the_uninterrupted_run(tmp_path):
    killed_runs(tmp_path, 3)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_of_writing_equals_the_uninterrupted_run(tmp_path):
    killed_runs(tmp_path, 40)


@pytest.mark.slow
def test_a_command_killed_at_random_moments_equals_the_uninterrupted_run(toy, tmp_path):
    killed_runs(tmp_path, 20, toy)


def signal_at(item, number, monkeypatch):
    """Send the signal after a number of loaded images: 16 before the training and 16 in each epoch
    and in each validation."""
    load, loaded = Stripes.__getitem__, []

    def counting(self, index):
        loaded.append(index)
        if len(loaded) == item:
            os.kill(os.getpid(), number)
        return load(self, index)

    monkeypatch.setattr(Stripes, "__getitem__", counting)


@pytest.mark.parametrize(
    ("item", "number", "settings"),
    [
        (3, signal.SIGINT, {}),  # before the training
        (36, signal.SIGINT, {}),  # validation
        (51, signal.SIGTERM, {"batch": 4, "accumulate": 2}),
        (18, signal.SIGINT, {"batch": 4, "replays": 2}),
    ],
)
def test_a_stopped_run_continues_there(tmp_path, monkeypatch, item, number, settings):
    settings = {"epochs": 2, "objective": ATTACKED} | settings
    handler = signal.getsignal(number)
    train(tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        signal_at(item, number, patch)
        with pytest.raises(Stopped, match=rf"{number.name} in epoch .* --resume") as stopped:
            train(tmp_path / "parts", **settings)
    done = torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["progress"]
    assert (done["batches"] > 0) == (item > 16)
    assert done["batches"] <= done["of"]
    assert signal.getsignal(number) == handler
    train(tmp_path / "parts", resume=True, **settings)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")

    def main(arguments):
        raise stopped.value

    with pytest.raises(SystemExit) as leaving:
        run_tool(main)
    assert leaving.value.code == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]


def test_another_batch_size_is_refused_within_an_epoch(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(3, signal.SIGTERM, patch)
        with pytest.raises(Stopped):
            train(tmp_path / "run")
    with pytest.raises(ValueError, match="after 1 of 2 batches of an epoch, but an epoch now"):
        train(tmp_path / "run", batch=4, resume=True)


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def saved(toy, tmp_path_factory):
    """A run of one epoch."""
    output = tmp_path_factory.mktemp("saved") / "run"
    status, _, error = train_tool(*DISK, "--data.root", toy, "--output", output)
    assert status == 0, error
    return output


@pytest.mark.parametrize("write", [2, 3, 6, 7])
def test_a_full_disk_gives_one_line_and_loses_nothing_saved(
    toy, saved, tmp_path, monkeypatch, write
):
    """Writing fails when the n-th file is written: the config, the log, the best
    model, the checkpoint."""
    output = shutil.copytree(saved, tmp_path / "run")
    arguments = (*DISK, "--data.root", toy, "--output", output)
    before = everything(output)
    synced = []

    def fsync(handle):
        synced.append(handle)
        if len(synced) >= write:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("robust_training.atomic_io.os.fsync", fsync)
        status, _, error = train_tool(*arguments, "--epochs", 2, "--resume")
    assert status == 2
    assert error.startswith("error: ")
    assert "No space left on device" in error
    after = everything(output)
    assert after.keys() == before.keys()
    assert after[Path("last.ckpt")] == before[Path("last.ckpt")]
    load_model(output / "best")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two epochs that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, epochs=2)
    return folder


@pytest.mark.parametrize("free", [0, 500_000, 2_000_000])
def test_a_real_full_disk(whole, tmp_path, free):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk can be mounted by root alone, on Linux")
    try:
        train(disk / "run", epochs=1)
        before = everything(disk / "run")
        room = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(room.f_bavail * room.f_bsize - free))
        with pytest.raises(OSError, match="No space left on device"):
            train(disk / "run", epochs=2, resume=True)
        after = everything(disk / "run")
        assert after.keys() == before.keys()
        assert after[Path("last.ckpt")] == before[Path("last.ckpt")]
        load_model(disk / "run" / "best")
        (disk / "filler").unlink()
        train(disk / "run", epochs=2, resume=True)
        assert_same_run(disk / "run", whole)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
