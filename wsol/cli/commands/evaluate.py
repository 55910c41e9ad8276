"""Evaluates trained models: `evaluate.py RUN [RUN ...]`; heatmaps of other programs:
`evaluate.py scoremaps --scoremaps DIR --metadata DIR`; or their boxes:
`evaluate.py boxes --results FILE --metadata DIR` (each with --help).

For each run it computes accuracy, and GT-known, Top-1 and Top-5 localization of heatmaps and their
baselines (class activation maps, a centred box), with intervals and the threshold policy in every
row. If the data set has backgrounds or null patches (for example the toy birds), it also measures
spurious correlations: accuracy over groups (species, background), gradient mass on the bird,
leakage onto null patches.
Prints a short table, and one sentence for each run: whether its map is better than the centred box,
and what to use instead. `--all` prints every table. Writes metrics.json, images.csv,
predictions.txt, coco/ and report.html into each run's folder, or below --output.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from wsol.cli.config_files import find_config
from wsol.cli.parser import DEVICE, DEVICES, METHODS, Parser
from wsol.cli.program import program
from wsol.evaluation import ScoringConfig


def runs_command(arguments: list[str]) -> None:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("runs", nargs="+", help="run folders, or model folders with --root")
    add("--root", type=str, help="data set, or test images alone; default: the run's data")
    add("--methods", nargs="+", help=METHODS)
    parser.add_class_arguments(ScoringConfig)
    add(
        "--robustness",
        type=_robustness_type(arguments),
        default=False,
        sub_configs=True,
        help="attack maps, boxes and predictions, too: true, or a YAML file of settings",
    )
    add(
        "--mirrored",
        type=bool,
        default=False,
        help="predict classes by the mean probability of an image and its mirror image",
    )
    add("--batch_size", type=PositiveInt, default=32)
    add("--device", type=str, default=DEVICE)
    add("--devices", type=PositiveInt | None, help=DEVICES)
    add(
        "--output",
        type=str,
        help="folder for the results, with a folder for each run if there are several; default: "
        "the run's own folder, where they replace earlier results",
    )
    add("--report", type=str, help="one page for all the runs")
    _add_all(parser)
    settings = parser.parse_args(arguments)
    robustness = parser.instantiate(settings).robustness
    scoring = _take_scoring(settings)

    from robust_training.training.processes import rank_and_world
    from wsol.cli.devices import launch
    from wsol.experiments.evaluate_model import plan_evaluation, require_comparable
    from wsol.heatmaps.methods import DEFAULT
    from wsol.report import write_report
    from wsol.report.answer import answer_text
    from wsol.robustness.under_attack import RobustnessConfig

    plans = [
        plan_evaluation(
            folder,
            settings.root,
            settings.methods or DEFAULT,
            scoring=scoring,
            robustness=RobustnessConfig() if robustness is True else robustness or None,
            mirrored=settings.mirrored,
            batch_size=settings.batch_size,
            output=output,
        )
        for folder, output in zip(
            settings.runs, _outputs(settings.runs, settings.output), strict=True
        )
    ]
    require_comparable(plans, same_images=settings.report is not None)
    device, fabric = launch(settings.device, settings.devices)
    is_first = rank_and_world(fabric)[0] == 0
    if is_first:
        for plan in plans:
            for note in plan.notes:
                print(f"{plan.name}: {note}")
    evaluations = {plan.name: plan.run(device, fabric) for plan in plans}
    if not is_first:
        return
    if settings.report:
        write_report(settings.report, evaluations)
    results = {name: each.metrics for name, each in evaluations.items()}
    print(answer_text(results, everything=settings.all))


def _outputs(runs: Sequence[str], output: str | None) -> list[str | Path]:
    """The folder for the results of each run."""
    if output is None:
        return [*runs]
    if len(runs) == 1:
        return [output]
    return [Path(output, Path(run).resolve().name) for run in runs]


def _robustness_type(arguments: list[str]) -> Any:
    """The type of --robustness. Its settings need PyTorch, so they are left out if it is not given.

    Its value becomes a path in `arguments`, if it is the name of a configuration.
    """
    for number, each in enumerate(arguments):
        if each == "--robustness" and arguments[number + 1 :][:1] not in ([], ["true"], ["false"]):
            arguments[number + 1] = str(find_config(arguments[number + 1]))
    if not any(each.startswith("--robustness") for each in arguments):
        return bool

    from wsol.robustness.under_attack import RobustnessConfig

    return bool | RobustnessConfig


def scoremaps_command(arguments: list[str]) -> None:
    from wsol.experiments.evaluate_files import evaluate_scoremaps
    from wsol.report.answer import answer_text

    parser = Parser(prog=f"{program()} scoremaps", description=evaluate_scoremaps.__doc__)
    parser.add_function_arguments(evaluate_scoremaps, skip={"scoring"})
    parser.add_class_arguments(ScoringConfig)
    _add_all(parser)
    settings = parser.parse_args(arguments)
    scoring, everything = _take_scoring(settings), settings.pop("all")
    scores = evaluate_scoremaps(**settings.as_dict(), scoring=scoring)
    results = {Path(settings.scoremaps).resolve().stem: scores.metrics}
    print(answer_text(results, everything=everything))


def boxes_command(arguments: list[str]) -> None:
    from wsol.experiments.evaluate_files import evaluate_boxes
    from wsol.report.answer import answer_text

    parser = Parser(prog=f"{program()} boxes", description=evaluate_boxes.__doc__)
    parser.add_function_arguments(evaluate_boxes, skip={"predictions"})
    parser.add_argument(
        "--predictions",
        nargs="+",
        default=[],
        help="predictions.txt of another run, whose classes replace those of the boxes; with "
        "several files, the mean probability ranks the classes",
    )
    _add_all(parser)
    settings = parser.parse_args(arguments)
    everything = settings.pop("all")
    scores = evaluate_boxes(**settings.as_dict())
    results = {Path(settings.results).resolve().stem: scores.metrics}
    print(answer_text(results, everything=everything))


def _add_all(parser: Parser) -> None:
    parser.add_argument("--all", action="store_true", help="print every table")


def _take_scoring(settings: Namespace) -> ScoringConfig:
    return ScoringConfig(**{each.name: settings.pop(each.name) for each in fields(ScoringConfig)})


_OTHERS = {"scoremaps": scoremaps_command, "boxes": boxes_command}


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] in _OTHERS:
        _OTHERS[arguments[0]](arguments[1:])
    else:
        runs_command(arguments)
