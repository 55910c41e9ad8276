"""One pass of a model over a split: predicted classes, and a box table for each heatmap method."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from robust_training.models.classifier import Classifier
from wsol.annotations.ground_truth import GroundTruth
from wsol.annotations.predictions import Predictions
from wsol.data.threads import map_in_threads
from wsol.evaluation.box_table import BoxTable, split_row, stack_rows
from wsol.evaluation.pixel_metrics import bin_edges
from wsol.evaluation.split_selection import PreparedSplit
from wsol.heatmaps.heatmap import HeatmapMethod, each_heatmap


@dataclass(frozen=True)
class SplitOutput:
    """All that is scored on one split.

    Attributes:
        truth: Ground truth of the images.
        predictions: Predicted classes, or None.
        tables: Name of the heatmap method -> boxes of the true class's heatmaps.
    """

    truth: GroundTruth
    predictions: Predictions | None
    tables: Mapping[str, BoxTable]

    def correct(self, k: int) -> np.ndarray | None:
        """bool (N,): whether the true class is among the first k. None without predictions."""
        return None if self.predictions is None else self.predictions.correct(self.truth.labels, k)

    def largest_boxes_only(self) -> "SplitOutput":
        """Drops the data for MaxBoxAccV2 and pixel metrics, which take most of the memory."""
        tables = {name: replace(m, any_iou=None, pixels=None) for name, m in self.tables.items()}
        return replace(self, tables=tables)


def run_model(
    model: Classifier,
    split: PreparedSplit,
    methods: Mapping[str, HeatmapMethod],
    *,
    thresholds: np.ndarray | None = None,
    every_box: bool = True,
    description: str = "scoring",
) -> SplitOutput:
    """Predicts and localizes every image of a split.

    Args:
        thresholds: Bins of the pixel metrics, for a split whose images all have a mask. If None,
            these metrics are not computed.
        every_box: Whether to keep the data for MaxBoxAccV2. All images must then have a box.
        description: Title of the progress bar.

    Raises:
        ValueError: a heatmap is not valid. The message names the image.
    """
    dataset, truth = split.dataset, split.truth
    device = next(model.parameters()).device
    edges = None if thresholds is None else bin_edges(thresholds)

    def row(name: str, heatmap: np.ndarray, index: int) -> BoxTable:
        try:
            return split_row(heatmap, truth, index, edges=edges, every_box=every_box)
        except ValueError as error:
            raise ValueError(f"{name} of {dataset.examples[index].name}: {error}") from error

    order: list[torch.Tensor] = []
    confidence: list[torch.Tensor] = []
    rows: dict[str, list[BoxTable]] = {name: [] for name in methods}
    for batch in tqdm(split.loader, desc=description, unit="batch", leave=False):
        image, label = batch["image"].to(device), batch["label"].to(device)
        with torch.no_grad():
            probability = model(image).softmax(dim=1)
        order.append(probability.argsort(dim=1, descending=True, stable=True)[:, :5].cpu())
        confidence.append(probability.amax(dim=1).cpu())
        heatmaps = each_heatmap(methods.values(), model, image, label)
        for name, maps in zip(methods, heatmaps, strict=True):
            rows[name] += map_in_threads(partial(row, name), maps, batch["index"].tolist())
    predictions = Predictions(
        torch.cat(order).numpy(), torch.cat(confidence).double().numpy(), len(dataset.classes)
    )
    tables = {name: stack_rows(found) for name, found in rows.items()}
    return SplitOutput(truth, predictions, tables)
