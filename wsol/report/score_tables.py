"""Tables of scores in Markdown, and their cells, which the HTML tables share."""

from collections.abc import Mapping
from typing import Any

from wsol.evaluation.error_types import ERROR_TYPES
from wsol.report.number_format import markdown, percent
from wsol.report.robustness_tables import robustness_tables


def score_cells(row: Mapping[str, Any], accuracy: float | None) -> list[str]:
    """Policy and scores of a row of metrics.json's `localization`, in percent with intervals."""
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
    """The scores without a threshold policy of their own, in the order of `MORE_HEADS`."""
    reference = result.get("reference", {}).get(name, {})
    pixels = result.get("pixels", {}).get(name, {})
    headline = result["headline"].get(name, {})
    ends, pixel_ends = reference.get("intervals", {}), pixels.get("intervals", {})
    accuracies = reference.get("max_box_acc", {})
    precision = percent(headline.get("coco_ap50"))
    mask = f" (mask > {pixels['mask_cut']})" if pixels else ""
    return [
        ", ".join(f"{percent(each)} at {iou}" for iou, each in accuracies.items()) or "-",
        percent(reference.get("max_box_acc_v2"), ends.get("max_box_acc_v2")),
        precision if precision == "-" else f"{precision} ({headline['policy']})",
        percent(pixels.get("pxap"), pixel_ends.get("pxap")) + mask,
        percent(pixels.get("piou"), pixel_ends.get("piou")) + mask,
    ]


def error_cells(result: Mapping[str, Any], name: str) -> list[str]:
    """Policy, and fraction of each of `ERROR_TYPES`."""
    headline = result["headline"][name]
    return [headline["policy"], *map(percent, headline["errors"].values())]


ACCURACY_HEADS = ("test images", "accuracy", "top-5 accuracy")


def accuracy_cells(result: Mapping[str, Any]) -> list[str]:
    """Accuracy over all test images, in the order of `ACCURACY_HEADS`; empty where no prediction is
    known or the other tables show it."""
    found = result.get("all_test_images", result)
    if found["top1_accuracy"] is None or (found is result and result["localization"]):
        return []
    accuracies = (percent(found[key]) for key in ("top1_accuracy", "top5_accuracy"))
    return [f"all {found['images']:,}", *accuracies]


BASELINE_HEADS = ("baseline", "policy", "GT-known", "of the baseline", "difference, paired")


def baseline_cells(result: Mapping[str, Any], name: str) -> list[str]:
    """A heatmap's comparison with its baseline, in the order of `BASELINE_HEADS`."""
    found = result["baselines"][name]
    scores = (percent(found["gt_known_loc"]), percent(found["baseline_gt_known_loc"]))
    difference = percent(found["difference"], found["interval"])
    return [found["baseline"], found["policy"], *scores, difference]


SPURIOUS_HEADS = (
    "worst group",
    "mean over groups",
    "gradient mass in the mask",
    "mask's area",
    "leakage onto the null patch",
)


def spurious_cells(result: Mapping[str, Any]) -> list[str]:
    """Measurements of spurious correlations, in the order of `SPURIOUS_HEADS`."""
    found = result["spurious_correlation"]
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
    """Names of all heatmaps that have scores, in order."""
    names = [row["heatmap"] for row in result["localization"]]
    return list(dict.fromkeys([*names, *result.get("pixels", {})]))


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All tables of several runs in Markdown: percentages with 95 % intervals.

    Args:
        results: Run name -> the content of metrics.json.
    """
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
        for name in result.get("baselines", {})
    ]
    wrong = [
        [run, name, *error_cells(result, name)]
        for run, result in results.items()
        for name in result["headline"]
    ]
    readings = [
        [run, *spurious_cells(result)]
        for run, result in results.items()
        if "spurious_correlation" in result
    ]
    every = [[run, *cells] for run, result in results.items() if (cells := accuracy_cells(result))]
    blocks = [
        markdown((*heads, "accuracy"), rows, 3),
        markdown(("model", *ACCURACY_HEADS), every, 2),
        markdown(("model", "heatmap", *BASELINE_HEADS), gains, 4),
        markdown(("model", "heatmap", *MORE_HEADS), more, 2),
        markdown(("model", "heatmap", "policy", *ERROR_TYPES), wrong, 3),
        markdown(("model", *SPURIOUS_HEADS), readings, 1),
        *(markdown(*block) for block in robustness_tables(results)),
    ]
    return "\n\n".join(block for block in blocks if block)
