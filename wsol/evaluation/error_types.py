"""Error types of boxes, after TS-CAM (Gao et al., ICCV 2021).

The fractions that separate the types are this project's choice; they could not be checked against
that paper's code.
"""

from dataclasses import dataclass

import numpy as np

from wsol.boxes.geometry import area, intersection, iou, ratio
from wsol.evaluation.metrics import HIT

RIGHT, WRONG_CLASS, SEVERAL, PART, TOO_LARGE, ELSEWHERE = ERROR_TYPES = (
    "right",
    "wrong class",
    "several instances",
    "box on a part",
    "box too large",
    "elsewhere",
)


@dataclass(frozen=True)
class ErrorTypes:
    """Sorts boxes into `ERROR_TYPES`. The first type that applies counts, in this order:

    * "wrong class": the prediction is not the true class, wherever the box is;
    * "right": IoU of at least `hit` with a true box;
    * "several instances": the box holds the fraction `several` of each of two or more true boxes;
    * "box on a part": the fraction `part` of the box lies in a true box that is larger;
    * "box too large": the box holds the fraction `covered` of a true box;
    * "elsewhere": anything else, also where there is no box.
    """

    hit: float = HIT
    several: float = 0.3
    part: float = 0.5
    covered: float = 0.7

    def __call__(
        self,
        boxes: np.ndarray,
        truths: np.ndarray,
        counts: np.ndarray,
        correct: np.ndarray | None = None,
    ) -> np.ndarray:
        """Error type of each image's box, str (N,).

        Args:
            boxes: (N,4) half-open xyxy.
            truths: (N,G,4) in the same pixels; boxes beyond the image's count repeat others.
            counts: (N,), number of true boxes of each image.
            correct: bool (N,), whether the prediction is the true class; None judges boxes alone.
        """
        boxes = np.asarray(boxes)[:, None]
        real = np.arange(truths.shape[1]) < np.asarray(counts)[:, None]
        shared = intersection(boxes, truths)
        of_truth = ratio(shared, area(truths))
        of_box = ratio(shared, area(boxes))
        smaller = area(boxes) < area(truths)
        wrong = np.zeros(len(boxes), bool) if correct is None else ~np.asarray(correct)
        return np.select(
            [
                wrong,
                (iou(boxes, truths) >= self.hit).any(axis=1),
                ((of_truth >= self.several) & real).sum(axis=1) >= 2,
                ((of_box >= self.part) & smaller).any(axis=1),
                (of_truth >= self.covered).any(axis=1),
            ],
            [WRONG_CLASS, RIGHT, SEVERAL, PART, TOO_LARGE],
            ELSEWHERE,
        )
