"""A detector in the place of a localizer."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from wsol.boxes.geometry import NO_BOX, rescale
from wsol.detectors.base import Network
from wsol.detectors.saving import load_detector
from wsol.localizer.prediction import OBJECT, Finder, Label, Localization, Ready


@dataclass(frozen=True)
class DetectorLocalizer(Finder):
    """A detector's boxes, as `Localizer` gives those around heatmaps.

    A class that was asked for has its likeliest boxes; where it has none, as for the evaluator, the
    likeliest of all with score 0. A `Regressor` finds one box and knows no classes.

    Attributes:
        network: Of a `Detector`'s `build` or of `load_detector`; it is put in evaluation mode.
    """

    network: Network

    def __post_init__(self) -> None:
        self.network.eval()

    @classmethod
    def load(
        cls, folder: str | os.PathLike, *, device: str | torch.device = "cpu"
    ) -> "DetectorLocalizer":
        """ValueError where the folder is not a detector's."""
        return cls(load_detector(folder).to(device))

    @property
    def image_size(self) -> int:
        return self.network.backbone.image_size

    @property
    def class_names(self) -> Sequence[str]:
        return self.network.class_names if self.network.predicts_classes else [OBJECT]

    def _index(self, label: Label | None) -> int | None:
        if label is not None and not self.network.predicts_classes:
            raise ValueError(f"this detector knows no classes, so it cannot look for {label!r}")
        return super()._index(label)

    def _find(self, batch: list[Ready], boxes: int) -> Iterator[Localization]:
        image = torch.stack([ready.image for ready in batch]).to(self.network.backbone.device)
        with torch.no_grad():
            found = [each.cpu() for each in self.network.detect(image)]
        names = self.class_names
        for ready, each in zip(batch, found, strict=True):
            label = ready.label
            if label is None and each.labels is not None and len(each.labels):
                label = int(each.labels[0])
            shares, scores = (each.boxes, each.scores) if label is None else each.of_class(label)
            pixels = rescale(shares[:boxes].double().numpy(), (1, 1), ready.size).tolist()
            first, *others = map(tuple, pixels or [NO_BOX])
            score, *other_scores = scores[:boxes].tolist() or [0.0]
            yield Localization(
                box=first,
                label=label,
                class_name=OBJECT if label is None else names[label],
                score=score,
                heatmap=None,
                size=ready.size,
                others=tuple(others),
                other_scores=tuple(other_scores),
                path=ready.path,
            )
