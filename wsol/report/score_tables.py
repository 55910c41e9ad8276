"""Tables of scores, for Markdown and for the page: percentages with 95 % intervals."""

from collections.abc import Mapping
from typing import Any

from wsol.evaluation.error_types import ERROR_TYPES
from wsol.report.number_format import Results, Table, markdown, percent
from wsol.report.robustness_tables import robustness_tables


def score_cells(row: Mapping[str, Any]) -> list[str]:
    """Policy and scores of a row of metrics.json's `localization`."""
    threshold = row["threshold"]
    policy = row["policy"] if threshold is None else f"{row['policy']} ({threshold:.3g})"
    keys = ("gt_known_loc", "top1_loc", "top5_loc")
    return [policy, *(percent(row[key], row["intervals"].get(key)) for key in keys)]


def score_table(results: Results) -> Table:
    """The scores of every heatmap under every policy."""
    heads = ("model", "heatmap", "threshold policy", "GT-known", "Top-1 Loc", "Top-5 Loc")
    rows = [
        [run, row["heatmap"], *score_cells(row), percent(result["top1_accuracy"])]
        for run, result in results.items()
        for row in result["localization"]
    ]
    return Table((*heads, "accuracy"), rows, 3)


def accuracy_table(results: Results) -> Table:
    """Accuracy over all test images, for runs with predictions, if no other table has it."""
    rows = []
    for run, result in results.items():
        found = result.get("all_test_images", result)
        shown = found is result and result["localization"]
        if found["top1_accuracy"] is not None and not shown:
            accuracies = (percent(found[key]) for key in ("top1_accuracy", "top5_accuracy"))
            rows.append([run, f"all {found['images']:,}", *accuracies])
    return Table(("model", "test images", "accuracy", "top-5 accuracy"), rows, 2)


def baseline_table(results: Results) -> Table:
    """The score of each heatmap and of its baseline."""
    heads = ("model", "heatmap", "baseline", "policy")
    rows = [
        [
            run,
            name,
            found["baseline"],
            found["policy"],
            percent(found["gt_known_loc"]),
            percent(found["baseline_gt_known_loc"]),
            percent(found["difference"], found["interval"]),
        ]
        for run, result in results.items()
        for name, found in result.get("baselines", {}).items()
    ]
    return Table((*heads, "GT-known", "baseline's GT-known", "difference, paired"), rows, 4)


def more_table(results: Results) -> Table:
    """The scores that do not depend on the threshold policy."""
    heads = ("model", "heatmap", "MaxBoxAcc", "MaxBoxAccV2", "AP50")
    rows = []
    for run, result in results.items():
        names = [row["heatmap"] for row in result["localization"]]
        for name in dict.fromkeys([*names, *result.get("pixels", {})]):
            reference = result.get("reference", {}).get(name, {})
            pixels = result.get("pixels", {}).get(name, {})
            headline = result["headline"].get(name, {})
            ends, pixel_ends = reference.get("intervals", {}), pixels.get("intervals", {})
            accuracies = reference.get("max_box_acc", {}).items()
            policy = f" ({reference['policy']})" if reference else ""
            v2 = percent(reference.get("max_box_acc_v2"), ends.get("max_box_acc_v2"))
            precision = percent(headline.get("coco_ap50"))
            mask = ""
            if pixels:
                images = f", {pixels['images']} images" if "images" in pixels else ""
                mask = f" (mask > {pixels['mask_cut']}{images})"
            cells = [
                ", ".join(f"{percent(each)} at {iou}" for iou, each in accuracies) + policy or "-",
                v2 if v2 == "-" else v2 + policy,
                precision if precision == "-" else f"{precision} ({headline['policy']})",
                *(percent(pixels.get(k), pixel_ends.get(k)) + mask for k in ("pxap", "piou")),
            ]
            rows.append([run, name, *cells])
    return Table((*heads, "PxAP", "pIoU (oracle)"), rows, 2)


def error_table(results: Results) -> Table:
    """Fraction of each error type."""
    rows = [
        [run, name, headline["policy"], *map(percent, headline["errors"].values())]
        for run, result in results.items()
        for name, headline in result["headline"].items()
    ]
    return Table(("model", "heatmap", "policy", *ERROR_TYPES), rows, 3)


def spurious_table(results: Results) -> Table:
    """Measurements of spurious correlations."""
    heads = ("model", "worst group", "mean over groups", "gradient mass in the mask", "mask's area")
    rows = [
        [run, *_spurious_cells(result["spurious_correlation"])]
        for run, result in results.items()
        if "spurious_correlation" in result
    ]
    return Table((*heads, "leakage onto the null patch"), rows, 1)


def _spurious_cells(found: Mapping[str, Any]) -> list[str]:
    groups, inside, patch = (found.get(key, {}) for key in ("groups", "object", "null_patch"))
    mean, worst, leakage = percent(groups.get("mean_accuracy")), "-", "-"
    if groups:
        mean += f" ({len(groups['groups'])} groups, {groups['left_out']} too small)"
    if groups.get("worst"):
        group = groups["worst"]
        worst = (
            f"{percent(group['accuracy'])} ({group['class']} on {group['background']}, "
            f"{group['images']} images)"
        )
    mass = percent(inside.get("mass"), inside.get("intervals", {}).get("mass"))
    if inside.get("left_out"):
        mass += f" ({inside['left_out']} images without a gradient)"
    if patch.get("leakage") is not None:
        low, high = patch["intervals"]["leakage"]
        leakage = f"{patch['leakage']:.2f} [{low:.2f}, {high:.2f}]"
    return [worst, mean, mass, percent(inside.get("area")), leakage]


def table(results: Results) -> str:
    """All tables of several runs in Markdown."""
    tables = [
        score_table(results),
        accuracy_table(results),
        baseline_table(results),
        more_table(results),
        error_table(results),
        spurious_table(results),
        *robustness_tables(results),
    ]
    return "\n\n".join(markdown(*each) for each in tables if each.rows)
