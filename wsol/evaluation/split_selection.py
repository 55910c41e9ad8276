"""What of a data set can be scored, where few of its images have a box, or none."""

from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader

from robust_training.models.classifier import Classifier
from wsol.data.dataset import ImageDataset
from wsol.data.image_folder import BOXES, HEADER
from wsol.data.loaders import DataConfig
from wsol.localizer.saved_models import ART_THRESHOLD


@dataclass(frozen=True)
class Scorable:
    """Whole frames, in order.

    Attributes:
        test: The test images that have a box; all of them where none has.
        all_test: All test images, where `test` holds some of them; else None.
        boxed: Whether the images of `test` have boxes.
        validation: The validation images that have a box, which choose thresholds; None where none
            has.
        threshold: That was given in advance, if any: ART's published one where nothing chooses
            another.
        notes: Sentences for people.
    """

    test: DataLoader
    all_test: DataLoader | None
    boxed: bool
    validation: DataLoader | None
    threshold: float | None
    notes: tuple[str, ...]


def find_scorable(data: DataConfig, threshold: float | None) -> Scorable:
    """The test and validation images of `data` that have a box, and a threshold for their maps.

    Args:
        threshold: Given in advance, if it was.
    """
    everything = data.loader("test")
    count = len(everything.dataset)
    test = everything.dataset.boxed()
    if test is None:
        note = (
            f"none of the {count} test images has a box; to score boxes, say where the object is "
            f"in some of them: a file {BOXES} in {data.root} with the columns {HEADER}"
        )
        return Scorable(everything, None, False, None, threshold, (note,))
    notes = []
    if len(test) < count:
        notes.append(f"{len(test)} of {count} test images have a box; the scores are theirs alone")
    validation = data.dataset("val").boxed()
    if validation is None and threshold is None:
        threshold = ART_THRESHOLD
        notes.append(
            f"no validation image has a box, so boxes are read at ART's published {threshold:g} "
            "(--threshold gives another); it suits no floor: compare with the oracle's centred box"
        )
    unmasked = sum(example.mask is None for example in test.examples)
    if 0 < unmasked < len(test):
        notes.append(f"{unmasked} test images have no mask, so no PxAP")
    return Scorable(
        test=data.in_order(test),
        all_test=everything if len(test) < count else None,
        boxed=True,
        validation=None if validation is None else data.in_order(validation),
        threshold=threshold,
        notes=tuple(notes),
    )


def require_classes(folder: Path, model: Classifier, dataset: ImageDataset) -> None:
    """ValueError where the model in `folder` was trained on other classes than the data set's."""
    known = model.class_names
    if model.backbone.num_classes != len(dataset.classes) or (known and known != dataset.classes):
        raise ValueError(
            f"{folder} was trained on {model.backbone.num_classes} classes other than the "
            f"{len(dataset.classes)} of {dataset.root}"
        )
