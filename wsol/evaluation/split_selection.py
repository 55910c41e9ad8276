"""Selects and checks the images for scoring a model, before the work begins."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch.utils.data import DataLoader

from robust_training.models.classifier import Classifier
from wsol.annotations.ground_truth import GroundTruth, dataset_ground_truth
from wsol.data.dataset import EmptySplitError, ImageDataset
from wsol.data.image_folder import BOXES, HEADER, ImageFolder
from wsol.data.loaders import DataConfig, read_data_config
from wsol.data.names import composed
from wsol.localizer.saved_models import ART_THRESHOLD, chosen_thresholds
from wsol.localizer.unboxed_threshold import unboxed_images


@dataclass(frozen=True)
class PreparedSplit:
    """A split with its ground truth. `loader` loads whole images in order."""

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
    """The splits for scoring a model.

    Attributes:
        test: The test images that have a box, or all test images if no image has a box.
        all_test: All test images, if `test` has only some of them. Otherwise None.
        validation: The validation images that have a box. Thresholds are chosen on them. None if no
            image has a box.
        chosen: Heatmap -> threshold that the run chose on its own validation images before. Empty
            if `validation` is used.
        choosing: The images that choose the threshold of the policy "unboxed", or None.
        threshold: The threshold given in advance, or ART's published threshold if no image chooses
            one. None if the threshold is chosen on images.
        notes: Sentences for users about the images that are left out.
    """

    data: DataConfig
    test: PreparedSplit
    all_test: PreparedSplit | None
    validation: PreparedSplit | None
    chosen: Mapping[str, float]
    choosing: DataLoader | None
    threshold: float | None
    notes: tuple[str, ...]

    @property
    def boxed(self) -> bool:
        """Whether the images of `test` have boxes."""
        return bool(self.test.truth.boxed.any())


def prepare_split(loader: DataLoader) -> PreparedSplit:
    """Reads the ground truth of a loader of an `ImageDataset` with whole images in order. Raises
    ValueError if an image cannot be read, or a box lies outside of its image. The message names the
    image."""
    return PreparedSplit(loader, dataset_ground_truth(loader.dataset))


def prepare_evaluation(
    folder: Path | None,
    model: Classifier,
    data: DataConfig | str | os.PathLike | None,
    *,
    batch_size: int,
    threshold: float | None,
    test_alone: bool = False,
) -> EvaluationSplits:
    """Prepares the data for scoring a model.

    Args:
        data: Settings or folder of the data set. If None, the data set of the run.
        threshold: Threshold for the model's maps, if it is given in advance.
        test_alone: Whether the data may be test images alone. Their classes are then found by name
            among those of the model, and the thresholds are those that the run chose on its own
            validation images, if it is another data set than the run's own.

    Raises:
        ValueError: there is no data set, it has other classes than the model, or its images or
            boxes are damaged.
    """
    has_own = folder is not None and (folder / "config.yaml").is_file()
    own = read_data_config(folder) if has_own else None
    if isinstance(data, DataConfig):
        config = data
    elif own is not None:
        config = replace(own, root=own.root if data is None else os.fspath(data))
    elif data is not None:
        config = DataConfig(os.fspath(data))
    elif folder is None:
        raise ValueError("give the folder of the data set on which the model is evaluated")
    else:
        raise ValueError(f"{folder} has no config.yaml that names its data; give --root")
    config = replace(config, batch_size=batch_size, image_size=model.image_size)
    classes = model.class_names if test_alone else None
    chosen = _chosen_before(folder, own, config) if test_alone else None
    choosing = _choosing_images(own or config, model) if test_alone else None
    splits = select_splits(config, threshold, classes=classes, chosen=chosen, choosing=choosing)
    require_classes(folder or Path("the model"), model, splits.test.dataset)
    return splits


def _chosen_before(
    folder: Path | None, own: DataConfig | None, data: DataConfig
) -> dict[str, float] | None:
    """Returns the thresholds that the run in `folder` chose, if `data` is not its own data set.

    Otherwise, and without a folder, returns None. It is not known on which data a model without a
    run was trained, so validation images of `data` then come first.
    """
    if folder is None:
        return None
    if own is None:
        return None if _validation(data, None) else chosen_thresholds(folder)
    is_own = Path(own.root).resolve() == Path(data.root).resolve()
    return None if is_own else chosen_thresholds(folder, own.root)


def _choosing_images(data: DataConfig, model: Classifier) -> DataLoader | None:
    """Returns `unboxed_images`; None if they are not there."""
    data = replace(data, image_size=model.image_size)
    try:
        return unboxed_images(data, model.class_names)
    except ValueError:  # the run's own data were removed: its scores on other data need none
        return None


def _validation(data: DataConfig, classes: Sequence[str] | None) -> ImageDataset | None:
    """Returns the validation images that have a box. None if there is no such image."""
    try:
        validation = data.dataset("val").boxed()
    except EmptySplitError:
        return None
    return validation if validation is None or classes is None else validation.relabelled(classes)


def select_splits(
    data: DataConfig,
    threshold: float | None,
    *,
    classes: Sequence[str] | None = None,
    chosen: Mapping[str, float] | None = None,
    choosing: DataLoader | None = None,
) -> EvaluationSplits:
    """Selects the test and validation images that have a box, and a threshold for their maps.

    Args:
        threshold: The threshold, if it is given in advance.
        classes: Names of the model's classes, which the labels count. If None, those of the data.
        chosen: Heatmap -> threshold that was chosen before. If there is any, validation images are
            not needed. If None, none was looked for.
        choosing: Images that can choose a threshold without boxes.

    Raises:
        ValueError: an image or box is damaged, see `prepare_split`; or an image's class is none of
            `classes`.
    """
    everything = data.dataset("test")
    if classes is not None:
        everything = everything.relabelled(classes)
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
        return EvaluationSplits(data, prepared, None, None, chosen or {}, None, threshold, (note,))
    notes = []
    if len(test) < count:
        notes.append(f"{len(test)} of {count} test images have a box; only these are scored")
    validation = None if chosen else _validation(data, classes)
    if chosen:
        notes.append("val is the threshold that the run chose on its own validation images")
    elif validation is None and threshold is None and choosing is not None:
        notes.append(
            "no validation image has a box, so the policy unboxed chooses the threshold: its boxes "
            "agree most with colour segments (--threshold gives another)"
        )
    elif validation is None and threshold is None:
        threshold, reason = ART_THRESHOLD, "no validation image has a box, so"
        if chosen is not None:
            reason = (
                "no validation image has a box, and metrics.json has no threshold that the run "
                "chose on its own validation images, so only the policies fixed and oracle remain:"
            )
        notes.append(
            f"{reason} the threshold is ART's published {threshold:g} (--threshold gives another);"
            " it does not suit the centred box: compare with its oracle"
        )
    unmasked = sum(example.mask is None for example in test.examples)
    if 0 < unmasked < len(test):
        notes.append(
            f"{len(test) - unmasked} of {len(test)} test images have a mask; only these count for "
            "PxAP and pIoU"
        )
    return EvaluationSplits(
        data=data,
        test=prepare_split(data.in_order(test)),
        all_test=prepare_split(data.in_order(everything)) if len(test) < count else None,
        validation=None if validation is None else prepare_split(data.in_order(validation)),
        chosen=chosen or {},
        choosing=choosing,
        threshold=threshold,
        notes=tuple(notes),
    )


def require_classes(folder: Path, model: Classifier, dataset: ImageDataset) -> None:
    """Raises ValueError if the model in `folder` was trained on other classes than `dataset`'s."""
    known, own = ([*map(composed, names or ())] for names in (model.class_names, dataset.classes))
    if model.num_classes != len(own) or (known and known != own):
        raise ValueError(
            f"{folder} was trained on {model.num_classes} classes other than the "
            f"{len(dataset.classes)} of {dataset.root}"
        )
