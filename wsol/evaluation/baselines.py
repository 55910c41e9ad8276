"""The gain of a heatmap over its baseline, image by image."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsol.evaluation.metrics import mean_interval
from wsol.evaluation.score_table import HIT
from wsol.evaluation.scores import Headline
from wsol.heatmaps.methods import baseline_of


def above_baselines(chosen: Sequence[Headline], *, seed: int = 0) -> dict[str, Any]:
    """GT-known of each heatmap and of its baseline, and the difference, fractions in [0,1].

    The result goes into metrics.json, whose keys keep the older word "floor" for programs that read
    it: {"floors": {heatmap: scores}}, empty without any.

    The interval is of paired differences: each bootstrap resample draws the same images for both.

    Args:
        chosen: The headline boxes of each kind of heatmap, on the same images, by their names in
            `methods`. A heatmap that is its own baseline is left out.
    """
    hits = {each.row.heatmap: each.iou >= HIT for each in chosen}
    found = {}
    for each in chosen:
        name = each.row.heatmap
        baseline = baseline_of(name)
        if baseline == name:
            continue
        gain = hits[name].astype(np.float64) - hits[baseline]
        found[name] = {
            "floor": baseline,
            "policy": each.row.policy,
            "gt_known_loc": float(hits[name].mean()),
            "floor_gt_known_loc": float(hits[baseline].mean()),
            "difference": float(gain.mean()),
            "interval": mean_interval(gain, seed=seed).tolist(),
        }
    return {"floors": found} if found else {}
