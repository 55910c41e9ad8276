"""Scores of a model's heatmaps on a data set, with the threshold policy beside every number."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from robust_training.model import Classifier
from wsol.boxes import inclusive
from wsol.heatmap import HeatmapMethod
from wsol.metrics import (
    best_threshold,
    box_accuracy,
    largest_box_ious,
    localization_scores,
    max_box_acc,
    max_box_acc_v2,
    published_box_ious,
)

THRESHOLDS = np.arange(0, 1, 0.01)
PROTOCOL = (
    "Heatmap of the true class on the whole frame resized; box of the largest contour; IoU of "
    "half-open boxes; a hit is IoU >= 0.5. Policy val: the threshold with the most hits on "
    "validation images (held out of the training split), then fixed. Policy oracle: the best "
    "threshold on the scored images themselves. MaxBoxAcc and MaxBoxAccV2 have oracle thresholds "
    "by definition and the published evaluator's pixel conventions, at thresholds 0, .01, ..., .99."
)


@dataclass(frozen=True)
class Measured:
    """What one pass over a split yields; rows are images, in the split's order.

    Attributes:
        thresholds: (T,) of the heatmaps.
        ranks: (N,) position of the true class in the prediction, 0 is first.
        ious: method -> (N,T) IoU of the largest contour's box.
        published: method -> two (N,T) tables of `metrics.published_box_ious`; empty if not asked.
    """

    thresholds: np.ndarray
    ranks: np.ndarray
    ious: Mapping[str, np.ndarray]
    published: Mapping[str, tuple[np.ndarray, np.ndarray]]


def measure(
    model: Classifier,
    loader: DataLoader,
    methods: Mapping[str, HeatmapMethod],
    *,
    thresholds: np.ndarray = THRESHOLDS,
    published: bool = True,
    description: str = "measuring",
) -> Measured:
    """Predict and localize every image of `loader`, whose data set is a CUB200."""
    device = next(model.parameters()).device
    examples = loader.dataset.examples
    ranks: list[int] = []
    ious: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    tables: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in methods}
    for batch in tqdm(loader, desc=description, unit="batch", leave=False):
        image, label = batch["image"].to(device), batch["label"].to(device)
        with torch.no_grad():
            logits = model(image)
        ranks += _ranks(logits, label).tolist()
        items = list(zip(batch["box"].numpy(), batch["size"].tolist(), batch["index"], strict=True))
        for name, method in methods.items():
            for heatmap, (box, size, index) in zip(method(model, image, label), items, strict=True):
                ious[name].append(largest_box_ious(heatmap, thresholds, [box]))
                if published:
                    truth = inclusive(examples[int(index)].box, size)
                    tables[name].append(published_box_ious(heatmap, THRESHOLDS, truth, size))
    return Measured(
        thresholds,
        np.array(ranks),
        {name: np.array(rows) for name, rows in ious.items()},
        {
            name: tuple(map(np.array, zip(*rows, strict=True)))
            for name, rows in tables.items()
            if published
        },
    )


def _ranks(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    order = logits.argsort(dim=1, descending=True, stable=True)
    return (order == label[:, None]).int().argmax(dim=1)


def score(
    test: Measured, validation: Measured | None, *, fixed: float | None = None
) -> dict[str, Any]:
    """metrics.json's content: accuracy, and for each method its scores under each policy.

    Args:
        test: The scored split.
        validation: Where the "val" policy picks its threshold; without it there is none.
        fixed: One of the measured thresholds, for the policy "fixed:<t>".
    """
    correct, correct5 = test.ranks == 0, test.ranks < 5
    rows = []
    for name, ious in test.ious.items():
        policies = {"oracle": best_threshold(ious)}
        if fixed is not None:
            (index,) = np.flatnonzero(test.thresholds == fixed)[:1]
            policies = {f"fixed:{fixed:g}": int(index)} | policies
        if validation is not None:
            policies = {"val": best_threshold(validation.ious[name])} | policies
        for policy, index in policies.items():
            threshold = float(test.thresholds[index])
            row = {"heatmap": name, "policy": policy, "threshold": threshold}
            rows.append(row | localization_scores(ious[:, index], correct, correct5))
    return {
        "images": len(test.ranks),
        "top1_accuracy": float(correct.mean()),
        "top5_accuracy": float(correct5.mean()),
        "localization": rows,
        "curves": {
            name: {
                "threshold": test.thresholds.tolist(),
                "gt_known_loc": box_accuracy(ious).tolist(),
            }
            for name, ious in test.ious.items()
        },
        "oracle": {
            name: {"max_box_acc": max_box_acc(largest), "max_box_acc_v2": max_box_acc_v2(every)}
            for name, (largest, every) in test.published.items()
        },
        "protocol": PROTOCOL,
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Run name -> `score`'s result, as text in Markdown: percentages, policy in every row."""
    lines = [
        "| model | heatmap | threshold policy | GT-known | Top-1 Loc | Top-5 Loc | accuracy |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for run, result in results.items():
        for row in result["localization"]:
            shares = [row["gt_known_loc"], row["top1_loc"], row["top5_loc"]]
            numbers = " | ".join(f"{100 * s:.1f}" for s in [*shares, result["top1_accuracy"]])
            policy = f"{row['policy']} ({row['threshold']:.2f})"
            lines.append(f"| {run} | {row['heatmap']} | {policy} | {numbers} |")
    lines += [
        "",
        "| model | heatmap | MaxBoxAcc (oracle) | MaxBoxAccV2 (oracle) |",
        "|---|---|---:|---:|",
    ]
    for run, result in results.items():
        for name, values in result["oracle"].items():
            numbers = f"{100 * values['max_box_acc']:.1f} | {100 * values['max_box_acc_v2']:.1f}"
            lines.append(f"| {run} | {name} | {numbers} |")
    return "\n".join(lines)
