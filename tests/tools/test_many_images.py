"""Localizing many images."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from robust_training.models.creating import create_model
from robust_training.models.saving import save_model
from tests.helpers.commands import ROOT


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
