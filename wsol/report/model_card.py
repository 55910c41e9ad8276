"""The model card of a run: the text from `save_model`, then training and scores."""

import json
from pathlib import Path
from typing import Any

import yaml

from robust_training.atomic_io import write_text
from robust_training.training.log import read_log
from robust_training.training.validation import training_warnings
from wsol.data.text_files import read_json, read_yaml
from wsol.localizer.saved_models import model_folder
from wsol.report.answer import answer
from wsol.report.number_format import markdown, percent
from wsol.report.score_tables import score_table

_OURS = "\n## Training\n"


def complete_card(run: Path, *, licence: str | None = None) -> None:
    """Adds data, method, scores and licence to the README.md in a run's model folder.

    Args:
        run: Folder with config.yaml, and with metrics.json if the run was evaluated.
        licence: Licence of the weights, an SPDX identifier, or None if it is not known.

    Raises:
        ValueError: config.yaml or metrics.json does not belong to a run.
    """
    file = model_folder(run) / "README.md"
    card = file.read_text(encoding="utf-8").partition(_OURS)[0]
    lines = [line for line in card.splitlines() if not line.startswith("license:")]
    if licence:
        lines.insert(1, yaml.safe_dump({"license": licence}, width=1000).strip())
    terms = licence or "not stated; data and pretrained weights have their own licences"
    added = [_OURS, *_training(run), "\n## Scores\n", *_scores(run), f"\n## Licence\n\n{terms}\n"]
    write_text(file, "\n".join([*lines, *added]))


def _training(run: Path) -> list[str]:
    file = run / "config.yaml"
    try:
        config: dict[str, Any] = read_yaml(file)
        data, model, objective = (config[key] for key in ("data", "model", "objective"))
        start = "timm's pretrained weights" if model["pretrained"] else "random weights"
        start = f"weights from {Path(model['weights']).name}" if model["weights"] else start
        method = objective["class_path"].rpartition(".")[2]
        return [
            f"* Data: {Path(data['root']).name}, image labels alone, at {data['image_size']} px.",
            f"* Method: {method}, from {start}, {config['epochs']} epochs, seed {config['seed']}.",
            f"* Its settings: `{json.dumps(objective.get('init_args', {}))}`.",
            *(f"* Note: {line}." for line in training_warnings(read_log(run))),
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not the config of a run: {error}") from error


def _scores(run: Path) -> list[str]:
    file = run / "metrics.json"
    if not file.is_file():
        return ["Not evaluated."]
    try:
        result = read_json(file)
        (_, *heads), rows, words = score_table({"": result})
        count, accuracy = result["images"], percent(result["top1_accuracy"])
        found = answer(result)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not the metrics file of a run: {error}") from error
    if not rows:
        return [f"Accuracy {accuracy} % of {count} test images; no box was scored."]
    return [
        f"{' '.join([found.sentence, *found.cautions])}\n",
        f"Percentages of {count} test images, with 95 % intervals. The threshold of the policy "
        "*oracle* is chosen on test images, the thresholds of *val* and *unboxed* are not.\n",
        markdown(heads, [cells for _, *cells in rows], words - 1),
    ]


def shared_files(run: Path, programs: Path) -> dict[str, Path | str]:
    """The files of a run for publication, name -> a file, or its text: model, card, exported
    programs and scores. The scores contain no path of this machine."""
    files: dict[str, Path | str] = {file.name: file for file in model_folder(run).iterdir()}
    files |= {file.name: file for file in programs.glob("localizer.*")}
    metrics = run / "metrics.json"
    if metrics.is_file():
        rows = read_json(metrics)["localization"]
        files["metrics.json"] = json.dumps({"localization": rows}, indent=2)
    return files
