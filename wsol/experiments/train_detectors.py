"""The complete experiment: pseudo labels from a classifier, detectors trained on them, scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from robust_training.atomic_io import write_texts
from robust_training.models.classifier import Classifier
from robust_training.models.creating import create_model
from wsol.annotations.coco_writing import coco_results
from wsol.cli.run_folder import MAY_CHANGE, TRAINED_WITH, fingerprint, record_settings
from wsol.detectors import Detector, Network, Regressor
from wsol.detectors.training import Training
from wsol.evaluation.run_model import SplitOutput, run_model
from wsol.evaluation.split_selection import PreparedSplit, prepare_evaluation, prepare_split
from wsol.experiments.pseudo_labels.pseudo_boxes import (
    ORACLE,
    TRAINING_SPLITS,
    PseudoLabels,
    checked_pseudo_labels,
    folder_name,
    found_pseudo_labels,
    heatmap_pseudo_labels,
    name_of_file,
    oracle_pseudo_labels,
    read_pseudo_labels,
)
from wsol.experiments.pseudo_labels.scores import BoxScore, DetectorScores, score_results
from wsol.experiments.pseudo_labels.trainer import DetectorTrainer
from wsol.heatmaps.methods import with_baselines
from wsol.localizer.principal_component import component_finder
from wsol.localizer.saved_models import load_classifier, model_folder
from wsol.robustness.detector_attack import BoxAttack

_REGRESSOR, _TRAINING = Regressor(), Training()


def train_detectors(
    run: Path,
    names: Sequence[str],
    output: Path,
    *,
    detector: Detector = _REGRESSOR,
    training: Training = _TRAINING,
    seeds: Sequence[int] = (0,),
    root: str | None = None,
    weights: str | None = None,
    threshold: ClosedUnitInterval | None = None,
    batch_size: PositiveInt = 20,
    attack: BoxAttack | None = None,
    device: torch.device,
) -> DetectorScores:
    """Trains detectors on each kind of pseudo labels, and scores both.

    The input is checked before the first heatmap is computed. Detectors that already exist in
    `output` are kept.

    Args:
        run: Run folder, or model folder with `root`. Its model gives heatmaps and the backbone.
        names: Kinds of pseudo labels: heatmap methods, "oracle", folders of COCO data sets, and
            COCO files with a found box for each image.
        output: Folder for pseudo labels and detectors. The caller holds its lock.
        detector: Kind of detector, and its settings.
        root: Folder of the data set. If None, the data set of the run.
        weights: File of weights for the backbone, in place of the run's weights.
        threshold: Fraction of the heatmaps' maximum. If None, it is chosen on validation images.
        attack: Attack on the boxes of the finished detectors; {} stands for its defaults. If None,
            they are not attacked.

    Raises:
        ValueError: a name, a file or a setting is wrong, or detectors in `output` have other
            settings.
    """
    given = [read_pseudo_labels(Path(name)) for name in names if _is_folder(name)]
    files = [Path(name) for name in names if _is_file(name)]
    methods = with_baselines(
        name for name in names if not (name == ORACLE or _is_folder(name) or _is_file(name))
    )
    others = [*(each.name for each in given), *map(name_of_file, files)]
    every = [*methods, *others, *[ORACLE] * names.count(ORACLE)]
    folders = [folder_name(name) for name in every]
    if len(set(folders)) < len(folders):
        raise ValueError(f"--pseudo_labels {' '.join(names)} names a source twice")
    model = load_classifier(run).to(device, memory_format=torch.channels_last)
    scored = prepare_evaluation(run, model, root, batch_size=batch_size, threshold=threshold)
    data = replace(scored.data, resize=None)
    splits = {
        "train": prepare_split(data.loader("train")),
        "val": prepare_split(data.loader("val")),
        "test": scored.test,
    }
    for name, method in methods.items():
        if not method.fits(model):
            raise ValueError(f"{name} does not work with this network")
    find = component_finder(run, model, data)
    methods = {name: method.with_component(find) for name, method in methods.items()}
    training_images = [splits[split].dataset for split in TRAINING_SPLITS]
    given = [
        checked_pseudo_labels(labels, training_images, (scored.all_test or scored.test).dataset)
        for labels in given
    ]
    if not scored.boxed:
        raise ValueError(*scored.notes)
    truths = {name: split.truth for name, split in splits.items()}
    given += [found_pseudo_labels(file, truths) for file in files]
    oracle = [oracle_pseudo_labels(truths)] if ORACLE in names else []

    def build() -> Network:
        backbone = _backbone(run, weights)
        return detector.build(backbone, scored.test.dataset.classes).to(device)

    build()  # reports wrong settings now, not after hours
    settings = {
        "model": fingerprint(model_folder(run) / "model.safetensors"),
        "weights": weights and fingerprint(Path(weights)),
        "threshold": threshold,
        "true boxes": fingerprint(true_boxes(splits)),
        "detector": type(detector).__name__,
        **_fields("data", data),
        **_fields("detector", detector),
        **_fields("training", training),
    }
    _require_same_settings(output, settings, folders, given)
    for each in scored.notes:
        print(each)
    outputs = {
        name: run_model(model, split, methods, every_box=False, description=name)
        for name, split in splits.items()
    }
    kinds = [heatmap_pseudo_labels(name, outputs, scored.threshold) for name in methods]
    kinds += [*given, *oracle]
    own: dict[str, BoxScore] = {}
    for labels in kinds:
        folder = output / folder_name(labels.name)
        write_texts(folder, labels.coco_texts())
        without = len(splits["train"].truth) - len(labels.boxes["train"])
        if without > 0:
            print(f"{labels.name}: {without} training images without a box are left out")
        if labels.test_boxes is not None:
            own[labels.name] = _score(labels, outputs["test"], folder)
    trainer = DetectorTrainer(build, training, data, splits, outputs, device, attack)
    detectors = {
        labels.name: trainer.train(labels, seeds, output / folder_name(labels.name))
        for labels in kinds
    }
    return DetectorScores(detectors, own)


def _score(labels: PseudoLabels, test: SplitOutput, folder: Path) -> BoxScore:
    """Writes the pseudo labels' boxes of the test images to results.json, and scores them."""
    results = coco_results(test.truth, test.predictions, labels.test_boxes)
    write_texts(folder, {"results.json": json.dumps(results)})
    return score_results(labels.name, labels.policy, [folder / "results.json"], test.truth)


def _is_folder(name: str) -> bool:
    return (Path(name) / "train.json").is_file()


def _is_file(name: str) -> bool:
    return Path(name).suffix == ".json" and Path(name).is_file()


def _backbone(run: Path, weights: str | None) -> Classifier:
    """The run's best model; with `weights`, the same architecture with these weights."""
    model = load_classifier(run)
    if weights is None:
        return model
    return create_model(
        model.architecture,
        model.num_classes,
        weights=weights,
        last_stride=model.last_stride,
        image_size=model.image_size,
        log_gradient=model.log_gradient,
    )


def true_boxes(splits: Mapping[str, PreparedSplit]) -> str:
    """A text that depends on the true boxes for the threshold ("val") and the scores ("test")."""
    examples = [each for split in ("val", "test") for each in splits[split].dataset.examples]
    return repr([(example.name, example.boxes) for example in examples])


def _fields(part: str, settings: object) -> dict[str, str]:
    """A dataclass's fields by dotted names."""
    return {f"{part}.{name}": str(value) for name, value in vars(settings).items()}


def _require_same_settings(
    output: Path, settings: Mapping[str, Any], folders: Sequence[str], given: Sequence[PseudoLabels]
) -> None:
    """Records the settings of all detectors, and the boxes of `given` pseudo labels. Raises
    ValueError if earlier detectors had others, or if `output` is another kind of folder."""
    inside = {each.name for each in output.iterdir()} - {".lock"}
    if inside and TRAINED_WITH not in inside:
        raise ValueError(f"{output} exists already; name a new folder")
    kept = {name: value for name, value in settings.items() if name not in MAY_CHANGE}
    record_settings(output, kept, results="**/seed*")
    boxes = {
        folder_name(each.name): fingerprint("".join(each.coco_texts().values())) for each in given
    }
    for name in folders:
        record_settings(output / name, {"boxes": boxes.get(name)}, results="seed*")
