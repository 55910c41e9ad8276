"""COCO's average precision, computed by pycocotools."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wsol.annotations.coco_writing import coco_ground_truth
from wsol.annotations.ground_truth import GroundTruth


def average_precision(truth: GroundTruth, results: Sequence[Mapping[str, Any]]) -> float:
    """COCO's AP at IoU 0.5 from COCOeval, in [0,1].

    Args:
        results: As `wsol.annotations.coco_writing.coco_results` makes them.
    """
    if not results:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = coco_ground_truth(truth)
        expected.createIndex()
        found = expected.loadRes([dict(result) for result in results])
        run = COCOeval(expected, found, "bbox")
        run.params.iouThrs = np.array([0.5])
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.params.maxDets = [100]
        precision = []
        # COCOeval visits every pair of image and category; only a category's own images hold boxes
        for category in sorted({entry["category_id"] for entry in expected.anns.values()}):
            images = set(expected.getImgIds(catIds=[category])) | set(found.catToImgs[category])
            run.params.catIds, run.params.imgIds = [category], sorted(images)
            run.evaluate()
            run.accumulate()
            precision.append(run.eval["precision"].mean())
    return float(np.mean(precision))
