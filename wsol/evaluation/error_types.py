"""Error types of boxes, after TS-CAM (Gao et al., ICCV 2021).

The fractions between the types are our choice. We could not compare them with the paper's code.
"""

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


def error_types(
    boxes: np.ndarray, truths: np.ndarray, counts: np.ndarray, correct: np.ndarray | None = None
) -> np.ndarray:
    """Sorts boxes into `ERROR_TYPES`. The first type that applies counts, in this order:

    * "wrong class": the prediction is not the true class, regardless of the box;
    * "right": the box is a hit;
    * "several instances": the box contains at least 0.3 of each of two or more true boxes;
    * "box on a part": at least 0.5 of the box lies in a true box that is larger;
    * "box too large": the box contains at least 0.7 of a true box;
    * "elsewhere": all other images, and images without a box.

    Args:
        boxes: (N,4) half-open xyxy.
        truths: (N,G,4) in the same pixels. Boxes beyond the image's count repeat others.
        counts: (N,), number of true boxes of each image.
        correct: bool (N,), whether the prediction is the true class. If None, "wrong class" is
            not used.

    Returns:
        str (N,).
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
            (iou(boxes, truths) >= HIT).any(axis=1),
            ((of_truth >= 0.3) & real).sum(axis=1) >= 2,
            ((of_box >= 0.5) & smaller).any(axis=1),
            (of_truth >= 0.7).any(axis=1),
        ],
        [WRONG_CLASS, RIGHT, SEVERAL, PART, TOO_LARGE],
        ELSEWHERE,
    )
