"""Students: detectors that a teacher's boxes train, saved and scored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from robust_training.files import write_texts
from robust_training.log import csv_text
from robust_training.model import Classifier, create_model, load_model
from wsol.data.loaders import DataConfig
from wsol.detectors import Detector, save_detector
from wsol.detectors.training import Training, detect, fit_detector
from wsol.localizer import model_folder
from wsol.measuring import Measured
from wsol.students import Scored, boxed_hits, detections, score_results
from wsol.teachers import Teacher, examples

_TRAINING_SPLIT = ("train", "val")


@dataclass(frozen=True)
class School:
    """What all students have in common.

    Attributes:
        run: Of the model that they start from.
        weights: That its backbone takes in place of its own.
        loaders: Of each split: whole frames, in order.
        splits: What the model says of them.
        seeds: One detector of each teacher for each.
    """

    run: Path
    weights: str | None
    data: DataConfig
    loaders: Mapping[str, DataLoader]
    splits: Mapping[str, Measured]
    detector: Detector
    training: Training
    seeds: Sequence[int]
    device: torch.device
    output: Path

    def teach(self, teacher: Teacher) -> Scored:
        """A teacher's students, in folders of their own."""
        hits, seconds, results = [], [], []
        for seed in self.seeds:
            folder = self.output / teacher.name.replace(" ", "_") / f"seed{seed}"
            hit, second = self._train(teacher, seed, folder)
            hits += [] if hit is None else [hit]
            seconds.append(second)
            results.append(folder / "results.json")
        return score_results(
            f"student of {teacher.name}",
            teacher.policy,
            results,
            self.splits["test"].truth,
            training_gt_known=hits,
            seconds=seconds,
        )

    def _train(self, teacher: Teacher, seed: int, folder: Path) -> tuple[float | None, float]:
        """One detector: its share of hits on the training split's boxed images, and seconds."""
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
        network = self.detector.build(start_model(self.run, self.weights), list(test.truth.classes))
        title = f"student of {teacher.name}, seed {seed}"
        network.to(self.device)
        log = fit_detector(network, *loaders, self.training, seed=seed, title=title)
        save_detector(network, self.detector, folder)
        found = {split: detect(network, loader) for split, loader in self.loaders.items()}
        results = detections(found["test"], test.truth, test.predictions)
        write_texts(folder, {"results.json": json.dumps(results), "log.csv": csv_text(log)})
        hits = [boxed_hits(found[split], self.splits[split].truth) for split in _TRAINING_SPLIT]
        every = np.concatenate(hits)
        share = float(every.mean()) if len(every) else None
        return share, sum(row["seconds"] for row in log)


def start_model(run: Path, weights: str | None) -> Classifier:
    """The run's best model; with `weights`, another of its kind that holds them."""
    model = load_model(model_folder(run))
    if weights is None:
        return model
    return create_model(
        model.backbone.pretrained_cfg["architecture"],
        model.backbone.num_classes,
        weights=weights,
        last_stride=model.last_stride,
        image_size=model.image_size,
        front=model.front,
    )
