"""One pass of a model over a split: what it predicts, and where its heatmaps put the box."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from robust_training.model import Classifier
from wsol.heatmap import HeatmapMethod
from wsol.map_boxes import MapBoxes, read_off, stack
from wsol.pixels import HALF, bin_edges, read_mask
from wsol.predictions import Predictions
from wsol.truth import MaskFiles, Truth, cub_truth


@dataclass(frozen=True)
class Measured:
    """A split, what was predicted for its images, and the boxes of each kind of heatmap."""

    truth: Truth
    predictions: Predictions | None
    maps: Mapping[str, MapBoxes]

    def correct(self, k: int) -> np.ndarray | None:
        """(N,): whether the true class is among the first k predicted; None where not known."""
        return None if self.predictions is None else self.predictions.correct(self.truth.labels, k)


def measure(
    model: Classifier,
    loader: DataLoader,
    methods: Mapping[str, HeatmapMethod],
    *,
    thresholds: np.ndarray,
    every_box: bool = True,
    mask_cut: int = HALF,
    description: str = "measuring",
) -> Measured:
    """Predict and localize every image of `loader`, whose data set is a CUB200.

    Args:
        thresholds: Bins of the pixel scores, where every image has a mask.
        every_box: Also what MaxBoxAccV2 needs.
        mask_cut: See `pixels.read_mask`.
    """
    device = next(model.parameters()).device
    dataset = loader.dataset
    masks = [example.mask for example in dataset.examples]
    edges = bin_edges(thresholds) if None not in masks else None
    order: list[torch.Tensor] = []
    confidence: list[torch.Tensor] = []
    sizes: list[list[int]] = []
    rows: dict[str, list[MapBoxes]] = {name: [] for name in methods}
    for batch in tqdm(loader, desc=description, unit="batch", leave=False):
        image, label = batch["image"].to(device), batch["label"].to(device)
        with torch.no_grad():
            probability = model(image).softmax(dim=1)
        order.append(probability.argsort(dim=1, descending=True, stable=True)[:, :5].cpu())
        confidence.append(probability.amax(dim=1).cpu())
        sizes += batch["size"].tolist()
        for name, method in methods.items():
            heatmaps = method(model, image, label)
            for heatmap, index, size in zip(
                heatmaps, batch["index"].tolist(), batch["size"].tolist(), strict=True
            ):
                mask = None
                if edges is not None:
                    mask = read_mask(MaskFiles((masks[index],)), heatmap.shape, mask_cut)
                truths = np.array([dataset.examples[index].box]) if every_box else None
                rows[name].append(
                    read_off(heatmap, truths=truths, size=size, mask=mask, edges=edges)
                )
    predictions = Predictions(
        torch.cat(order).numpy(), torch.cat(confidence).double().numpy(), len(dataset.classes)
    )
    maps = {name: stack(found) for name, found in rows.items()}
    return Measured(cub_truth(dataset, sizes), predictions, maps)
