"""Score trained models: `python tools/evaluate.py RUN [RUN ...]`.

For each run: accuracy, and GT-known, Top-1 and Top-5 localization of gradient maps beside their
floors (class activation maps, a centred box), with the threshold policy in every row. Writes
metrics.json and report.html into each run's folder and prints one table.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import yaml
from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from robust_training.files import write_text
from robust_training.model import Classifier, load_model
from wsol.cli import Parser, find_device, run
from wsol.data.cub import CUB200
from wsol.data.loaders import DataConfig
from wsol.evaluation import THRESHOLDS, measure, score, table
from wsol.heatmap import CAM, CentredBox, Gradient
from wsol.localizer import model_folder
from wsol.report import Entry, write_report

METHODS = {"gradient": Gradient(), "cam": CAM(), "centred box": CentredBox()}


def main() -> None:
    parser = Parser(prog="evaluate.py", description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders, or model folders with --root")
    parser.add_argument("--root", type=str, default=None, help="data set; default: the run's own")
    parser.add_argument(
        "--threshold", type=ClosedUnitInterval | None, default=None, help="adds policy fixed:<t>"
    )
    parser.add_argument("--batch_size", type=PositiveInt, default=32)
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--report", type=str, default=None, help="one page for all the runs")
    settings = parser.parse_args()
    device = find_device(settings.device)
    extra = [] if settings.threshold is None else [settings.threshold]
    thresholds = np.union1d(THRESHOLDS, extra)
    entries: dict[str, Entry] = {}
    for folder in map(Path, settings.runs):
        model = load_model(model_folder(folder)).to(device)
        data = _data_config(folder, settings.root, settings.batch_size, model.image_size)
        test, validation = data.loader("test"), data.loader("val")
        name = folder.resolve().name
        if name in entries:
            raise ValueError(f"two runs are called {name}; rename one folder")
        _check_classes(folder, model, test.dataset)
        methods = {title: method for title, method in METHODS.items() if method.fits(model)}
        for title in METHODS.keys() - methods.keys():
            print(f"{name}: no {title} for this network")
        result = score(
            measure(model, test, methods, thresholds=thresholds, description=f"{name}: test"),
            measure(
                model,
                validation,
                methods,
                thresholds=thresholds,
                published=False,
                description=f"{name}: val",
            ),
            fixed=settings.threshold,
        )
        result |= {"model": str(folder), "data": dataclasses.asdict(data)}
        entries[name] = Entry(model, methods, result, test.dataset)
        write_text(folder / "metrics.json", json.dumps(result, indent=2))
        write_report(folder / "report.html", {name: entries[name]})
    if settings.report:
        write_report(settings.report, entries)
    print(table({name: entry.result for name, entry in entries.items()}))


def _check_classes(folder: Path, model: Classifier, dataset: CUB200) -> None:
    known = model.class_names
    if model.backbone.num_classes != len(dataset.classes) or (known and known != dataset.classes):
        raise ValueError(
            f"{folder} was trained on {model.backbone.num_classes} classes other than the "
            f"{len(dataset.classes)} of {dataset.root}"
        )


def _data_config(folder: Path, root: str | None, batch_size: int, image_size: int) -> DataConfig:
    file = folder / "config.yaml"
    if root is None and not file.is_file():
        raise ValueError(f"{folder} has no config.yaml that names its data; give --root")
    try:
        saved = yaml.safe_load(file.read_text())["data"] if file.is_file() else {"root": root}
        config = DataConfig(**saved)
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not the config of a run: {error}") from error
    return dataclasses.replace(
        config, root=root or config.root, batch_size=batch_size, image_size=image_size
    )


if __name__ == "__main__":
    run(main)
