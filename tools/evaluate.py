"""Score trained models: `python tools/evaluate.py RUN [RUN ...]`.

For each run: accuracy, and GT-known, Top-1 and Top-5 localization of gradient maps beside their
floors (class activation maps, a centred box), with the threshold policy in every row. Writes
metrics.json and report.html into each run's folder and prints one table.
"""

import dataclasses
import json
import os
from pathlib import Path

import yaml

from robust_training.model import load_model
from wsol.cli import Parser, run
from wsol.data.loaders import DataConfig
from wsol.evaluation import measure, score, table
from wsol.heatmap import CAM, CentredBox, Gradient
from wsol.localizer import model_folder
from wsol.report import write_report

METHODS = {"gradient": Gradient(), "cam": CAM(), "centred box": CentredBox()}


def main() -> None:
    parser = Parser(prog="evaluate.py", description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders, or model folders with --root")
    parser.add_argument("--root", type=str, default=None, help="data set; default: the run's own")
    parser.add_argument("--threshold", type=float, default=None, help="adds policy fixed:<t>")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--report", type=str, default=None, help="one page for all the runs")
    settings = parser.parse_args()
    results, gallery = {}, {}
    for folder in map(Path, settings.runs):
        model = load_model(model_folder(folder)).to(settings.device)
        data = _data_config(folder, settings.root, settings.batch_size, model.image_size)
        test, validation = data.loader("test"), data.loader("val")
        name = folder.resolve().name
        if name in results:
            raise ValueError(f"two runs are called {name}; rename one folder")
        results[name] = score(
            measure(model, test, METHODS, description=f"{name}: test"),
            measure(model, validation, METHODS, all_boxes=False, description=f"{name}: val"),
            fixed=settings.threshold,
        )
        results[name] |= {"model": str(folder), "data": dataclasses.asdict(data)}
        _write_json(folder / "metrics.json", results[name])
        gallery[name] = (model, METHODS, results[name])
        write_report(folder / "report.html", {name: gallery[name]}, test.dataset)
    if settings.report:
        write_report(Path(settings.report), gallery, test.dataset)
    print(table(results))


def _data_config(folder: Path, root: str | None, batch_size: int, image_size: int) -> DataConfig:
    file = folder / "config.yaml"
    if root is None and not file.is_file():
        raise ValueError(f"{folder} has no config.yaml that names its data; give --root")
    saved = yaml.safe_load(file.read_text())["data"] if file.is_file() else {"root": root}
    config = DataConfig(**saved)
    return dataclasses.replace(
        config, root=root or config.root, batch_size=batch_size, image_size=image_size
    )


def _write_json(file: Path, content: dict) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(content, indent=2))
    os.replace(partial, file)


if __name__ == "__main__":
    run(main)
