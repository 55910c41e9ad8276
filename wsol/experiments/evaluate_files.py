"""Evaluates heatmaps and boxes that other programs wrote to files."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

from wsol.annotations.coco_reading import read_coco_results
from wsol.annotations.ground_truth import GroundTruth, with_classes, with_mask_cut
from wsol.annotations.metadata import read_ground_truth
from wsol.annotations.predictions import mean_predictions, read_predictions
from wsol.cli.parser import output_folder
from wsol.data.dataset import EmptySplitError
from wsol.evaluation import ScoringConfig
from wsol.evaluation.pixel_metrics import bin_edges, require_masks
from wsol.evaluation.results import Scores, write_scores
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scoremaps import any_scoremap, find_scoremaps, tabulate_scoremaps
from wsol.evaluation.scores import require_true_boxes, score_boxes, score_heatmaps

_SCORING = ScoringConfig()


def evaluate_scoremaps(
    scoremaps: str | Path,
    metadata: str | Path,
    *,
    val_metadata: str | Path | None = None,
    predictions: str | Path | None = None,
    masks: str | Path | None = None,
    mask_cut: int | None = None,
    workers: int = 2,
    output: str | Path | None = None,
    scoring: ScoringConfig = _SCORING,
) -> Scores:
    """Scores heatmaps of the true class that other programs wrote.

    Args:
        scoremaps: Folder with a file <image>.npy for each image: floating point in [0,1], of any
            size, for the whole image. If there are maps of validation images, the threshold of the
            policy val is chosen on them.
        metadata: The published evaluator's metadata folder, a data set, or a COCO file.
        val_metadata: Metadata of the validation images; default: the val split of `metadata`.
        predictions: File of lines <image>,<class>[:<probability>],<class>,... with the most
            probable class first. Classes are counted from 0.
        masks: Folder of masks, for PxAP and pIoU: the masks that the metadata lists (OpenImages),
            or else <image>.png for each image. The masks of an image's objects are united, and
            pixels of its ignore mask are not scored.
        mask_cut: Pixels of a mask above this value (0 to 254) belong to the object. Default: 127,
            and 0 for masks that are listed in the metadata.
        workers: Number of loader processes. 0 loads in this process.
        output: Folder for metrics.json, images.csv and coco/; default: nothing is written.
        scoring: Thresholds, IoU thresholds and seed.

    Raises:
        ValueError: a file is missing or not valid. The message names it.
    """
    if output is not None:
        output_folder(output)
    test = read_ground_truth(metadata, "test", masks=masks)
    first = test.mask_files[0].objects[0] if test.masks else None
    if masks is None and first is not None and not first.is_file():
        raise ValueError(
            f"there is no mask {first}: --masks names the folder below which the masks of "
            f"{metadata} lie"
        )
    if mask_cut is not None:
        if not 0 <= mask_cut <= 254:
            raise ValueError(f"mask_cut must lie in 0 to 254, not {mask_cut}")
        test = with_mask_cut(test, mask_cut)
    validation = _validation_truth(scoremaps, metadata, val_metadata)
    known = () if validation is None else validation.names
    predicted = None
    if predictions is not None:
        predicted = read_predictions(predictions, test, known)
        test = with_classes(test, predicted.classes)
    splits = {"test": test} if validation is None else {"test": test, "val": validation}
    files = {
        split: find_scoremaps(scoremaps, truth, (*test.names, *known))
        for split, truth in splits.items()
    }
    both = sorted(set(files["test"]).intersection(files.get("val", ())))
    if both:
        raise ValueError(f"{len(both)} maps are for validation and for test, for example {both[0]}")
    require_true_boxes(test, validation)
    require_masks(test)
    outputs = {}
    for split, truth in splits.items():
        is_test = split == "test"
        table = tabulate_scoremaps(
            files[split],
            truth,
            edges=bin_edges(scoring.thresholds) if is_test else None,
            every_box=scoring.v2 and is_test,
            workers=workers,
            description=split,
        )
        outputs[split] = SplitOutput(truth, predicted if is_test else None, {"maps": table})
    scores = score_heatmaps(
        outputs["test"],
        outputs.get("val"),
        thresholds=scoring.thresholds,
        fixed=scoring.threshold,
        iou_thresholds=scoring.ious,
        seed=scoring.seed,
    )
    files_given = {
        "scoremaps": scoremaps,
        "metadata": metadata,
        "val_metadata": val_metadata,
        "predictions": predictions,
        "masks": masks,
    }
    settings = {name: None if file is None else str(file) for name, file in files_given.items()}
    settings |= {"mask_cut": mask_cut, **dataclasses.asdict(scoring)}
    scores = scores.with_metrics({"settings": settings})
    write_scores(output, scores)
    return scores


def evaluate_boxes(
    results: str | Path,
    metadata: str | Path,
    *,
    predictions: str | Path | Sequence[str | Path] = (),
    output: str | Path | None = None,
    seed: int = 0,
) -> Scores:
    """Scores boxes that other programs found.

    Args:
        results: JSON file: a COCO results list, or boxes.json of localize.py. Image ids of a list
            are ids of the metadata (COCO, CUB), names, or line numbers from 1. If the metadata has
            no category ids, a category is a label counted from 1.
        metadata: The published evaluator's metadata folder, a data set, or a COCO file.
        predictions: File of lines <image>,<class>[:<probability>],<class>,... that replace the
            classes of the boxes, for example predictions.txt of another run. Classes are counted
            from 0. With several files, the mean probability ranks the classes.
        output: Folder for metrics.json, images.csv and coco/; default: nothing is written.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: a file is missing or not valid. The message names it.
    """
    if output is not None:
        output_folder(output)
    truth = read_ground_truth(metadata, "test")
    given = read_coco_results(results, truth)
    files = [predictions] if isinstance(predictions, str | Path) else predictions
    if files:
        mean = mean_predictions([read_predictions(file, truth) for file in files])
        given = given.with_predictions(mean, truth)
    if given.left_out:
        warnings.warn(
            f"{given.left_out} images without a true box there are left out", stacklevel=2
        )
    without = int((~given.found).sum())
    if without:
        warnings.warn(
            f"{without} of {len(truth)} images have no box and count as missed", stacklevel=2
        )
    settings = {
        "results": str(results),
        "metadata": str(metadata),
        "predictions": [*map(str, files)],
        "seed": seed,
    }
    scores = score_boxes(truth, given, seed=seed).with_metrics({"settings": settings})
    write_scores(output, scores)
    return scores


def _validation_truth(
    scoremaps: str | Path, metadata: str | Path, val_metadata: str | Path | None
) -> GroundTruth | None:
    """Returns the images for choosing a threshold: `val_metadata` or, if it is None, the val split
    of `metadata`. Returns None if there are no maps of these images."""
    if val_metadata is not None:
        return read_ground_truth(val_metadata, "val")
    folder = Path(metadata)
    published = (folder / "image_ids.txt", folder / "test" / "image_ids.txt")
    one_split = any(map(Path.is_file, published)) and not (folder / "val").is_dir()
    if folder.is_file() or one_split:
        return None
    try:
        truth = read_ground_truth(metadata, "val")
    except EmptySplitError:
        return None
    return truth if any_scoremap(scoremaps, truth) else None
