"""ROAR and KAR: is what an attribution calls important what a network trained anew needs?

    interpret.py RUN [RUN ...] --config configs/toy_standard.yaml --output DIR --seeds 0 1 2
        -- --model.name resnet18 --epochs 15

For each run's model, attribution and fraction of pixels: replace them in all images (ROAR), or all
others (KAR), train the network of --config and of the options after `--` from scratch on what is
left, and compare its accuracy with that after random pixels. Every training is a folder below DIR;
what is finished is not done again. Writes interpretability.md, interpretability.json,
interpretability.png (accuracy over the fraction of pixels) and trade_off.png (area over the
accuracy of the models under study; name them in the order of their attack's radius).
"""

import dataclasses
import itertools
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from matplotlib.figure import Figure

from robust_training.atomic_io import write_texts
from robust_training.models.classifier import load_model
from robust_training.training.checkpoint import LAST
from wsol.cli.parser import Parser, find_device, run, split_options
from wsol.cli.run_folder import fingerprint, record_settings
from wsol.cli.subprocesses import run_parallel, run_script
from wsol.data.loaders import read_data_config
from wsol.data.text_files import read_json, read_yaml
from wsol.localizer.overlay import png
from wsol.report.comparison import epoch_seconds, interval
from wsol.report.number_format import markdown, percent
from wsol.robustness.roar import FRACTIONS, IMPORTANCES, accuracy, area, write_replaced

RANDOM = "random"
_TRAIN = Path(__file__).resolve().with_name("train.py")


@dataclass(frozen=True)
class Trial:
    """A network trained on images that lost pixels.

    Attributes:
        source: The run whose model ranked the pixels.
        folder: Of everything that depends on source, attribution, mode and fraction.
    """

    source: Path
    attribution: str
    mode: str
    fraction: float
    seed: int
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / f"seed{self.seed}"


def main() -> None:
    own, options = split_options(sys.argv[1:])
    parser = Parser(prog="interpret.py", description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders of train.py")
    parser.add_argument("--config", nargs="+", required=True, help="of the networks trained anew")
    parser.add_argument("--output", type=str, required=True)
    parser.add_argument(
        "--attributions", type=str, nargs="+", default=["gradient", "gradient_x_input"]
    )
    parser.add_argument(
        "--fractions",
        type=float,
        nargs="+",
        default=list(FRACTIONS),
        help="of the pixels",
    )
    parser.add_argument("--modes", type=str, nargs="+", default=["roar", "kar"])
    parser.add_argument("--seeds", type=NonNegativeInt, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=PositiveInt, default=1, help="trainings at once")
    parser.add_argument("--device", type=str, default="cpu", help="for ranking and scoring")
    settings = parser.parse_args(own)
    _check(settings, options)
    device = find_device(settings.device)
    output, sources = Path(settings.output), [Path(name) for name in settings.runs]
    fractions, data = sorted(settings.fractions), _common_data(sources)
    trials = [
        Trial(source, name, mode, q, seed, output / source.name / mode / f"{name}_{q:g}")
        for source in sources
        for name in settings.attributions
        for mode, q, seed in itertools.product(settings.modes, fractions, settings.seeds)
    ]
    # random pixels are nobody's, and others with every seed
    trials += [
        Trial(source, RANDOM, mode, q, seed, output / RANDOM / mode / f"{q:g}_seed{seed}")
        for source in sources
        for mode, q, seed in itertools.product(settings.modes, fractions, settings.seeds)
    ]
    distinct = {trial.run: trial for trial in trials}
    configs = [option for file in settings.config for option in ("--config", file)]
    trained_with = {
        "options": options,
        "configuration": "".join(Path(file).read_text() for file in settings.config),
        "data": data,
    }
    models = {source: fingerprint(source / "best" / "model.safetensors") for source in sources}
    record_settings(output / RANDOM, trained_with, results="**/CUB_200_2011")
    for source, model in models.items():
        record_settings(
            output / source.name, trained_with | {"model": model}, results="**/CUB_200_2011"
        )

    def train(trial: Trial) -> None:
        result = trial.run / "accuracy.json"
        if result.is_file():
            return
        data = trial.folder / "CUB_200_2011"
        place = ["--data.root", str(data), "--seed", str(trial.seed), "--output", str(trial.run)]
        resume = ["--resume"] if (trial.run / LAST).exists() else []
        log = trial.folder / f"seed{trial.seed}.log"
        run_script(_TRAIN, [*configs, *options, *place, *resume], log, at_once=settings.jobs)
        loader = read_data_config(trial.run).loader("test")
        found = accuracy(load_model(trial.run / "best").to(device), loader)
        seconds = sum(epoch_seconds(trial.run))
        write_texts(trial.run, {result.name: json.dumps({"accuracy": found, "seconds": seconds})})

    def replace(trial: Trial) -> None:
        data = trial.folder / "CUB_200_2011"
        if not data.is_dir():
            model = load_model(trial.source / "best").to(device)
            config = dataclasses.replace(
                read_data_config(trial.source), image_size=model.image_size, val_fraction=0
            )
            write_replaced(
                data,
                model,
                [config.dataset("train"), config.dataset("test")],
                importance=IMPORTANCES[trial.attribution],
                fraction=trial.fraction,
                mode=trial.mode,
                seed=trial.seed,
            )

    folders = {trial.folder: trial for trial in distinct.values()}
    run_parallel(replace, [(trial,) for trial in folders.values()], 1, "replacing pixels")
    run_parallel(train, [(trial,) for trial in distinct.values()], settings.jobs, "training")
    studied = {
        source.name: accuracy(
            load_model(source / "best").to(device), read_data_config(source).loader("test")
        )
        for source in sources
    }
    _write(output, trials, fractions, studied)


def _check(settings: Namespace, options: list[str]) -> None:
    """ValueError for what no training should begin with."""
    known = [name for name in IMPORTANCES if name != RANDOM]
    if not set(settings.attributions) <= set(known):
        raise ValueError(f"--attributions to choose from are {', '.join(known)}")
    if not set(settings.modes) <= {"roar", "kar"}:
        raise ValueError("--modes to choose from are roar, kar")
    if not all(0 < fraction < 1 for fraction in settings.fractions):
        raise ValueError(f"--fractions must lie between 0 and 1, not {settings.fractions}")
    for name in ("attributions", "modes", "fractions", "seeds"):
        values = settings[name]
        if len(set(values)) < len(values):
            raise ValueError(f"--{name} {values} names one twice")
    for file in settings.config:
        if not Path(file).is_file():
            raise ValueError(f"there is no configuration {file}")
        content = read_yaml(file)
        model = content.get("model") if isinstance(content, dict) else None
        if isinstance(model, dict) and (model.get("weights") or model.get("pretrained")):
            raise ValueError(f"{file} names weights, and networks are trained from scratch here")
    if any(option.startswith(("--model.weights", "--model.pretrained")) for option in options):
        raise ValueError("networks are trained from scratch here: leave weights out after --")


def _common_data(sources: list[Path]) -> dict[str, str | int]:
    """Of all runs; they share the networks that random pixels trained.

    Raises:
        ValueError: a folder is no run, two have one name, or their data or sizes differ.
    """
    names = {source.name for source in sources}
    if len(names) < len(sources) or RANDOM in names:
        raise ValueError(f"runs need names of their own, other than {RANDOM}: rename a folder")
    found = []
    for source in sources:
        if not (source / "best" / "model.safetensors").is_file():
            raise ValueError(f"{source} is not a run: there is no model in its best/")
        config = read_data_config(source)
        found.append({"root": str(Path(config.root).resolve()), "image_size": config.image_size})
    if any(each != found[0] for each in found):
        raise ValueError("the runs were trained on different data or image sizes: compare equals")
    return found[0]


def _write(
    output: Path, trials: list[Trial], fractions: list[float], studied: dict[str, float]
) -> None:
    """Areas with intervals over seeds, and the curves."""
    found = {trial.run: read_json(trial.run / "accuracy.json") for trial in trials}
    curves: dict[tuple[str, str, str, int], list[float]] = {}
    for trial in trials:
        key = trial.source.name, trial.mode, trial.attribution, trial.seed
        curves.setdefault(key, []).append(found[trial.run]["accuracy"])
    rows, areas = [], []
    seeds = sorted({key[3] for key in curves})
    for mode, name in sorted({key[1:3] for key in curves if key[2] != RANDOM}, reverse=True):
        first: list[float] = []
        for source, accuracy_ in studied.items():
            values = [
                area(
                    fractions, curves[source, mode, name, k], curves[source, mode, RANDOM, k], mode
                )
                for k in seeds
            ]
            # every seed has one baseline of random pixels, which cancels in pairs
            above = _interval(np.subtract(values, first)) if first else "-"
            first = first or values
            rows.append([source, percent(accuracy_), mode.upper(), name, _interval(values), above])
            areas.append({"run": source, "mode": mode, "attribution": name, "areas": values})
    heads = ("model", "its accuracy", "mode", "attribution", "area", "above the first model's")
    table = markdown(heads, rows, 4)
    listed = [[*key, accuracies] for key, accuracies in sorted(curves.items())]
    content = {"fractions": fractions, "areas": areas, "accuracy": listed, "models": studied}
    text = (
        f"# Interpretability\n\n`{shlex.join(['python', 'tools/interpret.py', *sys.argv[1:]])}`\n\n"
        f"{table}\n\nArea between the accuracy after random pixels and that after the "
        "attribution's (ROAR), or the other way round (KAR): larger is better, 0 is random. "
        f"Intervals: 95 % over {len(seeds)} seeds of the training (Student's t).\n"
    )
    texts = {"interpretability.md": text, "interpretability.json": json.dumps(content, indent=2)}
    write_texts(output, texts)
    (output / "interpretability.png").write_bytes(_curves(curves, fractions))
    (output / "trade_off.png").write_bytes(_trade_off(areas, studied))
    print(f"{table}\n\nthe results are in {output}")


def _interval(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{mean:+.3f}" if np.isnan(half) else f"{mean:+.3f} ± {half:.3f}"


def _curves(curves: dict[tuple[str, str, str, int], list[float]], fractions: list[float]) -> bytes:
    """PNG: accuracy against the fraction, a panel for each model and mode."""
    panels = sorted({key[:2] for key in curves})
    figure = Figure(figsize=(3.4 * len(panels), 3), dpi=110, layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in sorted({key[2] for key in curves if key[:2] == panel}):
            rows = np.array([values for key, values in curves.items() if key[:3] == (*panel, name)])
            style = "--" if name == RANDOM else "-"
            axes.plot(fractions, 100 * rows.mean(axis=0), style, marker=".", label=name)
        word = "removed" if panel[1] == "roar" else "kept"
        axes.set_title(f"{panel[0]}: {panel[1].upper()}", parse_math=False)
        axes.set(xlabel=f"important pixels {word}", ylabel="accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    return png(figure)


def _trade_off(areas: list[dict[str, Any]], studied: dict[str, float]) -> bytes:
    """PNG: area above the first model's over the accuracy of the studied one: a panel for each
    mode, a line for each attribution through the models in the order given, a dot for each seed."""
    modes = sorted({each["mode"] for each in areas}, reverse=True)
    figure = Figure(figsize=(4.4 * len(modes), 3.4), dpi=110, layout="constrained")
    x = [100 * share for share in studied.values()]
    for axes, mode in zip(figure.subplots(1, len(modes), squeeze=False)[0], modes, strict=True):
        for name in sorted({each["attribution"] for each in areas}):
            chosen = [e for e in areas if (e["mode"], e["attribution"]) == (mode, name)]
            found = {each["run"]: each["areas"] for each in chosen}
            table = np.array([found[run] for run in studied])
            above = table - table[0]
            label = f"{name} (there {table[0].mean():+.3f})"
            (line,) = axes.plot(x, above.mean(axis=1), marker="o", linewidth=1, label=label)
            axes.plot(x, above, ".", color=line.get_color(), alpha=0.5, markersize=4)
        low = axes.get_ylim()[0]
        for place, label in zip(x, studied, strict=True):
            axes.text(place, low, label, fontsize=6, rotation=90, va="bottom", parse_math=False)
        axes.axhline(0, color="grey", linewidth=0.8, linestyle="--")
        axes.set(title=mode.upper(), xlabel="accuracy of the model under study, %")
        axes.set(ylabel=f"area above that of {next(iter(studied))}".replace("$", r"\$"))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return png(figure)


if __name__ == "__main__":
    run(main)
