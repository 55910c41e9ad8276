"""Lines of a table of localization scores, each with who chose its threshold, and intervals."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wsol.evaluation.metrics import best_threshold, bootstrap, class_means, middle_argmax
from wsol.evaluation.run_model import SplitOutput

HIT = 0.5  # IoU
_POLICY = re.compile(r"val|oracle|reference|given|fixed:[\d.e-]+")


@dataclass(frozen=True)
class ScoreRow:
    """One line of a table of scores, shares in [0,1].

    Attributes:
        policy: Who chose the threshold: "val", "fixed:<t>", "oracle", "reference" or "given".
        threshold: Of the heatmap's maximum; None where boxes were given.
        top1_loc, top5_loc: None where no predictions, or fewer than five classes, are known.
        intervals: Score -> lower and upper end of its 95 % interval.
        class_means: Score -> its mean over classes, of each class's mean over images.
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
        if not _POLICY.fullmatch(self.policy):
            raise ValueError(f"a score needs the policy of its threshold, not {self.policy!r}")


@dataclass(frozen=True)
class Scorer:
    """Turns tables of IoUs (N,T) into rows."""

    heatmap: str
    measured: SplitOutput
    seed: int

    def at(self, policy: str, threshold: float | None, ious: np.ndarray) -> ScoreRow:
        """Of ious (N,1), whose threshold stays as it is in every resample."""
        return self._row(policy, None if threshold is None else float(threshold), ious, 0)

    def oracle(self, policy: str, thresholds: np.ndarray, ious: np.ndarray) -> ScoreRow:
        index = best_threshold(ious, HIT)
        return self._row(policy, float(thresholds[index]), ious, index)

    def _row(self, policy: str, threshold: float | None, ious: np.ndarray, index: int) -> ScoreRow:
        hit = ious >= HIT
        tables = {"gt_known_loc": hit}
        for key, k in (("top1_loc", 1), ("top5_loc", 5)):
            correct = self.measured.correct(k)
            if correct is not None:
                tables[key] = hit & correct[:, None]
        truth = self.measured.truth
        numbers = [table.astype(np.float32) for table in tables.values()]

        def statistic(drawn: np.ndarray) -> np.ndarray:
            hits = np.stack([drawn @ table for table in numbers])  # whole numbers, so exact
            best = middle_argmax(hits[0])
            return np.take_along_axis(hits, best[None, :, None], axis=2)[..., 0].T / len(truth)

        ends = bootstrap(statistic, len(truth), seed=self.seed).T.tolist()
        means = {
            key: float(np.nanmean(class_means(table[:, index], truth.labels, len(truth.classes))))
            for key, table in tables.items()
        }
        values = {key: float(table[:, index].mean()) for key, table in tables.items()}
        return ScoreRow(
            heatmap=self.heatmap,
            policy=policy,
            threshold=threshold,
            gt_known_loc=values["gt_known_loc"],
            top1_loc=values.get("top1_loc"),
            top5_loc=values.get("top5_loc"),
            intervals=dict(zip(tables, map(tuple, ends), strict=True)),
            class_means=means,
        )
