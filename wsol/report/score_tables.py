"""Scores as people and spreadsheets read them."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_training.atomic_io import write_texts
from wsol.annotations.coco_writing import coco_ground_truth
from wsol.evaluation.error_types import ERROR_TYPES
from wsol.evaluation.run_model import SplitOutput
from wsol.evaluation.scores import Headline, Scores
from wsol.report.number_format import markdown, percent
from wsol.report.robustness_tables import robustness_tables


def score_cells(row: Mapping[str, Any], accuracy: float | None) -> list[str]:
    """Policy and scores of a row of `evaluation.score`'s result, percentages with intervals."""
    threshold = row["threshold"]
    policy = row["policy"] if threshold is None else f"{row['policy']} ({threshold:.3g})"
    keys = ("gt_known_loc", "top1_loc", "top5_loc")
    scores = [percent(row[key], row["intervals"].get(key)) for key in keys]
    return [policy, *scores, percent(accuracy)]


MORE_HEADS = (
    "MaxBoxAcc (oracle each)",
    "MaxBoxAccV2 (oracle each)",
    "AP50",
    "PxAP",
    "pIoU (oracle)",
)


def more_cells(result: Mapping[str, Any], name: str) -> list[str]:
    """The scores that a heatmap has once, in the order of `MORE_HEADS`."""
    reference = result.get("reference", {}).get(name, {})
    pixels = result.get("pixels", {}).get(name, {})
    headline = result["headline"].get(name, {})
    ends, pixel_ends = reference.get("intervals", {}), pixels.get("intervals", {})
    shares = reference.get("max_box_acc", {})
    precision = percent(headline.get("coco_ap50"))
    mask = f" (mask > {pixels['mask_cut']})" if pixels else ""
    return [
        ", ".join(f"{percent(share)} at {iou}" for iou, share in shares.items()) or "-",
        percent(reference.get("max_box_acc_v2"), ends.get("max_box_acc_v2")),
        precision if precision == "-" else f"{precision} ({headline['policy']})",
        percent(pixels.get("pxap"), pixel_ends.get("pxap")) + mask,
        percent(pixels.get("piou"), pixel_ends.get("piou")) + mask,
    ]


def error_cells(result: Mapping[str, Any], name: str) -> list[str]:
    """Policy, and share of each of `errors.ERROR_TYPES`."""
    headline = result["headline"][name]
    return [headline["policy"], *map(percent, headline["errors"].values())]


ACCURACY_HEADS = ("test images", "accuracy", "top-5 accuracy")


def accuracy_cells(result: Mapping[str, Any]) -> list[str]:
    """Over all test images, in the order of `ACCURACY_HEADS`; empty where no prediction is known
    or the other tables say it."""
    found = result.get("all_test_images", result)
    if found["top1_accuracy"] is None or (found is result and result["localization"]):
        return []
    shares = (percent(found[key]) for key in ("top1_accuracy", "top5_accuracy"))
    return [f"all {found['images']:,}", *shares]


BASELINE_HEADS = ("baseline", "policy", "GT-known", "of the baseline", "difference, paired")


def baseline_cells(result: Mapping[str, Any], name: str) -> list[str]:
    """What `baselines.above_baselines` found of a heatmap, in the order of `BASELINE_HEADS`."""
    found = result["floors"][name]
    scores = (percent(found["gt_known_loc"]), percent(found["floor_gt_known_loc"]))
    difference = percent(found["difference"], found["interval"])
    return [found["floor"], found["policy"], *scores, difference]


LABORATORY_HEADS = (
    "worst group",
    "mean over groups",
    "gradient mass in the mask",
    "mask's area",
    "leakage onto the null patch",
)


def laboratory_cells(result: Mapping[str, Any]) -> list[str]:
    """What `laboratory.laboratory` found, in the order of `LABORATORY_HEADS`."""
    found = result["laboratory"]
    groups, inside, patch = (found.get(key, {}) for key in ("groups", "object", "null_patch"))
    mean, worst = percent(groups.get("mean_accuracy")), "-"
    if groups:
        mean += f" ({len(groups['groups'])} groups, {groups['left_out']} too small)"
    if groups.get("worst"):
        group = groups["worst"]
        worst = (
            f"{percent(group['accuracy'])} ({group['class']} before {group['background']}, "
            f"{group['images']} images)"
        )
    mass = percent(inside.get("mass"), inside.get("intervals", {}).get("mass"))
    if inside.get("left_out"):
        mass += f" ({inside['left_out']} images without a gradient)"
    leakage = patch.get("leakage")
    if leakage is not None:
        low, high = patch["intervals"]["leakage"]
        leakage = f"{leakage:.2f} [{low:.2f}, {high:.2f}]"
    return [worst, mean, mass, percent(inside.get("area")), leakage or "-"]


def heatmaps(result: Mapping[str, Any]) -> list[str]:
    """Names of all that a result scores, in order."""
    names = [row["heatmap"] for row in result["localization"]]
    return list(dict.fromkeys([*names, *result.get("pixels", {})]))


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Run name -> `evaluation.score`'s result, as text in Markdown: percentages, 95 % intervals."""
    heads = ("model", "heatmap", "threshold policy", "GT-known", "Top-1 Loc", "Top-5 Loc")
    rows = [
        [run, row["heatmap"], *score_cells(row, result["top1_accuracy"])]
        for run, result in results.items()
        for row in result["localization"]
    ]
    more = [
        [run, name, *more_cells(result, name)]
        for run, result in results.items()
        for name in heatmaps(result)
    ]
    gains = [
        [run, name, *baseline_cells(result, name)]
        for run, result in results.items()
        for name in result.get("floors", {})
    ]
    wrong = [
        [run, name, *error_cells(result, name)]
        for run, result in results.items()
        for name in result["headline"]
    ]
    readings = [
        [run, *laboratory_cells(result)]
        for run, result in results.items()
        if "laboratory" in result
    ]
    every = [[run, *cells] for run, result in results.items() if (cells := accuracy_cells(result))]
    blocks = [
        markdown((*heads, "accuracy"), rows, 3),
        markdown(("model", *ACCURACY_HEADS), every, 2),
        markdown(("model", "heatmap", *BASELINE_HEADS), gains, 4),
        markdown(("model", "heatmap", *MORE_HEADS), more, 2),
        markdown(("model", "heatmap", "policy", *ERROR_TYPES), wrong, 3),
        markdown(("model", *LABORATORY_HEADS), readings, 1),
        *(markdown(*block) for block in robustness_tables(results)),
    ]
    return "\n\n".join(block for block in blocks if block)


def write_scores(
    folder: str | Path, test: SplitOutput, scores: Scores, details: Mapping[str, Any]
) -> dict[str, Any]:
    """Write images.csv, coco/truth.json, coco/<heatmap>.json and metrics.json, all or none.

    Args:
        details: What else metrics.json should say.

    Returns:
        metrics.json's content.
    """
    folder = Path(folder)
    result = scores.metrics | details
    texts = {"images.csv": image_table(test, scores.headlines)}
    if test.truth.boxes.size:
        texts["coco/truth.json"] = json.dumps(coco_ground_truth(test.truth))
    for each in scores.headlines:
        if each.results is not None:
            file = f"coco/{each.row.heatmap.replace(' ', '_')}.json"
            texts[file] = json.dumps(each.results)
    texts["metrics.json"] = json.dumps(result, indent=2)
    write_texts(folder, texts)
    for file in (folder / "coco").glob("*.json"):
        if f"coco/{file.name}" not in texts:
            file.unlink()  # of another scoring
    return result


# What begins a formula in a spreadsheet. A file's name comes from whoever made the data; with `./`
# before it, it is still the same file.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def image_table(test: SplitOutput, chosen: Sequence[Headline]) -> str:
    """CSV with one line for each image and kind of heatmap, boxes in the files' pixels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = "image,label,prediction,x0,y0,x1,y1,iou,heatmap,policy,threshold,error"
    writer.writerow(columns.split(","))
    for each in chosen:
        writer.writerows(_image_rows(test, each))
    return text.getvalue()


def _image_rows(test: SplitOutput, chosen: Headline) -> Iterator[list[Any]]:
    truth, row = test.truth, chosen.row
    threshold = "" if row.threshold is None else f"{row.threshold:g}"
    for index, name in enumerate(truth.names):
        prediction = "" if test.predictions is None else int(test.predictions.order[index, 0])
        yield [
            f"./{name}" if name.startswith(_FORMULA) else name,
            int(truth.labels[index]),
            "" if prediction == -1 else prediction,
            *(f"{value:.2f}" for value in chosen.boxes[index]),
            repr(float(chosen.iou[index])),
            row.heatmap,
            row.policy,
            threshold,
            chosen.error_types[index],
        ]
