"""The rows of a score table: localization scores, each with its threshold policy and intervals."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wsol.evaluation.metrics import HIT, bootstrap, class_means, middle_argmax
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.threshold_policy import PolicyIous, require_policy


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one kind of heatmap under one threshold policy, fractions in [0,1].

    Attributes:
        heatmap: Name of the heatmap method, or of the boxes.
        policy: Name of the threshold policy, see `threshold_policy.POLICIES`.
        threshold: Fraction of the heatmap's maximum, or None if boxes were given.
        gt_known_loc: Fraction of images with a hit.
        top1_loc: Fraction of images with a hit and a correct prediction, or None without
            predictions.
        top5_loc: Fraction of images with a hit and the true class among the five most probable
            classes, or None if fewer are known.
        intervals: Score -> lower and upper end of its 95 % bootstrap interval.
        class_means: Score -> its mean over the classes.
    """

    heatmap: str
    policy: str
    threshold: float | None
    gt_known_loc: float
    top1_loc: float | None
    top5_loc: float | None
    intervals: Mapping[str, tuple[float, float]]
    class_means: Mapping[str, float]

    def __post_init__(self) -> None:
        require_policy(self.policy)


def score_row(heatmap: str, choice: PolicyIous, output: SplitOutput, *, seed: int = 0) -> ScoreRow:
    """Scores one kind of heatmap under one policy.

    The threshold is chosen again in every bootstrap resample. A policy with a single threshold
    keeps it."""
    truth, index = output.truth, choice.index
    hit = choice.ious >= HIT
    hits = {"gt_known_loc": hit}
    for key, k in (("top1_loc", 1), ("top5_loc", 5)):
        correct = output.correct(k)
        if correct is not None:
            hits[key] = hit & correct[:, None]
    counted = [table.astype(np.float32) for table in hits.values()]

    def statistic(drawn: np.ndarray) -> np.ndarray:
        totals = np.stack([drawn @ table for table in counted])  # whole numbers, so exact
        best = middle_argmax(totals[0])
        return np.take_along_axis(totals, best[None, :, None], axis=2)[..., 0].T / len(truth)

    ends = bootstrap(statistic, len(truth), seed=seed).T.tolist()
    scores = {key: float(table[:, index].mean()) for key, table in hits.items()}
    return ScoreRow(
        heatmap=heatmap,
        policy=choice.policy,
        threshold=choice.threshold,
        gt_known_loc=scores["gt_known_loc"],
        top1_loc=scores.get("top1_loc"),
        top5_loc=scores.get("top5_loc"),
        intervals=dict(zip(hits, map(tuple, ends), strict=True)),
        class_means={
            key: float(np.nanmean(class_means(table[:, index], truth.labels, len(truth.classes))))
            for key, table in hits.items()
        },
    )
