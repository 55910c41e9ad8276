"""The results of an evaluation: scores, headline boxes, a table of images, and their files."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robust_training.atomic_io import write_texts
from robust_training.attacks.map_attack import MapAttack
from robust_training.models.classifier import Classifier
from wsol.annotations.coco_writing import coco_ground_truth
from wsol.annotations.predictions import predictions_text
from wsol.data.dataset import ImageDataset
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.score_rows import ScoreRow
from wsol.heatmaps.heatmap import HeatmapMethod


@dataclass(frozen=True)
class Headline:
    """The boxes of one kind of heatmap under its first threshold policy.

    Attributes:
        row: The scores of these boxes.
        boxes: (N,4) half-open xyxy in the files' pixels.
        iou: (N,), the best IoU with a true box.
        error_types: str (N,), one of `error_types.ERROR_TYPES` for each image.
        results: The boxes as COCO results, or None without probabilities.
    """

    row: ScoreRow
    boxes: np.ndarray
    iou: np.ndarray
    error_types: np.ndarray
    results: list[dict[str, Any]] | None


@dataclass(frozen=True)
class Scores:
    """The scores of a split.

    Attributes:
        metrics: The content of metrics.json (docs/protocols.md).
        headlines: A headline for each kind of heatmap.
        output: The scored ground truth, predictions and box tables.
    """

    metrics: dict[str, Any]
    headlines: tuple[Headline, ...]
    output: SplitOutput

    def with_metrics(self, metrics: Mapping[str, Any]) -> "Scores":
        """Adds keys to `metrics`."""
        return replace(self, metrics=self.metrics | dict(metrics))

    def image_rows(self) -> Iterator[dict[str, Any]]:
        """One row for each kind of heatmap and image: prediction, box in the file's pixels, IoU,
        threshold and error type. Unknown predictions and thresholds are None."""
        truth, predictions = self.output.truth, self.output.predictions
        for headline in self.headlines:
            for index, name in enumerate(truth.names):
                prediction = -1 if predictions is None else int(predictions.order[index, 0])
                yield {
                    "image": name,
                    "label": int(truth.labels[index]),
                    "prediction": None if prediction == -1 else prediction,
                    **dict(zip(("x0", "y0", "x1", "y1"), headline.boxes[index], strict=True)),
                    "iou": float(headline.iou[index]),
                    "heatmap": headline.row.heatmap,
                    "policy": headline.row.policy,
                    "threshold": headline.row.threshold,
                    "error": str(headline.error_types[index]),
                }


@dataclass(frozen=True)
class Evaluation(Scores):
    """The scores of a model, with its methods and images, so that a report can show heatmaps.

    Attributes:
        folder: The folder of the run or model, which may contain the log of its training.
        map_attack: The first attack on maps. None if no map was attacked.
    """

    name: str
    model: Classifier
    methods: Mapping[str, HeatmapMethod]
    dataset: ImageDataset
    folder: Path | None
    map_attack: MapAttack | None = None


_COLUMNS = ("image", "label", "prediction", "x0", "y0", "x1", "y1", "iou", "heatmap", "policy")
# These characters begin a formula in a spreadsheet, and file names are not trusted. With `./`
# before it, a name still denotes the same file.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def image_table(scores: Scores) -> str:
    """`Scores.image_rows` as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (*_COLUMNS, "threshold", "error"), lineterminator="\n")
    writer.writeheader()
    for row in scores.image_rows():
        name, threshold = row["image"], row["threshold"]
        writer.writerow(
            row
            | {key: f"{row[key]:.2f}" for key in ("x0", "y0", "x1", "y1")}
            | {
                "image": f"./{name}" if name.startswith(_FORMULA) else name,
                "iou": repr(row["iou"]),
                "threshold": "" if threshold is None else f"{threshold:g}",
            }
        )
    return text.getvalue()


def write_scores(folder: str | os.PathLike | None, scores: Scores) -> None:
    """Writes images.csv, predictions.txt, coco/truth.json, coco/<heatmap>.json, metrics.json: all
    or none. If `folder` is None, nothing is written."""
    if folder is None:
        return
    folder, truth = Path(folder), scores.output.truth
    texts = {"images.csv": image_table(scores)}
    predictions = scores.output.predictions
    if predictions is not None and (predictions.order >= 0).any(axis=1).all():
        texts["predictions.txt"] = predictions_text(predictions, truth)
    if truth.boxes.size:
        texts["coco/truth.json"] = json.dumps(coco_ground_truth(truth))
    for headline in scores.headlines:
        if headline.results is not None:
            file = f"coco/{headline.row.heatmap.replace(' ', '_')}.json"
            texts[file] = json.dumps(headline.results)
    texts["metrics.json"] = json.dumps(scores.metrics, indent=2)
    write_texts(folder, texts)
    for file in (folder / "coco").glob("*.json"):
        if f"coco/{file.name}" not in texts:
            file.unlink()  # it belongs to an earlier evaluation
