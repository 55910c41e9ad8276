"""The images of a data set that a model is scored on, prepared before any work begins."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from torch.utils.data import DataLoader

from robust_training.models.classifier import Classifier
from wsol.annotations.ground_truth import GroundTruth, dataset_ground_truth
from wsol.data.dataset import ImageDataset
from wsol.data.image_folder import BOXES, HEADER, ImageFolder
from wsol.data.loaders import DataConfig, read_data_config
from wsol.localizer.saved_models import ART_THRESHOLD


@dataclass(frozen=True)
class PreparedSplit:
    """A split that a model can be run on.

    Attributes:
        loader: Loads whole frames in order.
        truth: Ground truth of the loader's images.
    """

    loader: DataLoader
    truth: GroundTruth

    @property
    def dataset(self) -> ImageDataset:
        """The data set that the loader reads."""
        return self.loader.dataset

    def part(self, rank: int, world: int) -> DataLoader:
        """Loads every `world`-th batch, beginning with batch `rank`."""
        batches = [*self.loader.batch_sampler][rank::world]
        workers = self.loader.num_workers
        return DataLoader(self.dataset, batch_sampler=batches, num_workers=workers)


@dataclass(frozen=True)
class EvaluationSplits:
    """The splits that a model is scored on.

    Attributes:
        data: Settings of the data set.
        test: The test images that have a box, or all test images if no image has a box.
        all_test: All test images, if `test` has only some of them. Otherwise None.
        validation: The validation images that have a box. Thresholds are chosen on them. None if no
            image has a box.
        threshold: The threshold given in advance, or ART's published threshold if no validation
            image has a box. None if the threshold is chosen on validation images.
        notes: Sentences for users about the images that are left out.
    """

    data: DataConfig
    test: PreparedSplit
    all_test: PreparedSplit | None
    validation: PreparedSplit | None
    threshold: float | None
    notes: tuple[str, ...]

    @property
    def boxed(self) -> bool:
        """Whether the images of `test` have boxes."""
        return bool(self.test.truth.boxed.any())


def prepare_split(loader: DataLoader) -> PreparedSplit:
    """Reads the ground truth of a loader over an `ImageDataset` that yields whole frames in order.

    Raises:
        ValueError: an image cannot be read, or a box lies outside of its image. The message names
            the image.
    """
    return PreparedSplit(loader, dataset_ground_truth(loader.dataset))


def prepare_evaluation(
    folder: Path | None,
    model: Classifier,
    data: DataConfig | str | os.PathLike | None,
    *,
    batch_size: int,
    threshold: float | None,
) -> EvaluationSplits:
    """Prepares the data that a model is scored on.

    Args:
        folder: The model's run or model folder, if it has one.
        data: Settings or folder of the data set. If None, the data set of the run.
        threshold: Threshold for the model's maps, if it is given in advance.

    Raises:
        ValueError: there is no data set, it has other classes than the model, or its images or
            boxes are damaged.
    """
    if isinstance(data, DataConfig):
        config = data
    elif folder is not None and (folder / "config.yaml").is_file():
        config = read_data_config(folder)
        config = replace(config, root=config.root if data is None else os.fspath(data))
    elif data is not None:
        config = DataConfig(os.fspath(data))
    elif folder is None:
        raise ValueError("give the folder of the data set on which the model is evaluated")
    else:
        raise ValueError(f"{folder} has no config.yaml that names its data; give --root")
    config = replace(config, batch_size=batch_size, image_size=model.image_size)
    splits = select_splits(config, threshold)
    require_classes(folder or Path("the model"), model, splits.test.dataset)
    return splits


def select_splits(data: DataConfig, threshold: float | None) -> EvaluationSplits:
    """Selects the test and validation images that have a box, and a threshold for their maps.

    Args:
        threshold: The threshold, if it is given in advance.

    Raises:
        ValueError: an image or box is damaged, see `prepare_split`.
    """
    everything = data.dataset("test")
    count = len(everything)
    test = everything.boxed()
    if test is None:
        place = f"a file {BOXES} in {data.root} with the columns {HEADER}"
        if not isinstance(everything, ImageFolder):
            place = f"boxes of its examples from {type(everything).__name__}"
        note = (
            f"none of the {count} test images has a box; to score boxes, say where the object is "
            f"in some of them: {place}"
        )
        prepared = prepare_split(data.in_order(everything))
        return EvaluationSplits(data, prepared, None, None, threshold, (note,))
    notes = []
    if len(test) < count:
        notes.append(f"{len(test)} of {count} test images have a box; the scores are theirs alone")
    validation = data.dataset("val").boxed()
    if validation is None and threshold is None:
        threshold = ART_THRESHOLD
        notes.append(
            f"no validation image has a box, so boxes are read at ART's published {threshold:g} "
            "(--threshold gives another); it suits no baseline: compare with the oracle's centred "
            "box"
        )
    unmasked = sum(example.mask is None for example in test.examples)
    if 0 < unmasked < len(test):
        notes.append(f"{unmasked} test images have no mask, so no PxAP")
    return EvaluationSplits(
        data=data,
        test=prepare_split(data.in_order(test)),
        all_test=prepare_split(data.in_order(everything)) if len(test) < count else None,
        validation=None if validation is None else prepare_split(data.in_order(validation)),
        threshold=threshold,
        notes=tuple(notes),
    )


def require_classes(folder: Path, model: Classifier, dataset: ImageDataset) -> None:
    """Raises ValueError if the model in `folder` was trained on other classes than `dataset`'s."""
    known = model.class_names
    if model.backbone.num_classes != len(dataset.classes) or (known and known != dataset.classes):
        raise ValueError(
            f"{folder} was trained on {model.backbone.num_classes} classes other than the "
            f"{len(dataset.classes)} of {dataset.root}"
        )
