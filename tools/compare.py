"""Train several configurations with equal budgets and seeds, and compare them:

    compare.py configs/methods/*.yaml --base configs/toy_standard.yaml --epochs 5 --seeds 0 1 2
        --output DIR -- --data.root DATA

What stands after `--` goes to every run of train.py. Each run is a folder DIR/<config>/seed<n>,
trained by train.py and scored by evaluate.py; what is finished is not done again, and what was
interrupted goes on. Writes comparison.md, comparison.csv, accuracy_gt_known.png,
accuracy_robustness.png (where robustness was measured) and maps.png. Times are multiples of the
first configuration's.
"""

import itertools
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from tqdm import tqdm

from robust_training.checkpoint import LAST
from robust_training.files import write_texts
from wsol.cli import Parser, run
from wsol.comparison import (
    ACCURACY,
    GT_KNOWN,
    ROBUSTNESS,
    Trained,
    csv_table,
    differences,
    epoch_seconds,
    method_table,
    read_run,
    scatter,
    sheet,
)
from wsol.data.loaders import read_data_config

_TOOLS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Runs:
    """Where the runs are, and what they have in common.

    Attributes:
        base: Configurations that each of `configs` is laid over.
        options: Of train.py, for every run.
        robustness: Whether maps are scored under attack, too.
        threads: For each of `jobs` processes at once.
    """

    output: Path
    configs: dict[str, Path]
    base: list[str]
    options: list[str]
    robustness: bool
    threads: int
    jobs: int

    def train(self, name: str, seed: int, epochs: int, folder: Path) -> None:
        if len(epoch_seconds(folder)) >= epochs:
            return
        resume = ["--resume"] if (folder / LAST).exists() else []
        configs = (("--config", file) for file in (*self.base, str(self.configs[name])))
        command = ["train.py", *itertools.chain(*configs), *self.options]
        own = ["--seed", str(seed), "--epochs", str(epochs), "--output", str(folder)]
        self.call([*command, *own, *resume], folder)

    def evaluate(self, folder: Path) -> None:
        metrics, best = folder / "metrics.json", folder / "best"
        fresh = metrics.exists() and metrics.stat().st_mtime >= best.stat().st_mtime
        if not fresh or (self.robustness and "robustness" not in json.loads(metrics.read_text())):
            self.call(["evaluate.py", str(folder), f"--robustness={self.robustness}"], folder)

    def call(self, command: list[str], folder: Path) -> None:
        log = folder.with_name(f"{folder.name}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = {"OMP_NUM_THREADS": str(self.threads)} if self.jobs > 1 else {}
        with open(log, "a") as file:
            file.write(f"$ {shlex.join(command)}\n")
            file.flush()
            status = subprocess.call(
                [sys.executable, str(_TOOLS / command[0]), *command[1:]],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | threads,
            )
        if status:
            last = log.read_text().strip().splitlines()[-1]
            raise ValueError(f"{shlex.join(command)} failed: {last} (all of it is in {log})")

    def all(self, call: Callable[..., None], tasks: list[tuple], title: str) -> None:
        """`call` on each task, several at once; after a failure none begins any more."""
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
        with bar, ThreadPoolExecutor(self.jobs) as pool:
            for _ in pool.map(attempt, tasks):
                bar.update()


def main() -> None:
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = Parser(prog="compare.py", description=__doc__)
    parser.add_argument("configs", nargs="+", help="YAML files, one per method")
    parser.add_argument("--base", nargs="*", default=[], help="YAML files below each of them")
    parser.add_argument("--output", type=str, required=True, help="folder for runs and results")
    parser.add_argument("--seeds", type=NonNegativeInt, nargs="+", default=[0])
    parser.add_argument("--epochs", type=PositiveInt | None, default=None, help="of every run")
    parser.add_argument(
        "--minutes",
        type=PositiveFloat | None,
        default=None,
        help="instead: every method trains as many epochs as fit, by the time of a trial's one",
    )
    parser.add_argument(
        "--robustness", type=bool, default=False, help="score maps and predictions under attack"
    )
    parser.add_argument("--jobs", type=PositiveInt, default=1, help="runs at once")
    parser.add_argument("--images", type=PositiveInt, default=8, help="on the sheet of maps")
    settings = parser.parse_args(arguments[:split])
    if (settings.epochs is None) == (settings.minutes is None):
        raise ValueError("give the budget: either --epochs or --minutes")
    configs = {Path(file).stem: Path(file) for file in settings.configs}
    if len(configs) < len(settings.configs):
        raise ValueError("two configurations have the same file name")
    everything = (*map(Path, settings.base), *configs.values())
    missing = [str(file) for file in everything if not file.is_file()]
    if missing:
        raise ValueError(f"there is no configuration {missing[0]}")
    output = Path(settings.output)
    threads = max(1, (os.cpu_count() or 1) // settings.jobs)
    options = arguments[split + 1 :]
    limits = (settings.robustness, threads, settings.jobs)
    runs = Runs(output, configs, settings.base, options, *limits)
    _remember(runs, settings.epochs, settings.minutes)
    epochs = dict.fromkeys(configs, settings.epochs)
    if settings.minutes is not None:
        epochs = _fitting_epochs(runs, settings.minutes, settings.seeds[0])
    folders = {(n, s): output / n / f"seed{s}" for s in settings.seeds for n in configs}
    runs.all(runs.train, [(n, s, epochs[n], f) for (n, s), f in folders.items()], "training")
    runs.all(runs.evaluate, [(folder,) for folder in folders.values()], "scoring")
    by_method = [(name, seed) for name in configs for seed in settings.seeds]
    _write(output, [read_run(*key, folders[key]) for key in by_method], settings.images)


def _remember(runs: Runs, epochs: int | None, minutes: float | None) -> None:
    """Keep what the runs of this folder have in common; ValueError where it changed."""
    file = runs.output / "comparison.json"
    now = {"options": runs.options, "epochs": epochs, "minutes": minutes}
    base = "".join(Path(file).read_text() for file in runs.base)
    texts = {name: base + path.read_text() for name, path in runs.configs.items()}
    before = json.loads(file.read_text()) if file.is_file() else {"configs": {}}
    for key in now.keys() & before.keys():
        if now[key] != before[key]:
            raise ValueError(
                f"{runs.output} holds runs with {key} {before[key]}, not {now[key]}; choose "
                "another --output"
            )
    for name in texts.keys() & before["configs"].keys():
        if texts[name] != before["configs"][name]:
            raise ValueError(
                f"{runs.configs[name]} or its base has changed since {runs.output / name} was "
                "trained; choose another --output"
            )
    kept = now | {"configs": before["configs"] | texts}
    write_texts(runs.output, {"comparison.json": json.dumps(kept, indent=2)})


def _fitting_epochs(runs: Runs, minutes: float, seed: int) -> dict[str, int]:
    """How many epochs of each method fit, by a trial of one; remembered."""
    file = runs.output / "epochs.json"
    known: dict[str, int] = json.loads(file.read_text()) if file.is_file() else {}
    trials = {name: runs.output / name / "trial" for name in runs.configs if name not in known}
    runs.all(runs.train, [(n, seed, 1, folder) for n, folder in trials.items()], "timing")
    for name, folder in trials.items():
        known[name] = max(1, round(60 * minutes / epoch_seconds(folder)[0]))
    write_texts(runs.output, {"epochs.json": json.dumps(known, indent=2)})
    return known


def _write(output: Path, runs: list[Trained], images: int) -> None:
    command = shlex.join(["python", "tools/compare.py", *sys.argv[1:]])
    table = method_table(runs)
    other = differences(runs)
    note = f"Apart from the objective the configurations differ in {', '.join(other)}.\n\n"
    text = (
        f"# Comparison\n\n`{command}`\n\n{table}\n\n{note if other else ''}Scores are percentages "
        "of the test images, means over seeds with 95 % intervals (Student's t). GT-known and "
        "Top-1 Loc are those of gradient maps unless a column says otherwise, at the threshold "
        "that validation images chose.\n"
    )
    write_texts(output, {"comparison.md": text, "comparison.csv": csv_table(runs)})
    pictures = {
        "accuracy_gt_known.png": scatter(runs, ACCURACY, GT_KNOWN),
        "accuracy_robustness.png": scatter(runs, ACCURACY, ROBUSTNESS),
        "maps.png": sheet(runs, read_data_config(runs[0].folder).dataset("test"), images=images),
    }
    for name, picture in pictures.items():
        if picture is not None:
            (output / name).write_bytes(picture)
    print(f"{table}\n\nthe comparison is in {output}")


if __name__ == "__main__":
    run(main)
