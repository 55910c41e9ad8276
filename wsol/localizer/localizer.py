"""Finds boxes in images, in pixels of the original image."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat

import numpy as np
import torch

from robust_training.models.classifier import Classifier
from wsol.boxes.geometry import NO_BOX, rescale
from wsol.data.inputs import ImageLike, each_image, read_pixels
from wsol.data.names import same_names, suggestion
from wsol.data.transforms import eval_transform, network_input
from wsol.detectors.base import Network
from wsol.detectors.saving import is_detector, load_detector
from wsol.heatmaps.heatmap import HeatmapMethod
from wsol.heatmaps.methods import LOCALIZER, find_method
from wsol.localizer.exported_program import Program, is_program, load_program
from wsol.localizer.hub import local_folder
from wsol.localizer.localization import OBJECT, Localization
from wsol.localizer.predictors import BoxPredictor, box_predictor
from wsol.localizer.principal_component import component_finder
from wsol.localizer.saved_models import chosen_thresholds, load_classifier, threshold_of
from wsol.localizer.unboxed_threshold import run_unboxed_threshold

Label = int | str


@dataclass(frozen=True)
class _Input:
    """An image at the network's size, float32 (3,S,S) in [0,1], and the class to look for."""

    image: torch.Tensor
    label: int | None
    size: tuple[int, int]
    source: ImageLike


class Localizer:
    """Uses a classifier, an exported model or a detector to find boxes in images.

    It has no state that changes between calls, so several threads may share it.

    Args:
        model: A classifier of `robust_training.create_model`, `load_model` or `wrap_model` (for any
            network that returns logits), a detector of `wsol.detectors.load_detector`, an exported
            model of `load_program`, or your own `BoxPredictor`. It is put in evaluation mode.
        method: The heatmap method of a classifier: an object, its name, or the class path of a
            `HeatmapMethod`, for example "my_module.MyHeatmap". If None, "refined gradient"
            (`LOCALIZER`). Must be None for exported models and detectors.
        threshold: The box encloses pixels above this fraction of the heatmap's maximum. If None,
            ART's published 0.2, or the threshold of the exported model. Must be None for detectors.
        device: Device to which the model is moved. If None, it is not moved.

    Raises:
        ValueError: the model has an unknown type, or the method does not work with this model.
    """

    def __init__(
        self,
        model: Classifier | Network | Program | BoxPredictor,
        method: HeatmapMethod | str | None = None,
        threshold: float | None = None,
        *,
        device: str | torch.device | None = None,
    ) -> None:
        self._predictor = box_predictor(model, method, threshold)
        if device is not None:
            self._predictor.model.to(device)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike,
        method: HeatmapMethod | str | None = None,
        threshold: float | None = None,
        *,
        device: str | torch.device | None = None,
    ) -> "Localizer":
        """Loads a localizer; `Localizer` describes the other arguments.

        Args:
            folder: Folder of a run, of a model (timm's, too) or of a detector, an exported .onnx or
                .pt2, or a model on the hub: `hf-hub:user/name`, or `user/name` if there is no such
                path.
            threshold: If None, the threshold that the run's evaluation chose for this method on
                validation boxes. Without boxes, the policy "unboxed" chooses it from the run's
                images, and the run's best/thresholds.json keeps it. If these images are not there,
                the default of `Localizer`.

        Raises:
            ValueError: there is no model in the folder, or the method does not work with it.
        """
        if is_program(folder):
            return cls(load_program(folder), method, threshold, device=device)
        folder = local_folder(folder)
        if is_detector(folder):
            return cls(load_detector(folder), method, threshold, device=device)
        wanted = LOCALIZER if method is None else method
        name = wanted if isinstance(wanted, str) else None
        made = wanted if name is None else find_method(name)
        model = load_classifier(folder).eval()
        if device is not None:
            model.to(device)
        if made.fits(model):
            made = made.with_component(component_finder(folder, model))
        if threshold is None:
            threshold = threshold_of(wanted, chosen_thresholds(folder))
        if threshold is None:
            threshold = run_unboxed_threshold(folder, model, made, name)
        return cls(model, made, threshold)

    @property
    def model(self) -> Classifier | Network | Program:
        """The network."""
        return self._predictor.model

    @property
    def method(self) -> HeatmapMethod | None:
        """The heatmap method. None for exported models and detectors."""
        return self._predictor.method

    @property
    def threshold(self) -> float | None:
        """The box encloses pixels above this fraction of the maximum. None for detectors."""
        return self._predictor.threshold

    @property
    def image_size(self) -> int:
        """Side of the network's square input, in pixels."""
        return self._predictor.image_size

    @property
    def class_names(self) -> Sequence[str]:
        """Class names in label order: the model's, or ImageNet's for timm's ImageNet weights, or
        else numbers as text."""
        return self._predictor.class_names

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        label: Label | Iterable[Label | None] | None = None,
        boxes: int = 1,
        batch_size: int = 32,
        on_unreadable: Callable[[ValueError], None] | None = None,
    ) -> Iterator[Localization]:
        """Finds boxes in images, in order. Batches are computed lazily.

        Args:
            images: One or many: paths, patterns (`photos/*.jpg`), folders (all images in them,
                sorted), http and https addresses, video files (their frames), bytes and open files
                of encoded images, PIL images, arrays (H,W), (H,W,3), (H,W,4) and tensors (3,H,W),
                uint8 or float in [0,1], RGB. Files and PIL images are rotated by their EXIF tag.
                Boxes are in pixels of the rotated image.
            label: The class to look for, by number or name: one for all images, or one for each. If
                None, the predicted class.
            boxes: Maximum number of boxes per image: those of the largest contours, or the
                detector's most probable ones.
            batch_size: Number of images in a batch.
            on_unreadable: Called with the error if an image cannot be read. The image is then
                skipped. If None, the error is raised.

        Raises:
            ValueError: an image has an unknown type, the model does not have a class, or the
                numbers of labels and images differ.
        """
        if boxes < 1 or batch_size < 1:
            raise ValueError(f"boxes and batch_size must be at least 1, not {boxes}, {batch_size}")
        one = label is None or isinstance(label, Label | np.integer)
        wanted = repeat(self._index(label)) if one else map(self._index, label)
        inputs = self._inputs(images, wanted, on_unreadable)
        batches = iter(lambda: list(islice(inputs, batch_size)), [])
        return (found for batch in batches for found in self._localize(batch, boxes))

    def _localize(self, batch: list[_Input], boxes: int) -> Iterator[Localization]:
        images = torch.stack([each.image for each in batch])
        predictions = self._predictor.predict(images, [each.label for each in batch], boxes)
        for given, found in zip(batch, predictions, strict=True):
            pixels = rescale(found.boxes, found.frame, given.size).tolist()
            box, *others = map(tuple, pixels or [NO_BOX])
            score, *other_scores = found.scores or [0.0]
            yield Localization(
                box=box,
                label=found.label,
                class_name=OBJECT if found.label is None else self.class_names[found.label],
                score=score,
                heatmap=found.heatmap,
                size=given.size,
                others=tuple(others),
                other_scores=tuple(other_scores),
                source=given.source,
            )

    def _inputs(
        self,
        images: ImageLike | Iterable[ImageLike],
        wanted: Iterator[int | None],
        on_unreadable: Callable[[ValueError], None] | None,
    ) -> Iterator[_Input]:
        transform = eval_transform(self.image_size)
        for image in each_image(images):
            label = next(wanted, -1)
            if label == -1:
                raise ValueError("there are fewer labels than images")
            try:
                pixels = read_pixels(image)
            except ValueError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(error)
                continue
            tensor, _ = network_input(pixels, transform)
            yield _Input(tensor, label, pixels.shape[1::-1], image)
        if not isinstance(wanted, repeat) and next(wanted, -1) != -1:
            raise ValueError("there are more labels than images")

    def _index(self, label: Label | None) -> int | None:
        """Returns the number of a class that is given by number or name."""
        if label is None:
            return None
        if not self._predictor.predicts_classes:
            raise ValueError(f"this detector predicts no classes, so it cannot look for {label!r}")
        names = list(self.class_names)
        found = same_names(label, names) if isinstance(label, str) else []
        if len(found) > 1:
            raise ValueError(f"{len(found)} classes are called {label!r}: give one of {found}")
        if found:
            return found[0]
        if isinstance(label, str) and not label.isdecimal():
            raise ValueError(f"the model has no class {label!r}{suggestion(label, names)}")
        if not 0 <= int(label) < len(names):
            raise ValueError(f"class {label} is not in 0 to {len(names) - 1}")
        return int(label)
