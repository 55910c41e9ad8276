"""Localization scores, threshold policies and baselines.

The settings are here, so that a command can read its options before PyTorch is imported.
"""

from dataclasses import dataclass

import numpy as np

IOU_THRESHOLDS = (0.3, 0.5, 0.7)  # MaxBoxAccV2 averages over these


@dataclass(frozen=True)
class ScoringConfig:
    """Settings for scoring heatmaps.

    Attributes:
        threshold: If set, adds the policy `fixed:<threshold>`. A fraction of the heatmap's maximum,
            in [0,1].
        threshold_step: Distance between candidate thresholds, at least 0.0001 and below 1.
        v2: Whether to compute also MaxBoxAccV2, from the boxes of all contours.
        ious: IoU thresholds in [0,1] at which MaxBoxAcc is scored.
        seed: Seed of the bootstrap and of attacks.
    """

    threshold: float | None = None
    threshold_step: float = 0.001
    v2: bool = True
    ious: tuple[float, ...] = IOU_THRESHOLDS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0,1], not {self.threshold}")
        if not 1e-4 <= self.threshold_step < 1:
            raise ValueError(
                f"threshold_step must be at least 0.0001 and below 1, not {self.threshold_step}"
            )
        if not all(0 <= each <= 1 for each in self.ious):
            raise ValueError(f"ious must lie in [0,1], not {list(self.ious)}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, not {self.seed}")

    @property
    def thresholds(self) -> np.ndarray:
        """The candidate thresholds, (T,)."""
        return np.arange(0, 1, self.threshold_step)
