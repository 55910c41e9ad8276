"""One pass of a model over a split: what it predicts, and where its heatmaps put the box."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from robust_training.models.classifier import Classifier
from wsol.annotations.ground_truth import GroundTruth, MaskFiles
from wsol.annotations.predictions import Predictions
from wsol.evaluation.box_table import BoxTable, box_row, stack_rows
from wsol.evaluation.pixel_metrics import bin_edges, read_mask
from wsol.evaluation.split_selection import PreparedSplit
from wsol.heatmaps.heatmap import HeatmapMethod


@dataclass(frozen=True)
class SplitOutput:
    """A split, what was predicted for its images, and the boxes of each kind of heatmap."""

    truth: GroundTruth
    predictions: Predictions | None
    tables: Mapping[str, BoxTable]

    def correct(self, k: int) -> np.ndarray | None:
        """(N,): whether the true class is among the first k predicted; None where not known."""
        return None if self.predictions is None else self.predictions.correct(self.truth.labels, k)

    def boxes_alone(self) -> "SplitOutput":
        """The same without what MaxBoxAccV2 and pixel scores need, which is most of the memory."""
        tables = {name: replace(m, any_iou=None, pixels=None) for name, m in self.tables.items()}
        return replace(self, tables=tables)


def run_model(
    model: Classifier,
    split: PreparedSplit,
    methods: Mapping[str, HeatmapMethod],
    *,
    thresholds: np.ndarray | None = None,
    every_box: bool = True,
    description: str = "measuring",
) -> SplitOutput:
    """Predict and localize every image of a split.

    Args:
        thresholds: Bins of the pixel scores, for a split whose images all have a mask; None leaves
            these scores out.
        every_box: Also what MaxBoxAccV2 needs, of images that all have a box.

    Raises:
        ValueError: a heatmap is not one; names the image.
    """
    dataset, truth = split.dataset, split.truth
    device = next(model.parameters()).device
    masks = [example.mask for example in dataset.examples]
    edges = None if thresholds is None or None in masks else bin_edges(thresholds)
    order: list[torch.Tensor] = []
    confidence: list[torch.Tensor] = []
    rows: dict[str, list[BoxTable]] = {name: [] for name in methods}
    for batch in tqdm(split.loader, desc=description, unit="batch", leave=False):
        image, label = batch["image"].to(device), batch["label"].to(device)
        with torch.no_grad():
            probability = model(image).softmax(dim=1)
        order.append(probability.argsort(dim=1, descending=True, stable=True)[:, :5].cpu())
        confidence.append(probability.amax(dim=1).cpu())
        for name, method in methods.items():
            heatmaps = method(model, image, label)
            for heatmap, index in zip(heatmaps, batch["index"].tolist(), strict=True):
                size = tuple(truth.sizes[index].tolist())
                mask = None
                if edges is not None:
                    mask = read_mask(MaskFiles((masks[index],)), heatmap.shape, size)
                example = dataset.examples[index]
                truths = truth.boxes[index, : truth.counts[index]] if every_box else None
                try:
                    rows[name].append(
                        box_row(heatmap, truths=truths, size=size, mask=mask, edges=edges)
                    )
                except ValueError as error:
                    raise ValueError(f"{name} of {example.name}: {error}") from error
    predictions = Predictions(
        torch.cat(order).numpy(), torch.cat(confidence).double().numpy(), len(dataset.classes)
    )
    maps = {name: stack_rows(found) for name, found in rows.items()}
    return SplitOutput(truth, predictions, maps)
