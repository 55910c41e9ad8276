"""Trained classifiers in folders, and their thresholds from an evaluation."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from robust_training.models.classifier import Classifier
from robust_training.models.saving import load_model
from wsol.data.loaders import DataConfig, read_data_config
from wsol.data.text_files import naming, read_json
from wsol.detectors.saving import is_detector
from wsol.heatmaps.heatmap import HeatmapMethod
from wsol.heatmaps.methods import denotes
from wsol.localizer.exported_program import is_program

ART_THRESHOLD = 0.2  # ART's published threshold, used if no image could choose one
UNBOXED = "thresholds.json"  # in a model folder: heatmap -> threshold that needed no true box


def model_folder(folder: str | os.PathLike) -> Path:
    """Returns the folder of a run's best model, or the folder itself."""
    best = Path(folder) / "best"
    return best if best.is_dir() else Path(folder)


def run_data(folder: str | os.PathLike) -> DataConfig | None:
    """Returns the data settings of the run in `folder`, or of the run whose best model is there.

    Returns None if it is not a run's folder. Raises ValueError if its config.yaml is not the config
    of a run."""
    best = model_folder(folder)
    run = best.parent if best.resolve().name == "best" else best
    return read_data_config(run) if (run / "config.yaml").is_file() else None


def load_classifier(run: str | os.PathLike) -> Classifier:
    """Loads a run's best model, or the model of a model folder. Raises ValueError if there is no
    classifier. The message names what was found instead: a detector, an exported model, or runs in
    folders below."""
    if is_program(run):
        raise ValueError(f"{run} is an exported localizer: name the run that it was made from")
    if is_detector(run):
        raise ValueError(
            f"{run} is a detector: its scores are in the table of train_detector.py "
            "(detectors.md), and `evaluate.py boxes` scores the boxes that localize.py finds with "
            "it"
        )
    folder = model_folder(run)
    inside = _models_below(folder) if not (folder / "config.json").is_file() else []
    if inside:
        names = ", ".join([*inside[:5], *(["..."] if len(inside) > 5 else [])])
        raise ValueError(f"{run} is not a model folder but contains some: name one of {names}")
    return load_model(folder)


def _models_below(folder: Path) -> list[str]:
    """Runs, model folders and detectors, up to two folders below `folder`."""
    files = (
        file
        for below in ("*", "*/best", "*/*", "*/*/best")
        for file in folder.glob(f"{below}/config.json")
        if file.with_name("model.safetensors").is_file()
    )
    return sorted({str(f.parents[1] if f.parent.name == "best" else f.parent) for f in files})


def chosen_threshold(folder: str | os.PathLike, method: HeatmapMethod | str = "gradient") -> float:
    """Returns the method's threshold that validation boxes chose, else the one that was chosen
    without boxes, else ART's published threshold."""
    known = (chosen_thresholds(folder), unboxed_thresholds(folder))
    found = (threshold_of(method, thresholds) for thresholds in known)
    return next((each for each in found if each is not None), ART_THRESHOLD)


def threshold_of(method: HeatmapMethod | str, thresholds: Mapping[str, float]) -> float | None:
    """Returns the method's threshold among those of several heatmaps, or None."""
    return next((value for name, value in thresholds.items() if denotes(name, method)), None)


def unboxed_thresholds(folder: str | os.PathLike) -> dict[str, float]:
    """Reads the thresholds that `run_unboxed_threshold` wrote into a run's model folder: name of
    the heatmap -> threshold. Empty if there is no such file. Raises ValueError if it holds
    something else."""
    file = model_folder(folder) / UNBOXED
    if not file.is_file():
        return {}
    with naming(f"{file} is not a file of thresholds"):
        return _checked(read_json(file).items())


def chosen_thresholds(
    folder: str | os.PathLike, root: str | os.PathLike | None = None
) -> dict[str, float]:
    """Reads from a run's metrics.json the thresholds that were chosen on its validation images.

    Args:
        folder: Folder of the run or of its best model.
        root: Folder of a data set. If given, only thresholds that were chosen on it count.

    Returns:
        Name of the heatmap -> threshold. Empty if there is no such file.

    Raises:
        ValueError: the file was not written by evaluation.
    """
    place = Path(folder).resolve()
    metrics = (place.parent if place.name == "best" else place) / "metrics.json"
    if not metrics.is_file():
        return {}
    content = read_json(metrics)
    with naming(f"{metrics} is not the metrics file of a run"):
        rows = [row for row in content["localization"] if row["policy"] == "val"]
        # an evaluation on other data keeps the thresholds that were chosen before
        chosen = {**content.get("chosen_thresholds", {})}
        scored = content.get("data", {}).get("root", root)
        if root is None or Path(scored).resolve() == Path(root).resolve():
            chosen |= {row["heatmap"]: row["threshold"] for row in rows}
        return _checked(chosen.items())


def _checked(thresholds: Iterable[tuple[str, float]]) -> dict[str, float]:
    found = {name: float(threshold) for name, threshold in thresholds}
    for threshold in found.values():
        if not 0 <= threshold <= 1:
            raise ValueError(f"the threshold {threshold} does not lie in [0,1]")
    return found
