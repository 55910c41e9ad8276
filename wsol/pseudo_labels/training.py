"""Students: detectors that a teacher's boxes train, saved and scored."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from robust_training.models.classifier import Classifier, create_model
from robust_training.training.log import csv_text
from wsol.cli.run_folder import MAY_CHANGE, TRAINED_WITH, fingerprint, record_settings
from wsol.data.loaders import DataConfig
from wsol.data.text_files import read_json
from wsol.detectors import Network, save_detector
from wsol.detectors.training import Training, detect, fit_detector
from wsol.evaluation.run_model import SplitOutput
from wsol.localizer.saved_models import load_classifier
from wsol.pseudo_labels.boxes import Teacher, coco_texts, examples, folder_name
from wsol.pseudo_labels.scores import Scored, boxed_hits, detections, score_results

_TRAINING_SPLIT = ("train", "val")
_RESULTS, _SCORE = "results.json", "score.json"


@dataclass(frozen=True)
class School:
    """What all students have in common.

    Attributes:
        build: Makes a student that has learned nothing; random weights are PyTorch's next ones.
        loaders: Of each split: whole frames, in order.
        splits: What the model that they start from says of them.
    """

    build: Callable[[], Network]
    training: Training
    data: DataConfig
    loaders: Mapping[str, DataLoader]
    splits: Mapping[str, SplitOutput]

    def teach(self, teacher: Teacher, seeds: Sequence[int], folder: Path) -> Scored:
        """One student for each seed, in a folder seed<n> each; those that are there are kept."""
        students = [folder / f"seed{seed}" for seed in seeds]
        for seed, student in zip(seeds, students, strict=True):
            if not student.exists():
                self._train(teacher, seed, student)
        scores = [_read_score(student) for student in students]
        known = [score["training_gt_known_loc"] for score in scores]
        return score_results(
            f"student of {teacher.name}",
            teacher.policy,
            [student / _RESULTS for student in students],
            self.splits["test"].truth,
            training_gt_known=[share for share in known if share is not None],
            seconds=[score["seconds"] for score in scores],
        )

    def _train(self, teacher: Teacher, seed: int, folder: Path) -> None:
        test, data = self.splits["test"], self.loaders["test"].dataset
        loaders = (
            self.data.loader_of(
                examples(teacher.boxes[split], data.images),
                training=split == "train",
                upright=data.upright,
            )
            for split in _TRAINING_SPLIT
        )
        torch.manual_seed(seed)
        network = self.build()
        title = f"student of {teacher.name}, seed {seed}"
        log = fit_detector(network, *loaders, self.training, seed=seed, title=title)
        found = {split: detect(network, loader) for split, loader in self.loaders.items()}
        hits = [boxed_hits(found[split], self.splits[split].truth) for split in _TRAINING_SPLIT]
        every = np.concatenate(hits)
        score = {
            "training_gt_known_loc": float(every.mean()) if len(every) else None,
            "seconds": sum(row["seconds"] for row in log),
        }
        results = detections(found["test"], test.truth, test.predictions)
        texts = {_RESULTS: json.dumps(results), _SCORE: json.dumps(score), "log.csv": csv_text(log)}
        save_detector(network, folder, texts)


def _read_score(student: Path) -> dict[str, Any]:
    again = f"delete {student} to train it again"
    try:
        score = read_json(student / _SCORE)
    except ValueError as error:
        raise ValueError(f"{error}: {again}") from error
    kinds = {"training_gt_known_loc": float | None, "seconds": float}
    if not (
        isinstance(score, dict)
        and all(name in score and isinstance(score[name], kind) for name, kind in kinds.items())
    ):
        raise ValueError(f"{student / _SCORE} is damaged: {again}")
    if not (student / _RESULTS).is_file():
        raise ValueError(f"there is no {_RESULTS} in {student}: {again}")
    return score


def require_same_lessons(
    output: Path, now: Mapping[str, Any], places: Sequence[str], given: Sequence[Teacher]
) -> None:
    """Keep what the students below `output` learn from.

    Args:
        now: What all learn from, JSON values by dotted names.
        places: The teachers' folders.
        given: Those of the teachers whose boxes nothing in `now` says.

    Raises:
        ValueError: some learned from something else (names it), or `output` is no folder of
            students.
    """
    inside = {each.name for each in output.iterdir()} - {".lock"}
    if inside and TRAINED_WITH not in inside:
        raise ValueError(f"{output} exists already; name a new folder")
    kept = {name: value for name, value in now.items() if name not in MAY_CHANGE}
    record_settings(output, kept, results="**/seed*")
    boxes = {
        folder_name(each.name): fingerprint("".join(coco_texts(each).values())) for each in given
    }
    for place in places:
        record_settings(output / place, {"boxes": boxes.get(place)}, results="seed*")


def start_model(run: Path, weights: str | None) -> Classifier:
    """The run's best model; with `weights`, another of its kind that holds them."""
    model = load_classifier(run)
    if weights is None:
        return model
    return create_model(
        model.backbone.pretrained_cfg["architecture"],
        model.backbone.num_classes,
        weights=weights,
        last_stride=model.last_stride,
        image_size=model.image_size,
        log_gradient=model.log_gradient,
    )
