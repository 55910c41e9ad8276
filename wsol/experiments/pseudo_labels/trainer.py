"""Training of detectors on pseudo labels: one detector for each seed, saved with its score."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robust_training.atomic_io import write_text, write_texts
from robust_training.training.log import csv_text, read_log
from wsol.data.loaders import DataConfig
from wsol.data.text_files import read_json
from wsol.detectors import Network, load_detector, save_detector
from wsol.detectors.training import Training, detect, fit_detector
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.split_selection import PreparedSplit
from wsol.experiments.pseudo_labels.pseudo_boxes import TRAINING_SPLITS, PseudoLabels, examples
from wsol.experiments.pseudo_labels.scores import (
    BoxScore,
    boxed_hits,
    detection_results,
    score_results,
)
from wsol.robustness.detector_attack import BoxAttack, attack_detector

_RESULTS, _SCORE, _LOG = "results.json", "score.json", "log.csv"
_ATTACKED = "attacked.json"


@dataclass(frozen=True)
class DetectorTrainer:
    """Trains detectors with the same settings on several kinds of pseudo labels.

    Attributes:
        build: Makes an untrained detector with PyTorch's global generator.
        splits: "train", "val" and "test", with whole images in order.
        outputs: The classifier's predictions for these splits.
        attack: Attack on the finished detectors. If None, they are not attacked.
    """

    build: Callable[[], Network]
    training: Training
    data: DataConfig
    splits: Mapping[str, PreparedSplit]
    outputs: Mapping[str, SplitOutput]
    device: torch.device
    attack: BoxAttack | None = None

    def train(self, labels: PseudoLabels, seeds: Sequence[int], folder: Path) -> BoxScore:
        """Trains one detector for each seed, in folder/seed<n>, and scores it.

        Existing detectors are kept. One whose scoring was interrupted is scored.
        """
        folders = [folder / f"seed{seed}" for seed in seeds]
        for seed, detector in zip(seeds, folders, strict=True):
            if not detector.exists():
                self._train_one(labels, seed, detector)
            if not (detector / _SCORE).exists():
                self._score_one(detector)
        attacked = [self._attack_one(*pair) for pair in zip(folders, seeds, strict=True)]
        scores = [_read_score(detector) for detector in folders]
        known = [score["training_gt_known_loc"] for score in scores]
        return score_results(
            f"detector trained on {labels.name}",
            labels.policy,
            [detector / _RESULTS for detector in folders],
            self.outputs["test"].truth,
            training_gt_known=[each for each in known if each is not None],
            seconds=[score["seconds"] for score in scores],
            attacked=[each for each in attacked if each is not None],
        )

    def _train_one(self, labels: PseudoLabels, seed: int, folder: Path) -> None:
        dataset = self.splits["test"].dataset
        loaders = (
            self.data.loader_of(
                examples(labels.boxes[split], dataset.images),
                training=split == "train",
                upright=dataset.upright,
            )
            for split in TRAINING_SPLITS
        )
        torch.manual_seed(seed)
        network = self.build()
        title = f"detector on {labels.name}, seed {seed}"
        log = fit_detector(network, *loaders, self.training, seed=seed, title=title)
        save_detector(network, folder, {_LOG: csv_text(log)})

    def _load(self, folder: Path) -> Network:
        try:
            return load_detector(folder).to(self.device)
        except ValueError as error:
            raise ValueError(f"{error}: {_again(folder)}") from error

    def _attack_one(self, folder: Path, seed: int) -> dict[str, Any] | None:
        """The result of the attack on a detector; one that is there already is kept."""
        if self.attack is None:
            return None
        file = folder / _ATTACKED
        known = read_json(file) if file.is_file() else None
        if isinstance(known, dict) and known.get("box_attack") == asdict(self.attack):
            return known
        loader = self.splits["test"].loader
        found = attack_detector(self._load(folder), loader, self.attack, seed=seed)
        write_text(file, json.dumps(found))
        return found

    def _score_one(self, folder: Path) -> None:
        network = self._load(folder)
        test = self.outputs["test"]
        found = {
            name: detect(
                network, split.loader, title=f"{folder.parent.name}, {folder.name}: {name}"
            )
            for name, split in self.splits.items()
        }
        hits = [boxed_hits(found[split], self.outputs[split].truth) for split in TRAINING_SPLITS]
        every = np.concatenate(hits)
        score = {
            "training_gt_known_loc": float(every.mean()) if len(every) else None,
            "seconds": sum(row["seconds"] for row in read_log(folder)),
        }
        results = detection_results(found["test"], test.truth, test.predictions)
        write_texts(folder, {_RESULTS: json.dumps(results), _SCORE: json.dumps(score)})


def _again(detector: Path) -> str:
    return f"delete {detector} to train it again"


def _read_score(detector: Path) -> dict[str, Any]:
    again = _again(detector)
    try:
        score = read_json(detector / _SCORE)
    except ValueError as error:
        raise ValueError(f"{error}: {again}") from error
    kinds = {"training_gt_known_loc": float | None, "seconds": float}
    if not (
        isinstance(score, dict)
        and all(name in score and isinstance(score[name], kind) for name, kind in kinds.items())
    ):
        raise ValueError(f"{detector / _SCORE} is damaged: {again}")
    if not (detector / _RESULTS).is_file():
        raise ValueError(f"there is no {_RESULTS} in {detector}: {again}")
    return score
