"""Two processes give the same training as one."""

import csv
import os
import shutil
import subprocess
import sys

import pytest
import torch
from lightning_fabric import Fabric

from tests.helpers.commands import ROOT
from tests.helpers.gradients_in_two_processes import OBJECTIVES, gradients
from tests.robust_training.training.test_fit import train


def in_two_processes(script, *arguments):
    """Run a script whose Fabric starts two processes."""
    file = ROOT / "tests" / "helpers" / script
    command = [sys.executable, str(file), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)


def train_in_two_processes(folder, *arguments):
    """Train, and return the log."""
    in_two_processes("train_in_two_processes.py", folder, *arguments)
    with open(folder / "log.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_two_processes_keep_the_schedule_and_resume(tmp_path):
    whole = train_in_two_processes(tmp_path / "whole", "3")
    assert [float(row["lr"]) for row in whole] == pytest.approx([0.05, 0.05, 0.005])
    train_in_two_processes(tmp_path / "parts", "1")
    shutil.copytree(tmp_path / "parts", tmp_path / "single")
    assert train_in_two_processes(tmp_path / "parts", "3", "resume") == whole
    _, log = train(
        tmp_path / "single", epochs=3, batch=4, accumulate=2, milestones=(2,), resume=True
    )
    assert [row["epoch"] for row in log] == [1, 2, 3]
    assert [row["lr"] for row in log] == pytest.approx([0.05, 0.05, 0.005])
    assert log[0]["cross_entropy"] == pytest.approx(float(whole[0]["cross_entropy"]))
    assert log[2]["cross_entropy"] < log[0]["cross_entropy"]


def test_two_processes_give_the_gradients_of_one(tmp_path):
    """In float64 and without batch statistics; finite differences within their error."""
    in_two_processes("gradients_in_two_processes.py", tmp_path / "gradients.pt")
    both = torch.load(tmp_path / "gradients.pt")
    single = gradients(Fabric(accelerator="cpu", devices=1, precision="64-true"))
    assert list(both) == list(OBJECTIVES)
    for name in OBJECTIVES:
        exact = "first-order" not in name
        torch.testing.assert_close(
            both[name], single[name], rtol=0, atol=1e-10 if exact else 1e-7, msg=name
        )
        assert max(gradient.abs().max() for gradient in single[name]) > 1e-3


def test_two_processes_skip_stop_and_resume_together(tmp_path):
    in_two_processes("stopped_in_two_processes.py", tmp_path)
    logs = {}
    for name in ("whole", "parts"):
        with open(tmp_path / name / "log.csv") as file:
            logs[name] = list(csv.DictReader(file))
    assert [row["skipped"] for row in logs["whole"]] == ["0", "1", "0"]
    for whole, parts in zip(*logs.values(), strict=True):
        for column in whole.keys() - {"seconds"}:
            assert float(parts[column]) == pytest.approx(float(whole[column]), rel=1e-5)
    assert [p.name for p in tmp_path.glob("*/*.pt")] == ["nonfinite-epoch2-step3-process1.pt"] * 2
