"""Runs ROAR and KAR (`wsol.robustness.roar`) for several models, and writes their results."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from robust_training.atomic_io import write_texts
from robust_training.models.saving import load_model
from wsol.cli.run_folder import fingerprint, record_settings
from wsol.cli.subprocesses import run_parallel, train
from wsol.data.loaders import read_data_config
from wsol.data.text_files import read_json, read_yaml
from wsol.evaluation.metrics import student_interval
from wsol.report.comparison import epoch_seconds
from wsol.report.number_format import markdown, percent
from wsol.report.plots import retraining_curves, trade_off
from wsol.robustness.roar import IMPORTANCES, RANDOM, Mode, accuracy, area, write_replaced

_DATA = "CUB_200_2011"  # folder of the images with replaced pixels


@dataclass(frozen=True)
class Retraining:
    """A network that is trained on images with replaced pixels.

    Attributes:
        source: Run folder of the model that gives the attributions.
        attribution: A key of `IMPORTANCES`; it ranks the pixels.
        fraction: Fraction of the pixels that count as important.
        folder: Folder of the images. All seeds use the same images, except with random pixels.
    """

    source: Path
    attribution: str
    mode: Mode
    fraction: float
    seed: int
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / f"seed{self.seed}"


@dataclass(frozen=True)
class RetrainingResults:
    """Accuracies of models and of the new networks.

    Attributes:
        models: Name of a model -> its own accuracy.
        fractions: (F,), in rising order.
        seeds: Seeds of the trainings, in rising order.
        accuracy: (model, mode, attribution) -> accuracies (seeds,F).
    """

    models: Mapping[str, float]
    fractions: Sequence[float]
    seeds: Sequence[int]
    accuracy: Mapping[tuple[str, Mode, str], np.ndarray]

    def areas(self, model: str, mode: Mode, attribution: str) -> list[float]:
        """`roar.area` of each seed."""
        curves = self.accuracy[model, mode, attribution], self.accuracy[model, mode, RANDOM]
        return [area(self.fractions, *pair, mode) for pair in zip(*curves, strict=True)]


@dataclass(frozen=True)
class RemoveAndRetrain:
    """The settings of ROAR and KAR.

    Attributes:
        runs: Run folders of the models that give attributions.
        output: Folder of the trainings and results.
        configs: YAML files of the new networks.
        options: Further options of train.py.
        attributions: Keys of `IMPORTANCES`; random pixels are added.
        fractions: Fractions of the pixels, in (0,1).
        modes: "roar", "kar" or both.
        device: Device for ranking and scoring.
    """

    runs: Sequence[Path]
    output: Path
    configs: Sequence[str | Path]
    options: Sequence[str]
    attributions: Sequence[str]
    fractions: Sequence[float]
    modes: Sequence[Mode]
    seeds: Sequence[int]
    device: torch.device
    jobs: int

    def __post_init__(self) -> None:
        known = [name for name in IMPORTANCES if name != RANDOM]
        if not set(self.attributions) <= set(known):
            raise ValueError(f"--attributions must be among {', '.join(known)}")
        if not set(self.modes) <= {"roar", "kar"}:
            raise ValueError("--modes must be among roar, kar")
        if not all(0 < fraction < 1 for fraction in self.fractions):
            raise ValueError(f"--fractions must lie between 0 and 1, not {list(self.fractions)}")
        for name in ("attributions", "modes", "fractions", "seeds"):
            values = list(getattr(self, name))
            if len(set(values)) < len(values):
                raise ValueError(f"--{name} {values} names a value twice")
        for file in self.configs:
            if not Path(file).is_file():
                raise ValueError(f"there is no configuration {file}")
            content = read_yaml(file)
            model = content.get("model") if isinstance(content, dict) else None
            if isinstance(model, dict) and (model.get("weights") or model.get("pretrained")):
                raise ValueError(f"{file} names weights, and networks are trained from scratch")
        if any(each.startswith(("--model.weights", "--model.pretrained")) for each in self.options):
            raise ValueError("networks are trained from scratch here: leave weights out after --")

    def run(self) -> RetrainingResults:
        """Replaces pixels, trains and scores. Finished trainings are not repeated. Raises
        ValueError if the runs do not fit together, earlier trainings in the output folder had other
        settings, or a process fails."""
        trials = self._plan()
        distinct = list({trial.run: trial for trial in trials}.values())
        folders = {trial.folder: trial for trial in distinct}
        run_parallel(self._replace, [(trial,) for trial in folders.values()], 1, "replacing pixels")
        run_parallel(self._train, [(trial,) for trial in distinct], self.jobs, "training")
        found: dict[tuple[str, Mode, str], list[float]] = {}
        for trial in sorted(trials, key=lambda trial: (trial.seed, trial.fraction)):
            key = trial.source.name, trial.mode, trial.attribution
            found.setdefault(key, []).append(read_json(trial.run / "accuracy.json")["accuracy"])
        shape = len(self.seeds), len(self.fractions)
        return RetrainingResults(
            models={run.name: self._accuracy(run) for run in self.runs},
            fractions=sorted(self.fractions),
            seeds=sorted(self.seeds),
            accuracy={key: np.reshape(values, shape) for key, values in found.items()},
        )

    def _plan(self) -> list[Retraining]:
        """All trainings. Raises ValueError if earlier ones had other settings."""
        settings = {
            "options": list(self.options),
            "configuration": "".join(Path(file).read_text() for file in self.configs),
            "data": _common_data(self.runs),
        }
        made = f"**/{_DATA}"
        models = {run: fingerprint(run / "best" / "model.safetensors") for run in self.runs}
        record_settings(self.output / RANDOM, settings, results=made)
        for run, model in models.items():
            record_settings(self.output / run.name, settings | {"model": model}, results=made)
        trials = []
        for run, name in itertools.product(self.runs, (*self.attributions, RANDOM)):
            for mode, q, seed in itertools.product(self.modes, sorted(self.fractions), self.seeds):
                if name == RANDOM:  # the same for all models; every seed has its own pixels
                    folder = self.output / RANDOM / mode / f"{q:g}_seed{seed}"
                else:
                    folder = self.output / run.name / mode / f"{name}_{q:g}"
                trials.append(Retraining(run, name, mode, q, seed, folder))
        return trials

    def _replace(self, trial: Retraining) -> None:
        if (trial.folder / _DATA).is_dir():
            return
        model = load_model(trial.source / "best").to(self.device)
        data = replace(read_data_config(trial.source), image_size=model.image_size, val_fraction=0)
        write_replaced(
            trial.folder / _DATA,
            model,
            [data.dataset("train"), data.dataset("test")],
            importance=IMPORTANCES[trial.attribution],
            fraction=trial.fraction,
            mode=trial.mode,
            seed=trial.seed,
        )

    def _train(self, trial: Retraining) -> None:
        result = trial.run / "accuracy.json"
        if result.is_file():
            return
        own = ["--data.root", str(trial.folder / _DATA), "--seed", str(trial.seed)]
        train(self.configs, [*self.options, *own], trial.run, at_once=self.jobs)
        content = {"accuracy": self._accuracy(trial.run), "seconds": sum(epoch_seconds(trial.run))}
        write_texts(trial.run, {result.name: json.dumps(content)})

    def _accuracy(self, run: Path) -> float:
        model = load_model(run / "best").to(self.device)
        return accuracy(model, read_data_config(run).loader("test"))


def _common_data(runs: Sequence[Path]) -> dict[str, str | int]:
    """Data set and image size of all runs. The networks for random pixels are the same for all.
    Raises ValueError if a folder is not a run, two runs have one name, or their data or sizes
    differ."""
    names = {run.name for run in runs}
    if len(names) < len(runs) or RANDOM in names:
        raise ValueError(f"runs need different names, other than {RANDOM}: rename a folder")
    found = []
    for run in runs:
        if not (run / "best" / "model.safetensors").is_file():
            raise ValueError(f"{run} is not a run: there is no model in its best/")
        config = read_data_config(run)
        found.append({"root": str(Path(config.root).resolve()), "image_size": config.image_size})
    if any(each != found[0] for each in found):
        raise ValueError("the runs have different data or image sizes; give runs with equal ones")
    return found[0]


def write_retraining(output: Path, results: RetrainingResults, command: str) -> str:
    """Writes interpretability.md, .json, .png and trade_off.png. Returns the table in Markdown."""
    pairs = sorted({key[1:] for key in results.accuracy if key[2] != RANDOM}, reverse=True)
    areas = {  # (models, seeds)
        pair: np.array([results.areas(model, *pair) for model in results.models]) for pair in pairs
    }
    rows = [
        # for a seed, all models have the same baseline of random pixels: differences are paired
        [model, percent(own), mode.upper(), name, _interval(values), _interval(values - every[0])]
        for (mode, name), every in areas.items()
        for (model, own), values in zip(results.models.items(), every, strict=True)
    ]
    for row in rows[:: len(results.models)]:
        row[-1] = "-"
    heads = ("model", "accuracy", "mode", "attribution", "area", "area - first model's area")
    table = markdown(heads, rows, 4)
    listed = [
        [*key, seed, list(accuracies)]
        for key, curves in sorted(results.accuracy.items())
        for seed, accuracies in zip(results.seeds, curves.tolist(), strict=True)
    ]
    content = {
        "fractions": results.fractions,
        "areas": [
            {"run": model, "mode": mode, "attribution": name, "areas": values}
            for (mode, name), every in areas.items()
            for model, values in zip(results.models, every.tolist(), strict=True)
        ],
        "accuracy": listed,
        "models": results.models,
    }
    text = (
        f"# Interpretability\n\n`{command}`\n\n"
        f"{table}\n\nThe area is between two curves of accuracy over the fraction of pixels: for "
        "random pixels minus for the attribution's (ROAR), or the reverse (KAR). Larger is better; "
        f"random pixels have 0. Intervals: 95 % over {len(results.seeds)} seeds (Student's t).\n"
    )
    texts = {"interpretability.md": text, "interpretability.json": json.dumps(content, indent=2)}
    write_texts(output, texts)
    panels: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for (model, mode, name), curves in sorted(results.accuracy.items()):
        panels.setdefault((model, mode), {})[name] = curves
    by_mode: dict[str, dict[str, np.ndarray]] = {}
    for mode, name in sorted(pairs, key=lambda pair: (pair[0] == "kar", pair[1])):
        by_mode.setdefault(mode, {})[name] = areas[mode, name]
    (output / "interpretability.png").write_bytes(retraining_curves(results.fractions, panels))
    (output / "trade_off.png").write_bytes(trade_off(results.models, by_mode))
    return table


def _interval(values: Sequence[float]) -> str:
    mean, half = student_interval(values)
    return f"{mean:+.3f}" if np.isnan(half) else f"{mean:+.3f} ± {half:.3f}"
