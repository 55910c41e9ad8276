"""Threshold policies: methods for choosing the threshold at which a heatmap becomes a box.

To add a policy, add a sentence to `POLICIES` and the policy's IoUs to `apply_policies`.
"""

import re
from dataclasses import dataclass

import numpy as np

from wsol.evaluation.metrics import best_threshold
from wsol.evaluation.run_model import SplitOutput

THRESHOLDS = np.arange(0, 1, 0.001)
POLICIES = {
    "val": "The threshold with the most hits on the validation images of the run; it then stays "
    "fixed, also for other data.",
    "unboxed": "The threshold whose boxes agree most often with boxes of colour segments in the "
    "run's own validation and training images. No true box is used.",
    "fixed": "A threshold that was given in advance; ART's published 0.2 if there are no images to "
    "choose one.",
    "oracle": "The threshold with the most hits on the scored images themselves.",
    "reference": "The published evaluator's score (clovaai/wsolevaluation): an oracle threshold in "
    "its pixel conventions. Its GT-known is MaxBoxAcc at IoU 0.5.",
    "given": "The boxes were given without a heatmap.",
}
_NAME = re.compile("|".join(POLICIES).replace("fixed", r"fixed:[\d.e-]+"))


@dataclass(frozen=True)
class PolicyIous:
    """The IoUs on the scored images at the thresholds that a policy allows.

    Attributes:
        policy: "val", "unboxed", "fixed:<t>", "oracle", "reference" or "given".
        thresholds: float (T,), fractions of the heatmap's maximum. T is 1 if the threshold is fixed
            before the images are scored. If boxes were given, None.
        ious: (N,T), the IoU of each image's box with its true box.
    """

    policy: str
    thresholds: np.ndarray | None
    ious: np.ndarray

    @property
    def index(self) -> int:
        """Column of the threshold with the most hits."""
        return best_threshold(self.ious)

    @property
    def threshold(self) -> float | None:
        """The threshold with the most hits."""
        return None if self.thresholds is None else float(self.thresholds[self.index])


def require_policy(policy: str) -> None:
    """Raises ValueError if `policy` is not the name of a threshold policy."""
    if not _NAME.fullmatch(policy):
        raise ValueError(f"a score needs the policy of its threshold, not {policy!r}")


def apply_policies(
    heatmap: str,
    test: SplitOutput,
    chosen: float | None,
    thresholds: np.ndarray,
    fixed: float | None,
    unboxed: float | None = None,
) -> list[PolicyIous]:
    """Applies every policy to one kind of heatmap, in the order of the score table.

    The first policy is the headline. Its threshold is independent of the scored images, unless only
    oracles are possible.

    Args:
        heatmap: The key of the heatmap's table in `test`.
        thresholds: float (T,), the candidate thresholds.
        chosen, fixed, unboxed: The thresholds of the policies "val", "fixed:<t>" and "unboxed". If
            None, there is no such policy.
    """
    table, truth = test.tables[heatmap], test.truth
    given = [("val", chosen), (f"fixed:{fixed:g}" if fixed is not None else "", fixed)]
    known = [(name, t) for name, t in [*given, ("unboxed", unboxed)] if t is not None]
    distinct = table.distinct(thresholds)
    return [
        *(PolicyIous(name, np.array([t]), table.ious(truth, [t])) for name, t in known),
        PolicyIous("oracle", distinct, table.ious(truth, distinct)),
        PolicyIous("reference", distinct, table.published_ious(truth, distinct)),
    ]


def validation_threshold(
    validation: SplitOutput, heatmap: str, thresholds: np.ndarray = THRESHOLDS
) -> float:
    """The threshold with the most hits on the validation images that have a true box.

    Args:
        heatmap: The key of the heatmap's table in `validation`.
        thresholds: float (T,), the candidate thresholds.
    """
    table = validation.tables[heatmap]
    distinct = table.distinct(thresholds)
    ious = table.ious(validation.truth, distinct)[validation.truth.boxed]
    return float(distinct[best_threshold(ious)])
