"""What a heatmap brings beyond its floor, image by image."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsol.evaluation.metrics import mean_interval
from wsol.evaluation.score_table import HIT
from wsol.evaluation.scores import Headline
from wsol.heatmaps.methods import baseline_of


def above_baselines(chosen: Sequence[Headline], *, seed: int = 0) -> dict[str, Any]:
    """{"floors": heatmap -> its GT-known, its floor's, and the difference, shares in [0,1]}.

    The interval is of paired differences: each bootstrap resample draws the same images for both.

    Args:
        chosen: The headline boxes of each kind of heatmap, on the same images, by their names in
            `methods`. What is its own floor is left out.
    """
    hits = {each.row.heatmap: each.iou >= HIT for each in chosen}
    found = {}
    for each in chosen:
        name = each.row.heatmap
        floor = baseline_of(name)
        if floor == name:
            continue
        gain = hits[name].astype(np.float64) - hits[floor]
        found[name] = {
            "floor": floor,
            "policy": each.row.policy,
            "gt_known_loc": float(hits[name].mean()),
            "floor_gt_known_loc": float(hits[floor].mean()),
            "difference": float(gain.mean()),
            "interval": mean_interval(gain, seed=seed).tolist(),
        }
    return {"floors": found} if found else {}
