"""From image files to boxes in their own pixels."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from robust_training.models.classifier import Classifier, load_model
from wsol.boxes.geometry import rescale
from wsol.boxes.heatmap_boxes import outer_boxes
from wsol.data.text_files import read_json
from wsol.detectors.saving import is_detector
from wsol.heatmaps.heatmap import Gradient, HeatmapMethod
from wsol.heatmaps.methods import find_method
from wsol.localizer.detector_localizer import DetectorLocalizer
from wsol.localizer.exported_program import Program, is_program, open_program
from wsol.localizer.hub import local_folder
from wsol.localizer.prediction import Finder, Localization, Ready

ART_THRESHOLD = 0.2  # of the published evaluation, where no validation images chose a better one
_GRADIENT = Gradient()


@dataclass(frozen=True)
class Localizer(Finder):
    """A classifier used as a localizer: the box around a class's heatmap.

    Attributes:
        model: Of `robust_training.create_model`, `load_model`, or `wrap_model` for any timm
            classifier; it is put in evaluation mode.
        method: How a heatmap is made.
        threshold: Share of the heatmap's maximum that the box's region exceeds.
    """

    model: Classifier
    method: HeatmapMethod = _GRADIENT
    threshold: float = ART_THRESHOLD

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0,1], not {self.threshold}")
        if not isinstance(self.model, Classifier | Program):
            raise ValueError(
                f"{type(self.model).__name__} is no Classifier: robust_training.wrap_model makes "
                "one of any timm classifier"
            )
        if self.model.num_classes < 1:
            raise ValueError("the model has no classes to localize: it is a backbone without head")
        if not self.method.fits(self.model):
            architecture = self.model.backbone.pretrained_cfg["architecture"]
            raise ValueError(f"{self.method} is not possible with {architecture}")
        self.model.eval()

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike,
        *,
        method: HeatmapMethod | str | None = None,
        threshold: float | None = None,
        device: str | torch.device = "cpu",
    ) -> "Localizer | DetectorLocalizer":
        """From a run's folder, a model folder (of timm, too), an exported .onnx or .pt2, a
        detector's folder (`DetectorLocalizer`), or a hub's model.

        Args:
            folder: A path, `hf-hub:user/name`, or `user/name` where there is no such path.
            method: How a heatmap is made, or its name; None is `Gradient()`, and
                for an exported localizer its own. A detector makes none.
            threshold: None takes the one that evaluation chose on validation images for this method
                (the run's metrics.json), else ART's published 0.2.

        Raises:
            ValueError: there is no model in the folder, or the method is not possible with it.
        """
        if is_program(folder):
            return cls(*open_program(folder, method, threshold, device))
        folder = local_folder(folder)
        if is_detector(folder):
            if method is not None or threshold is not None:
                raise ValueError(f"{folder} is a detector's: leave out method and threshold")
            return DetectorLocalizer.load(folder, device=device)
        model = load_classifier(folder).to(device)
        method = find_method(method) if isinstance(method, str) else method or _GRADIENT
        if threshold is None:
            place = Path(folder).resolve()
            run = place.parent if place.name == "best" else place
            threshold = chosen_threshold(run / "metrics.json", method)
        return cls(model, method, threshold)

    @property
    def image_size(self) -> int:
        return self.model.image_size

    @property
    def class_names(self) -> Sequence[str]:
        return self.model.class_names or [*map(str, range(self.model.num_classes))]

    def _find(self, batch: list[Ready], boxes: int) -> Iterator[Localization]:
        device = self.model.device
        image = torch.stack([ready.image for ready in batch]).to(device)
        with torch.no_grad():
            probability = self.model(image).softmax(dim=1)
        if not probability.isfinite().all():
            raise ValueError("the model's probabilities are not finite: its weights are damaged")
        predicted = probability.argmax(dim=1).tolist()
        pairs = zip(batch, predicted, strict=True)
        labels = [p if ready.label is None else ready.label for ready, p in pairs]
        label = torch.tensor(labels, device=device)
        scores = probability.gather(1, label[:, None])[:, 0].tolist()
        heatmaps = self.method(self.model, image, label)
        names = self.class_names
        for ready, heatmap, index, score in zip(batch, heatmaps, labels, scores, strict=True):
            found = outer_boxes(heatmap, self.threshold)[:boxes]
            first, *others = map(tuple, rescale(found, heatmap.shape[::-1], ready.size).tolist())
            yield Localization(
                box=first,
                label=index,
                class_name=names[index],
                score=score,
                heatmap=heatmap,
                size=ready.size,
                others=tuple(others),
                path=ready.path,
            )


def model_folder(folder: str | os.PathLike) -> Path:
    """A run's best model, or the folder itself."""
    best = Path(folder) / "best"
    return best if best.is_dir() else Path(folder)


def load_classifier(run: str | os.PathLike) -> Classifier:
    """A run's best model, or that of a model folder.

    Raises:
        ValueError: there is none; says what is there instead, a detector, a program, or runs in
            folders below.
    """
    if is_program(run):
        raise ValueError(f"{run} is an exported localizer: name the run that it was made from")
    if is_detector(run):
        raise ValueError(
            f"{run} is a detector's: its scores are in the table of train_detector.py "
            "(detectors.md), and boxes that localize.py finds with it are scored by `evaluate.py "
            "boxes`"
        )
    folder = model_folder(run)
    inside = _models_below(folder) if not (folder / "config.json").is_file() else []
    if inside:
        names = ", ".join([*inside[:5], *(["..."] if len(inside) > 5 else [])])
        raise ValueError(f"{run} is not a model folder, but holds some: name one of {names}")
    return load_model(folder)


def _models_below(folder: Path) -> list[str]:
    """Runs, model folders and detectors, up to two folders further down."""
    files = (
        file
        for below in ("*", "*/best", "*/*", "*/*/best")
        for file in folder.glob(f"{below}/config.json")
        if file.with_name("model.safetensors").is_file()
    )
    return sorted({str(f.parents[1] if f.parent.name == "best" else f.parent) for f in files})


def chosen_threshold(metrics: Path, method: HeatmapMethod = _GRADIENT) -> float:
    """Of a method, by validation images, from a run's metrics.json; else ART's published one.

    Raises:
        ValueError: the file is not a run's.
    """
    if not metrics.is_file():
        return ART_THRESHOLD
    content = read_json(metrics)
    try:
        chosen = [
            float(row["threshold"])
            for row in content["localization"]
            if row["policy"] == "val" and _is_called(row["heatmap"], method)
        ]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{metrics} is not the metrics file of a run: {error}") from error
    if chosen and not 0 <= chosen[0] <= 1:
        raise ValueError(f"{metrics}: the threshold {chosen[0]} does not lie in [0,1]")
    return chosen[0] if chosen else ART_THRESHOLD


def _is_called(name: str, method: HeatmapMethod) -> bool:
    try:
        return find_method(name) == method
    except ValueError:  # another program's map
        return False
