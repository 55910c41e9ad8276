"""One pass of a model over a split: predicted classes, and a box table for each heatmap method."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, zip_longest

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from robust_training.devices import map_in_threads
from robust_training.models.classifier import Classifier
from robust_training.progress import Progress
from robust_training.training.processes import gather, rank_and_world
from wsol.annotations.ground_truth import GroundTruth
from wsol.annotations.predictions import Predictions
from wsol.evaluation.box_table import BoxTable, split_row, stack_rows
from wsol.evaluation.pixel_metrics import bin_edges
from wsol.evaluation.split_selection import PreparedSplit
from wsol.heatmaps.heatmap import HeatmapMethod, each_heatmap

# The five most probable classes (N,5), their probabilities (N,5), and rows of each method.
_BatchOutput = tuple[np.ndarray, np.ndarray, dict[str, list[BoxTable]]]


@dataclass(frozen=True)
class SplitOutput:
    """The outputs of a model on one split, for scoring.

    Attributes:
        tables: Name of the heatmap method -> boxes of the true class's heatmaps.
    """

    truth: GroundTruth
    predictions: Predictions | None
    tables: Mapping[str, BoxTable]

    def correct(self, k: int) -> np.ndarray | None:
        """bool (N,): whether the true class is among the first k; or None without predictions."""
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
    mirrored: bool = False,
    description: str = "scoring",
    fabric: Fabric | None = None,
) -> SplitOutput | None:
    """Predicts and localizes every image of a split.

    Args:
        thresholds: Bins of the pixel metrics. If None, or if no image has a mask, these metrics are
            not computed.
        every_box: Whether to keep the data for MaxBoxAccV2. All images must then have a box.
        mirrored: Whether classes are predicted by the mean probability of an image and its mirror
            image.
        fabric: Launched processes, which divide the batches among them. If None, this process runs
            all of them.

    Returns:
        The output for the whole split; None in all processes but the first.

    Raises:
        ValueError: a heatmap is not valid. The message names the image.
    """
    edges = None if thresholds is None else bin_edges(thresholds)
    score = partial(_run_batch, model, split, methods, edges, every_box, mirrored)
    rank, world = rank_and_world(fabric)

    def run_part() -> list[_BatchOutput]:
        loader = split.part(rank, world)
        bar = Progress(loader, desc=description, unit="batch", leave=False, disable=rank > 0)
        return [score(batch) for batch in bar]

    parts = gather(fabric, run_part)
    if parts is None:
        return None
    batches = [batch for same_turn in zip_longest(*parts) for batch in same_turn if batch]
    order, probabilities, rows = zip(*batches, strict=True)
    predictions = Predictions(
        np.concatenate(order), np.concatenate(probabilities), len(split.dataset.classes)
    )
    tables = {name: stack_rows(chain(*(each[name] for each in rows))) for name in methods}
    return SplitOutput(split.truth, predictions, tables)


def most_probable(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The five most probable classes of logits (N,C): their indices (N,5), and their probabilities,
    float64 (N,5). There are fewer than five classes if C is smaller."""
    probability = logits.detach().softmax(dim=1)
    order = probability.argsort(dim=1, descending=True, stable=True)[:, :5]
    return order.cpu().numpy(), probability.gather(1, order).cpu().double().numpy()


def _run_batch(
    model: Classifier,
    split: PreparedSplit,
    methods: Mapping[str, HeatmapMethod],
    edges: np.ndarray | None,
    every_box: bool,
    mirrored: bool,
    batch: dict[str, Tensor],
) -> _BatchOutput:
    image, label = batch["image"].to(model.device), batch["label"].to(model.device)

    def row(name: str, heatmap: np.ndarray, index: int) -> BoxTable:
        try:
            return split_row(heatmap, split.truth, index, edges=edges, every_box=every_box)
        except ValueError as error:
            raise ValueError(f"{name} of {split.dataset.examples[index].name}: {error}") from error

    heatmaps = each_heatmap(methods.values(), model, image, label)
    rows = {
        name: map_in_threads(partial(row, name), maps, batch["index"].tolist())
        for name, maps in zip(methods, heatmaps, strict=True)
    }
    with torch.no_grad():
        logits = model(image)
        if mirrored:  # the sum of both probabilities, which softmax halves
            both = (logits, model(image.flip(3)))
            logits = torch.logaddexp(*(each.log_softmax(dim=1) for each in both))
    return *most_probable(logits), rows
