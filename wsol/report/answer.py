"""The answer of an evaluation: is the map better than its baseline, and what to use instead."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wsol.report.number_format import Results, Table, markdown, percent
from wsol.report.robustness_tables import robustness_tables
from wsol.report.score_tables import accuracy_table, score_cells, table

FEWEST_BOXES = 20  # validation boxes; fewer leave the threshold to chance
_SUGGESTED = ("refined averaged gradient", "averaged gradient")
Verdict = Literal["better", "equal", "no better", "unknown"]


@dataclass(frozen=True)
class Answer:
    """The conclusion from the scores of a run.

    Attributes:
        verdict: Whether the 95 % interval of the paired difference in GT-known between the first
            heatmap and its baseline lies above 0 ("better"), contains 0 ("equal") or lies below 0
            ("no better"). "unknown" if there is no box or no baseline.
        sentence: The verdict with its numbers, and what to use instead.
        cautions: Sentences about reasons to doubt the score. Empty if there are none.
    """

    verdict: Verdict
    sentence: str
    cautions: tuple[str, ...]


def answer(result: Mapping[str, Any]) -> Answer:
    """Answers for the first heatmap under its first threshold policy, by the content of
    metrics.json."""
    if not result["localization"]:
        return Answer("unknown", "No image has a true box, so no box was scored.", ())
    compared = result.get("baselines", {})
    name = next(iter(compared or _heatmaps(result)))
    cautions = tuple(_cautions(result, name))
    if not compared:
        row = _headline_row(result, name)
        known = percent(row["gt_known_loc"], row["intervals"].get("gt_known_loc"))
        said = f"GT-known of {name} is {known}. No baseline was scored beside it."
        return Answer("unknown", said, cautions)
    found = compared[name]
    low, high = found["interval"]
    numbers = (
        f"GT-known {percent(found['gt_known_loc'])} against "
        f"{percent(found['baseline_gt_known_loc'])}, {_points(found)}"
    )
    a_map, baseline = f"The {name} map", f"the {found['baseline']}"
    if low > 0:
        return Answer("better", f"{a_map} is better than {baseline}: {numbers}.", cautions)
    if high < 0:
        verdict, said = "no better", f"{a_map} is no better than {baseline}: {numbers}."
    else:
        verdict, said = "equal", f"{a_map} equals {baseline} within the interval: {numbers}."
    return Answer(verdict, f"{said} {_instead(result)}", cautions)


def _instead(result: Mapping[str, Any]) -> str:
    """Suggests boxes to use if the first heatmap does not beat its baseline."""
    better = {n: each for n, each in result["baselines"].items() if each["interval"][0] > 0}
    if better:
        name = max(better, key=lambda each: better[each]["gt_known_loc"])
        found = better[name]
        return (
            f"Use the {name} map instead: GT-known {percent(found['gt_known_loc'])}, "
            f"{_points(found)} above the {found['baseline']}."
        )
    new = next((each for each in _SUGGESTED if each not in _heatmaps(result)), None)
    other = f"`--methods {new.replace(' ', '_')}`" if new else "a detector (train_detector.py)"
    baseline = next(iter(result["baselines"].values()))["baseline"]
    return f"Use the {baseline} instead, or try {other}."


def _cautions(result: Mapping[str, Any], name: str) -> Iterator[str]:
    row = _headline_row(result, name)
    checks = result.get("checks", {}).get(name, {})  # not in files of earlier versions
    count = checks.get("validation_boxes")
    if count is not None and count < FEWEST_BOXES:
        yield (
            f"The threshold was chosen by {count} validation {'box' if count == 1 else 'boxes'}, "
            f"and fewer than {FEWEST_BOXES} leave it to chance."
        )
    if row["policy"].startswith("fixed") and result.get("baselines"):
        yield (
            f"No true box chose the threshold: map and baseline both have {row['threshold']:g}, "
            "which may suit neither."
        )
    for key, which in (("copied", "true boxes"), ("validation_copied", "validation boxes")):
        if (checks.get(key) or 0) >= 0.5:
            yield (
                f"{percent(checks[key])} % of the {which} equal this model's own boxes to the "
                "pixel, so the score compares the model with itself: draw the boxes by hand."
            )


def under_attack(result: Mapping[str, Any]) -> str:
    """Returns a sentence about the map and its boxes after the first attack on maps.

    Empty if no map was attacked.
    """
    attacks = result.get("robustness", {}).get("maps")
    if not attacks:
        return ""
    top = attacks[0]["measures"]["top_k_intersection"]
    said = f"Under attack, {percent(top['mean'], top['interval'])} % of the map's top pixels stay"
    boxes = attacks[0].get("boxes", {})
    if "gt_known_loc" in boxes:
        gt_known, heatmap = boxes["gt_known_loc"], boxes.get("heatmap", "gradient")
        before, after = (percent(gt_known[key]["mean"]) for key in ("clean", "attacked"))
        said += f", and GT-known of the {heatmap} map goes from {before} to {after}"
    return f"{said}."


def answer_table(results: Results) -> Table:
    """The scores of each heatmap under its first threshold policy, beside its baseline."""
    heads = ("model", "heatmap", "threshold policy", "GT-known", "Top-1 Loc", "accuracy")
    rows = []
    for run, result in results.items():
        compared = result.get("baselines", {})
        for name in compared or _heatmaps(result):
            *cells, _ = score_cells(_headline_row(result, name))
            found = compared.get(name, {})
            rows.append(
                [run, name, *cells, percent(result["top1_accuracy"]), found.get("baseline", "-")]
                + [percent(found.get("baseline_gt_known_loc"))]
                + [percent(found.get("difference"), found.get("interval"))]
            )
    return Table((*heads, "baseline", "its GT-known", "difference, paired"), rows, 3)


def answer_text(results: Results, *, everything: bool = False) -> str:
    """Tables in Markdown, and then the answer and cautions of each run.

    Args:
        everything: Whether to show all tables. Otherwise the short table, and attacks if they were
            measured.
    """
    short = [answer_table(results), accuracy_table(results), *robustness_tables(results)]
    shown = [table(results)] if everything else [markdown(*each) for each in short if each.rows]
    lines = []
    for run, result in results.items():
        found = answer(result)
        lines.append(f"{run}: {found.sentence}")
        attacked = under_attack(result)
        if attacked:
            lines.append(f"{run}: {attacked}")
        lines += [f"{run}: caution: {each}" for each in found.cautions]
    return "\n\n".join([*shown, "\n".join(lines)])


def _heatmaps(result: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["heatmap"] for row in result["localization"]))


def _headline_row(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The row of a heatmap under its first policy."""
    return next(row for row in result["localization"] if row["heatmap"] == name)


def _points(found: Mapping[str, Any]) -> str:
    """ "+7.3 points [2.1, 12.5]": the paired difference with its interval."""
    low, high = (100 * end for end in found["interval"])
    return f"{100 * found['difference']:+.1f} points [{low:.1f}, {high:.1f}]"
