"""Two processes give the same training as one."""

import csv
import os
import subprocess
import sys

import pytest
import torch
from lightning_fabric import Fabric

from tests.helpers.commands import ROOT
from tests.helpers.each_objective import OBJECTIVES, gradients
from tests.robust_training.training.test_fit import train

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that tests/helpers/two_processes.py has filled."""
    folder = tmp_path_factory.mktemp("two_processes")
    command = [sys.executable, ROOT / "tests" / "helpers" / "two_processes.py", folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    return folder


def read_log(folder):
    with open(folder / "log.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_two_processes_keep_the_schedule_and_resume(folder):
    whole = read_log(folder / "whole")
    assert [float(row["lr"]) for row in whole] == pytest.approx([0.05, 0.05, 0.005])
    assert read_log(folder / "parts") == whole
    _, log = train(folder / "first", epochs=3, batch=4, accumulate=2, milestones=(2,), resume=True)
    assert [row["epoch"] for row in log] == [1, 2, 3]
    assert [row["lr"] for row in log] == pytest.approx([0.05, 0.05, 0.005])
    assert log[0]["cross_entropy"] == pytest.approx(float(whole[0]["cross_entropy"]))
    assert log[2]["cross_entropy"] < log[0]["cross_entropy"]


def test_two_processes_give_the_gradients_of_one(folder):
    """In float64 and without batch statistics; finite differences within their error."""
    both = torch.load(folder / "gradients.pt")
    single = gradients(Fabric(accelerator="cpu", devices=1, precision="64-true"))
    assert list(both) == list(OBJECTIVES)
    for name in OBJECTIVES:
        exact = "first-order" not in name
        torch.testing.assert_close(
            both[name], single[name], rtol=0, atol=1e-10 if exact else 1e-7, msg=name
        )
        assert max(gradient.abs().max() for gradient in single[name]) > 1e-3


def test_two_processes_skip_stop_and_resume_together(folder):
    logs = [read_log(folder / "skipped" / name) for name in ("whole", "parts")]
    assert [row["skipped"] for row in logs[0]] == ["0", "1", "0"]
    for whole, parts in zip(*logs, strict=True):
        for column in whole:
            assert float(parts[column]) == pytest.approx(float(whole[column]), rel=1e-5)
    kept = [p.name for p in folder.glob("skipped/*/*.pt")]
    assert kept == ["nonfinite-epoch2-step3-process1.pt"] * 2
