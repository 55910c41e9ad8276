"""Compares heatmaps with their baselines, image by image."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsol.evaluation.metrics import HIT, mean_interval
from wsol.evaluation.results import Headline
from wsol.heatmaps.methods import baseline_of


def above_baselines(headlines: Sequence[Headline], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Compares GT-known of each heatmap with GT-known of its baseline. All numbers are fractions.

    The interval is for paired differences: each bootstrap resample has the same images for both.

    Args:
        headlines: Boxes on the same images, with the names of `wsol.heatmaps.methods`. The
            baselines of all heatmaps must be among them. Baselines have no entry in the result.
        seed: Seed of the bootstrap.

    Returns:
        Heatmap -> its baseline, policy, both scores, their difference and its 95 % interval.
    """
    hits = {each.row.heatmap: each.iou >= HIT for each in headlines}
    compared = {}
    for headline in headlines:
        name = headline.row.heatmap
        baseline = baseline_of(name)
        if baseline == name:
            continue
        difference = hits[name].astype(np.float64) - hits[baseline]
        compared[name] = {
            "baseline": baseline,
            "policy": headline.row.policy,
            "gt_known_loc": float(hits[name].mean()),
            "baseline_gt_known_loc": float(hits[baseline].mean()),
            "difference": float(difference.mean()),
            "interval": mean_interval(difference, seed=seed).tolist(),
        }
    return compared
