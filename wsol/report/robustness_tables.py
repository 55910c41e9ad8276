"""Tables of scores under attack, with the protocol in every row."""

import itertools
from collections.abc import Mapping
from typing import Any

from wsol.report.number_format import Results, Table, percent

_MAP_HEADS = (
    *("top-k intersection", "flips as 100", "under noise", "local top-k", "Kendall's tau"),
    *("Spearman", "cosine", "SSIM", "centre shift, pixels"),
)
_BOX_HEADS = ("GT-known", "attacked", "change", "Top-1 Loc", "attacked", "change")


def robustness_tables(results: Results) -> list[Table]:
    """Tables of maps, boxes and predictions under attack: a row for each run and attack."""
    found = [(run, each["robustness"]) for run, each in results.items() if "robustness" in each]
    maps = [(run, one, each["images"]) for run, each in found for one in each["maps"]]
    curves = [(run, one, each["images"]) for run, each in found for one in each["accuracy"]]
    heads = ("model", "attack on maps")
    return [
        Table((*heads, *_MAP_HEADS), [[run, *_map_cells(*one)] for run, *one in maps], 2),
        Table(
            (*heads, *_BOX_HEADS),
            [
                [run, *_box_cells(one, boxes, total)]
                for run, one, total in maps
                if "boxes" in one
                for boxes in (one["boxes"], *one.get("other_boxes", ()))
            ],
            2,
        ),
        Table(
            ("model", "attack on predictions", "accuracy at each radius"),
            [[run, *_curve_cells(*one)] for run, *one in curves],
            3,
        ),
    ]


def _map_cells(one: Mapping[str, Any], total: int) -> list[str]:
    measures = one["measures"]
    top, shift = measures["top_k_intersection"], measures["centre_shift"]
    others = ("local_top_k_intersection", "kendall", "spearman", "cosine", "ssim")
    left_out = f", {one['without_map']} without a map" if one["without_map"] else ""
    images = f"{one['correct']} correct of {total} images{left_out}"
    if one.get("compared", 0) > one["correct"]:  # maps that explain no class
        images = f"{one['compared']} of {total} images{left_out}"
    pixels = "-"
    if shift["mean"] is not None:
        low, high = shift["interval"]
        pixels = f"{shift['mean']:.1f} [{low:.1f}, {high:.1f}]"
    return [
        f"{_attack(one['attack'])}; {images}, {one['flipped']} flipped",
        percent(top["mean"], top["interval"]),
        percent(top["flipped_as_same"]),
        percent(top["under_noise"]),
        *(percent(measures[name]["mean"], measures[name]["interval"]) for name in others),
        pixels,
    ]


def _box_cells(one: Mapping[str, Any], boxes: Mapping[str, Any], total: int) -> list[str]:
    columns = itertools.product(("gt_known_loc", "top1_loc"), ("clean", "attacked", "change"))
    each = (boxes[score][key] for score, key in columns)
    return [
        f"{_attack(one['attack'])}; {total} images, boxes of {boxes.get('heatmap', 'gradient')} at "
        f"{boxes['threshold']:.3g}",
        *(percent(value["mean"], value["interval"]) for value in each),
    ]


def _curve_cells(one: Mapping[str, Any], total: int) -> list[str]:
    norm = one["curve"]["attack"]["norm"]
    points = zip(one["eps"], one["accuracy"], one["intervals"], strict=True)
    return [
        f"{one['protocol']}; {total} images",
        ", ".join(f"{radius(eps, norm)}: {percent(*point)}" for eps, *point in points),
    ]


def _attack(settings: Mapping[str, Any]) -> str:
    steps, k = settings["attack"], settings["top_k"]
    norm = steps.get("norm")
    moves = (  # in results of earlier versions, an attack without a class is PGD
        f"{norm} {radius(steps['eps'], norm)}, {steps['steps']} steps of "
        f"{radius(steps['step_size'], norm)}"
        if steps.get("class", "PGD") == "PGD"
        else _class(steps)
    )
    return (
        f"{settings['goal']['class']} on {_class(settings['attribution'])}, {moves}, "
        f"{settings['restarts']} restart(s), k {f'{100 * k:g} %' if isinstance(k, float) else k}"
    )


def _class(settings: Mapping[str, Any]) -> str:
    """The name of a class and its settings: `SmoothGrad (samples 8, noise 0.1)`."""
    inside = ", ".join(
        f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}"
        for key, value in settings.items()
        if key != "class"
    )
    return f"{settings['class']} ({inside})" if inside else settings["class"]


def radius(eps: float, norm: str) -> str:
    """A radius as text: in 255ths for linf."""
    return f"{255 * eps:.3g}/255" if norm == "linf" else f"{eps:.3g}"
