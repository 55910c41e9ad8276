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
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from robust_training.atomic_io import write_texts
from robust_training.training.checkpoint import LAST
from wsol.cli.parser import Parser, output_folder, run, split_options
from wsol.cli.run_folder import record_settings
from wsol.cli.subprocesses import run_parallel, run_script
from wsol.data.image_folder import BOXES
from wsol.data.loaders import read_data_config
from wsol.data.text_files import read_json
from wsol.report.comparison import (
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

_TOOLS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Runs:
    """Where the runs are, and what they have in common.

    Attributes:
        base: Configurations that each of `configs` is laid over.
        options: Of train.py, for every run.
        scoring: Of evaluate.py, for every run.
        robustness: Of evaluate.py: "false", "true", or a file of settings.
        jobs: Processes at once.
    """

    output: Path
    configs: dict[str, Path]
    base: list[str]
    options: list[str]
    scoring: list[str]
    robustness: str
    jobs: int

    def train(self, name: str, seed: int, epochs: int, folder: Path) -> None:
        if len(epoch_seconds(folder)) >= epochs:
            return
        resume = ["--resume"] if (folder / LAST).exists() else []
        configs = (("--config", file) for file in (*self.base, str(self.configs[name])))
        own = ["--seed", str(seed), "--epochs", str(epochs), "--output", str(folder)]
        self._call("train.py", folder, [*itertools.chain(*configs), *self.options, *own, *resume])

    def evaluate(self, folder: Path) -> None:
        metrics = folder / "metrics.json"
        boxes = Path(read_data_config(folder).root) / BOXES  # which people write as they go
        scored = [each for each in (folder / "best", boxes) if each.exists()]
        newest = max(each.stat().st_mtime for each in scored)
        fresh = metrics.exists() and metrics.stat().st_mtime >= newest
        protocol, file = self.protocol(), folder / "scored_with.json"
        if protocol != "false":
            fresh &= file.is_file() and read_json(file) == {"robustness": protocol}
        if not fresh:
            self._call(
                "evaluate.py", folder, [str(folder), "--robustness", self.robustness, *self.scoring]
            )
            write_texts(folder, {file.name: json.dumps({"robustness": protocol})})

    def protocol(self) -> str:
        """What `robustness` says, or the file of that name does."""
        file = Path(self.robustness)
        return file.read_text() if file.is_file() else self.robustness

    def _call(self, tool: str, folder: Path, arguments: list[str]) -> None:
        log = folder.with_name(f"{folder.name}.log")
        run_script(_TOOLS / tool, arguments, log, at_once=self.jobs)


def main() -> None:
    own, options = split_options(sys.argv[1:])
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
        help="instead: as many epochs of every method as fit, by the time of a trial of one",
    )
    parser.add_argument(
        "--robustness", type=str, default="false", help="as evaluate.py's: true, or a YAML file"
    )
    parser.add_argument("--device", type=str, default="cpu", help="for scoring")
    parser.add_argument("--jobs", type=PositiveInt, default=1, help="runs at once")
    parser.add_argument("--images", type=PositiveInt, default=8, help="on the sheet of maps")
    settings = parser.parse_args(own)
    if (settings.epochs is None) == (settings.minutes is None):
        raise ValueError("give the budget: either --epochs or --minutes")
    if len(set(settings.seeds)) < len(settings.seeds):
        raise ValueError(f"--seeds {settings.seeds} names a seed twice")
    configs = {Path(file).stem: Path(file) for file in settings.configs}
    if len(configs) < len(settings.configs):
        raise ValueError("two configurations have the same file name")
    everything = (*map(Path, settings.base), *configs.values())
    missing = [str(file) for file in everything if not file.is_file()]
    if missing:
        raise ValueError(f"there is no configuration {missing[0]}")
    output = output_folder(settings.output)
    if settings.robustness not in ("false", "true") and not Path(settings.robustness).is_file():
        raise ValueError(f"--robustness is true, false or a file, not {settings.robustness}")
    scoring = ["--device", settings.device]
    robustness, jobs = settings.robustness, settings.jobs
    runs = Runs(output, configs, settings.base, options, scoring, robustness, jobs)
    for name in configs:
        _remember(runs, name, {"epochs": settings.epochs, "minutes": settings.minutes})
    epochs = dict.fromkeys(configs, settings.epochs)
    if settings.minutes is not None:
        epochs = _fitting_epochs(runs, settings.minutes, settings.seeds[0])
    folders = {(n, s): output / n / f"seed{s}" for s in settings.seeds for n in configs}
    tasks = [(n, s, epochs[n], folder) for (n, s), folder in folders.items()]
    run_parallel(runs.train, tasks, runs.jobs, "training")
    run_parallel(runs.evaluate, [(folder,) for folder in folders.values()], runs.jobs, "scoring")
    by_method = [(name, seed) for name in configs for seed in settings.seeds]
    _write(output, [read_run(*key, folders[key]) for key in by_method], settings.images)


def _remember(runs: Runs, name: str, budget: dict[str, float | None]) -> None:
    """Keep what a configuration's runs are trained with; ValueError where some already were with
    something else."""
    configs = [Path(each).read_text() for each in (*runs.base, runs.configs[name])]
    now = budget | {"options": runs.options, "configuration": "".join(configs)}
    record_settings(runs.output / name, now)


def _fitting_epochs(runs: Runs, minutes: float, seed: int) -> dict[str, int]:
    """How many epochs of each method fit, by a trial of one, which is the slowest; remembered."""
    file = runs.output / "epochs.json"
    known: dict[str, int] = read_json(file) if file.is_file() else {}
    if not (isinstance(known, dict) and all(type(each) is int for each in known.values())):
        raise ValueError(f"{file} is damaged")
    trials = {name: runs.output / name / "trial" for name in runs.configs if name not in known}
    tasks = [(n, seed, 1, folder) for n, folder in trials.items()]
    run_parallel(runs.train, tasks, runs.jobs, "timing")
    for name, folder in trials.items():
        known[name] = max(1, int(60 * minutes / epoch_seconds(folder)[0]))
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
        "that validation images chose (where none of these has a box: at a fixed one). Images "
        "without a box are left out of all scores, unless none has one.\n"
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
