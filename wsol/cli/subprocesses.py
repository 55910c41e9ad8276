"""Scripts in processes of their own, several at once."""

import hashlib
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robust_training.atomic_io import write_texts
from robust_training.training.checkpoint import LAST
from wsol.data.text_files import read_json

TRAINED_WITH = "trained_with.json"


def run_script(
    script: Path, arguments: Sequence[str], log: Path, *, threads: int | None = None
) -> None:
    """Run a Python script and append the command and all that it prints to `log`.

    Args:
        threads: For PyTorch in that process; None leaves it as it is.

    Raises:
        ValueError: it failed; says its last line.
    """
    command = shlex.join([script.name, *arguments])
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    with open(log, "a") as file:
        file.write(f"$ {command}\n")
        file.flush()
        status = subprocess.call(
            [sys.executable, str(script), *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
    if status:
        last = log.read_text(errors="replace").strip().splitlines()[-1]
        raise ValueError(f"{command} failed: {last} (all of it is in {log})")


def run_all(call: Callable[..., None], tasks: Sequence[tuple], jobs: int, title: str) -> None:
    """`call` on the arguments of each task, `jobs` at once; after a failure none begins any more.

    Raises:
        Exception: the first one that a call raised.
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

    bar = tqdm(total=len(tasks), desc=title, unit="run")
    with bar, ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(attempt, tasks):
            bar.update()


def fingerprint(content: Path | str) -> str:
    """Of a file, or of a text: another one where a byte differs."""
    data = content.read_bytes() if isinstance(content, Path) else content.encode()
    return hashlib.sha256(data).hexdigest()


def remember(folder: Path, settings: Mapping[str, Any], *, made: str = f"**/{LAST}") -> None:
    """Keep in trained_with.json what the runs below a folder are trained with, JSON values.

    Args:
        made: Pattern of what was already made with them.

    Raises:
        ValueError: some already were with something else.
    """
    file = folder / TRAINED_WITH
    if file.is_file() and any(folder.glob(made)):
        before = read_json(file)
        if not isinstance(before, dict):
            raise ValueError(f"{file} is damaged")
        changed = [key for key in settings if settings[key] != before.get(key)]
        if changed:
            value = str(before.get(changed[0]))
            was = f" {value}" if len(value) <= 64 and "\n" not in value else ""
            raise ValueError(
                f"{folder} holds runs with another {changed[0]}{was}; choose another --output"
            )
    write_texts(folder, {file.name: json.dumps(settings, indent=2)})


def threads_each(jobs: int) -> int | None:
    """An equal share of the cores for each of several processes; None for a single one."""
    return None if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)
