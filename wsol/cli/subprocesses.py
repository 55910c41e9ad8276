"""Run commands in processes of their own, several at once."""

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from robust_training.progress import Progress
from robust_training.training.checkpoint import LAST
from wsol.cli.program import other, process_words


def run_command(name: str, arguments: Sequence[str], log: Path, *, at_once: int = 1) -> None:
    """Run a command of `wsol`, and append its words and all its output to the file `log`.

    Args:
        at_once: Number of commands that run at the same time. Each of several gets an equal part of
            the cores as PyTorch's threads; a single one keeps PyTorch's default.

    Raises:
        ValueError: the command failed; the message ends with the last line of its output.
    """
    command = other(name, *arguments)
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // at_once)
    environment = {} if at_once == 1 else {"OMP_NUM_THREADS": str(threads)}
    with open(log, "a") as file:
        file.write(f"$ {command}\n")
        file.flush()
        status = subprocess.call(
            process_words(name, arguments),
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
    if status:
        last = log.read_text(errors="replace").strip().splitlines()[-1]
        raise ValueError(f"{command} failed: {last} (all of it is in {log})")


def train(
    configs: Sequence[Path | str], options: Sequence[str], run: Path, *, at_once: int
) -> None:
    """Train the run in the folder `run`, or continue it, by `run_command`. Its log is <run>.log."""
    files = [option for file in configs for option in ("--config", str(file))]
    resume = ["--resume"] if (run / LAST).exists() else []
    arguments = [*files, *options, "--output", str(run), *resume]
    run_command("train", arguments, run.with_name(f"{run.name}.log"), at_once=at_once)


def run_parallel(
    call: Callable[..., None], tasks: Sequence[tuple], at_once: int, title: str
) -> None:
    """Run `call(*task)` for each task in threads, `at_once` of them at the same time.

    After a failure no further task begins.

    Raises:
        Exception: the first exception that a call raised.
    """
    failed = threading.Event()

    def attempt(task: tuple) -> None:
        if failed.is_set():
            return
        try:
            call(*task)
        except BaseException:
            failed.set()
            raise

    bar = Progress(total=len(tasks), desc=title, unit="run")
    with bar, ThreadPoolExecutor(at_once) as pool:
        for _ in pool.map(attempt, tasks):
            bar.update()
