"""Classes that a classifier predicted for the images of a split."""

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import itemgetter
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
        probabilities: float64 (N,J), of the first J of these classes. None if not given.
        classes: Number of all classes.
    """

    order: np.ndarray
    probabilities: np.ndarray | None
    classes: int

    @property
    def confidence(self) -> np.ndarray | None:
        """float64 (N,), probability of the most probable class. None if it is not given."""
        return None if self.probabilities is None else self.probabilities[:, 0]

    def correct(self, labels: np.ndarray, k: int) -> np.ndarray | None:
        """bool (N,): whether the true class is among the first k. None if fewer are ranked."""
        if self.order.shape[1] < min(k, self.classes):
            return None
        return (self.order[:, :k] == np.asarray(labels)[:, None]).any(axis=1)


def read_predictions(
    file: str | Path, truth: GroundTruth, known: Collection[str] = ()
) -> Predictions:
    """Reads lines `<image>,<class>,<class>,...`, the most probable class first, counted from 0.

    A class may be given with its probability: `<image>,17:0.82,3:0.1`. Each line keeps the first J
    probabilities. J is the smallest number of probabilities in a line.

    Args:
        truth: The images. Each of them needs a line.
        known: Images that may have a line although they are not in `truth`.

    Raises:
        ValueError: an image is missing, unknown or listed twice, or a class is not a number or is
            listed twice in its line. The message names the file and the line.
    """
    file = Path(file)
    table: dict[str, tuple[list[int], list[float]]] = {}
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
    shortest, given = (min(map(len, column)) for column in zip(*rows, strict=True))
    order = np.array([order[:shortest] for order, _ in rows], np.int64)
    return Predictions(
        order,
        np.array([found[:given] for _, found in rows], np.float64) if given else None,
        max(len(truth.classes), int(order.max()) + 1),
    )


def mean_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Ranks classes by their mean probability in several predictions for the same images.

    A class has probability 0 where it is not ranked. Raises ValueError if ranked classes have no
    probability."""
    if len(parts) == 1:
        return parts[0]
    classes = max(part.classes for part in parts)
    total = np.zeros((len(parts[0].order), classes))
    for part in parts:
        if part.probabilities is None or part.probabilities.shape != part.order.shape:
            raise ValueError(
                "the mean of several predictions needs a probability for each class in them; "
                "evaluate.py writes them"
            )
        rows, columns = np.nonzero(part.order >= 0)
        total[rows, part.order[rows, columns]] += part.probabilities[rows, columns] / len(parts)
    order = np.argsort(-total, axis=1, kind="stable")
    order = order[:, : min(part.order.shape[1] for part in parts)]
    return Predictions(order, np.take_along_axis(total, order, axis=1), classes)


def predictions_text(predictions: Predictions, truth: GroundTruth) -> str:
    """Writes lines that `read_predictions` reads."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    for row, name in enumerate(truth.names):
        labels = [str(label) for label in predictions.order[row].tolist() if label >= 0]
        given = [] if predictions.probabilities is None else predictions.probabilities[row].tolist()
        fields = [f"{label}:{value}" for label, value in zip(labels, given, strict=False)]
        lines.writerow([name, *fields, *labels[len(fields) :]])
    return text.getvalue()


def _ranking(fields: list[str], most: int) -> tuple[list[int], list[float]]:
    """Returns the classes of a line, and the probabilities of the first of them."""
    pairs = [field.partition(":") for field in fields]
    classes = [whole(label) for label, _, _ in pairs]
    if not classes or min(classes) < 0 or len(set(classes)) < len(classes):
        raise ValueError("expected an image and different classes, counted from 0")
    if max(classes) >= most:
        raise ValueError(f"class {max(classes)} is not in 0 to {most - 1}")
    given = [number(value) for _, _, value in takewhile(itemgetter(1), pairs)]
    if not all(0 <= probability <= 1 for probability in given):
        raise ValueError("a probability must lie in [0,1]")
    return classes, given
