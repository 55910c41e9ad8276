"""Trains in another process."""

from collections.abc import Sequence
from pathlib import Path

from robust_training.training.checkpoint import LAST
from wsol.cli.subprocesses import run_command


def train(
    configs: Sequence[Path | str], options: Sequence[str], run: Path, *, at_once: int
) -> None:
    """Trains the run in the folder `run`, or continues it. Its log is <run>.log.

    Args:
        at_once: Number of trainings at the same time (`run_command`).
    """
    files = [option for file in configs for option in ("--config", str(file))]
    resume = ["--resume"] if (run / LAST).exists() else []
    arguments = [*files, *options, "--output", str(run), *resume]
    run_command("train", arguments, run.with_name(f"{run.name}.log"), at_once=at_once)
