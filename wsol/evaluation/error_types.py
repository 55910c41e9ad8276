"""What went wrong with a box: the kinds of error that TS-CAM (Gao et al., ICCV 2021) tells apart.

The shares that bound the kinds are this project's, after that paper's idea; they could not be
checked against its code.
"""

from dataclasses import dataclass

import numpy as np

from wsol.boxes.geometry import area, intersection, iou, ratio

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
    """Sorts boxes into `ERROR_TYPES`; the first that applies, in this order:

    * "wrong class": the prediction is not the true class, wherever the box is;
    * "right": IoU of at least `hit` with a true box;
    * "several instances": the box holds `several` of each of two or more true boxes;
    * "box on a part": `part` of the box lies in a true box, which is larger;
    * "box too large": the box holds `covered` of a true box;
    * "elsewhere": anything else, no box among them.
    """

    hit: float = 0.5
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
        """Kind of each image's box, str (N,).

        Args:
            boxes: (N,4) half-open xyxy.
            truths: (N,G,4) in the same pixels, rows beyond `counts` (N,) repeating others.
            correct: (N,) whether the prediction is the true class; None judges the boxes alone.
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
