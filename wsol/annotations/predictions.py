"""Classes that a classifier predicted for the images of a split."""

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol.annotations.ground_truth import GroundTruth
from wsol.data.dataset import MOST_CLASSES
from wsol.data.names import KnownNames
from wsol.data.text_files import naming, number, read_lines, whole


@dataclass(frozen=True)
class Predictions:
    """Ranked classes of N images.

    Attributes:
        order: int64 (N,K), the K most probable classes in descending order, filled with -1.
        confidence: float64 (N,), probability of the most probable class. None if it is not given.
        classes: Number of all classes.
    """

    order: np.ndarray
    confidence: np.ndarray | None
    classes: int

    def correct(self, labels: np.ndarray, k: int) -> np.ndarray | None:
        """bool (N,): whether the true class is among the first k. None if fewer are ranked."""
        if self.order.shape[1] < min(k, self.classes):
            return None
        return (self.order[:, :k] == np.asarray(labels)[:, None]).any(axis=1)


def read_predictions(
    file: str | Path, truth: GroundTruth, known: Collection[str] = ()
) -> Predictions:
    """Reads lines `<image>,<class>,<class>,...`, the most probable class first, counted from 0.

    A class may be given with its probability: `<image>,17:0.82,3:0.1`.

    Args:
        truth: The images. Each of them needs a line.
        known: Images that may have a line although they are not in `truth`.

    Raises:
        ValueError: an image is missing, unknown or listed twice, or a class is not a number or is
            listed twice in its line. The message names the file and the line.
    """
    file = Path(file)
    table: dict[str, tuple[list[int], float | None]] = {}
    most = MOST_CLASSES if truth.open_classes else len(truth.classes)
    lines = [(row, line, next(csv.reader([line]))) for row, line in read_lines(file)]
    names = KnownNames((*truth.names, *known), (fields[0].strip() for *_, fields in lines))
    for row, line, (image, *fields) in lines:
        with naming(f"{file}, line {row}", line):
            name = names.find(image.strip())
            if name is None:
                raise ValueError("this image is not in the metadata")
            if name in table:
                raise ValueError("this image is listed twice")
            table[name] = _ranking([field.strip() for field in fields], most)
    for name in truth.names:
        if name not in table:
            raise ValueError(f"{file}: no line for image {name}")
    rows = [table[name] for name in truth.names]
    shortest = min(len(order) for order, _ in rows)
    confidence = [probability for _, probability in rows]
    order = np.array([order[:shortest] for order, _ in rows], np.int64)
    return Predictions(
        order,
        None if None in confidence else np.array(confidence, np.float64),
        max(len(truth.classes), int(order.max()) + 1),
    )


def predictions_text(predictions: Predictions, truth: GroundTruth) -> str:
    """Writes lines that `read_predictions` reads."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    confidence = predictions.confidence
    for row, name in enumerate(truth.names):
        first, *others = (int(label) for label in predictions.order[row] if label >= 0)
        lines.writerow(
            [name, first if confidence is None else f"{first}:{confidence[row]}", *others]
        )
    return text.getvalue()


def _ranking(fields: list[str], most: int) -> tuple[list[int], float | None]:
    pairs = [field.partition(":") for field in fields]
    classes = [whole(label) for label, _, _ in pairs]
    if not classes or min(classes) < 0 or len(set(classes)) < len(classes):
        raise ValueError("expected an image and different classes, counted from 0")
    if max(classes) >= most:
        raise ValueError(f"class {max(classes)} is not in 0 to {most - 1}")
    probability = number(pairs[0][2]) if pairs[0][1] else None
    if probability is not None and not 0 <= probability <= 1:
        raise ValueError("a probability must lie in [0,1]")
    return classes, probability
