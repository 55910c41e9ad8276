"""Score trained models: `evaluate.py RUN [RUN ...]`, other programs' heatmaps:
`evaluate.py scoremaps --scoremaps DIR --metadata DIR`, or their boxes:
`evaluate.py boxes --results FILE --metadata DIR` (each with --help).

For each run: accuracy, and GT-known, Top-1 and Top-5 localization of gradient maps beside their
baselines (class activation maps, a centred box), with intervals and the threshold policy in every
row.
On the toy birds also what they are made to show: accuracy over groups (species, background),
gradient mass on the bird, leakage onto null patches.
Writes metrics.json, images.csv, coco/ and report.html into each run's folder and prints the tables.
"""

import sys
from pathlib import Path

import numpy as np
from jsonargparse import Namespace
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeInt,
    PositiveInt,
    restricted_number_type,
)

from robust_training.models.classifier import Classifier
from wsol.annotations.coco_reading import read_coco_results
from wsol.annotations.ground_truth import GroundTruth, with_classes, with_mask_cut, with_masks
from wsol.annotations.metadata import read_ground_truth
from wsol.annotations.predictions import read_predictions
from wsol.cli.parser import Parser, find_device, output_folder, run
from wsol.evaluation.baselines import above_baselines
from wsol.evaluation.metrics import IOU_THRESHOLDS
from wsol.evaluation.pixel_metrics import bin_edges
from wsol.evaluation.run_model import SplitOutput, run_model
from wsol.evaluation.scoremaps import any_scoremap, find_scoremaps, tabulate_scoremaps
from wsol.evaluation.scores import Scores, accuracies, score_boxes, score_heatmaps
from wsol.evaluation.split_selection import EvaluationSplits, prepare_evaluation
from wsol.heatmaps.methods import DEFAULT, NAMES, with_baselines
from wsol.localizer.saved_models import ART_THRESHOLD, load_classifier
from wsol.report import Entry, write_report
from wsol.report.score_tables import table, write_scores
from wsol.robustness.spurious_correlation import laboratory
from wsol.robustness.under_attack import RobustnessConfig, robustness

_Step = restricted_number_type("Step", float, [(">=", 1e-4), ("<", 1)])


def runs_command(arguments: list[str]) -> None:
    parser = Parser(prog="evaluate.py", description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders, or model folders with --root")
    parser.add_argument("--root", type=str, default=None, help="data set; default: the run's own")
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT), help=NAMES)
    _add_scoring(parser)
    parser.add_argument(
        "--robustness",
        type=bool | RobustnessConfig,
        default=False,
        sub_configs=True,
        help="maps, boxes and predictions under attack, too: true, or a YAML file of settings",
    )
    parser.add_argument("--batch_size", type=PositiveInt, default=32)
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--report", type=str, default=None, help="one page for all the runs")
    settings = parser.parse_args(arguments)
    attacks = parser.instantiate(settings).robustness
    config = RobustnessConfig() if attacks is True else attacks
    settings.robustness = bool(attacks)  # its settings stand with its scores
    wanted = with_baselines(settings.methods + ["gradient"] * settings.robustness)
    device = find_device(settings.device)
    prepared: dict[str, tuple[Path, Classifier, EvaluationSplits]] = {}
    for folder in map(Path, settings.runs):
        model = load_classifier(folder).to(device)
        splits = prepare_evaluation(
            folder,
            model,
            settings.root,
            batch_size=settings.batch_size,
            threshold=settings.threshold,
        )
        name = folder.resolve().name
        if name in prepared:
            raise ValueError(f"two runs are called {name}; rename one folder")
        if config:
            config.require_size(model.image_size)
        prepared[name] = folder, model, splits
    entries: dict[str, Entry] = {}
    for name, (folder, model, splits) in prepared.items():
        test = splits.test
        for note in splits.notes:
            print(f"{name}: {note}")
        methods = {title: method for title, method in wanted.items() if method.fits(model)}
        for title in wanted.keys() - methods.keys():
            print(f"{name}: no {title} for this network")
        if not splits.boxed:
            methods = {}
        measured = {
            part: run_model(
                model,
                split,
                methods,
                thresholds=_thresholds(settings) if part == "test" else None,
                every_box=settings.v2 and part == "test",
                description=f"{name}: {part}",
            )
            for part, split in (("test", test), ("val", splits.validation))
            if split is not None
        }
        scores = _score(settings, measured["test"], measured.get("val"), splits.threshold)
        details = {
            "model": str(folder),
            "data": splits.data.as_dict(),
            "settings": dict(settings.as_dict()),
            **above_baselines(scores.headlines, seed=settings.seed),
            **laboratory(model, test.loader, measured["test"].correct(1), seed=settings.seed),
        }
        if splits.all_test:
            every = run_model(model, splits.all_test, {}, description=f"{name}: all test images")
            details["all_test_images"] = {"images": len(every.truth), **accuracies(every)}
        if settings.robustness:
            chosen = {each.row.heatmap: each.row.threshold for each in scores.headlines}
            threshold = chosen.get("gradient", ART_THRESHOLD)
            details |= robustness(model, test.loader, threshold, config, seed=settings.seed)
        result = write_scores(folder, measured["test"], scores, details)
        boxes = measured["test"].boxes_alone()
        entries[name] = Entry(model, methods, result, test.dataset, boxes, scores.headlines, folder)
        write_report(folder / "report.html", {name: entries[name]})
    if settings.report:
        write_report(settings.report, entries)
    print(table({name: entry.metrics for name, entry in entries.items()}))


def scoremaps_command(arguments: list[str]) -> None:
    parser = Parser(
        prog="evaluate.py scoremaps",
        description="Score heatmaps of the true class that other programs wrote: <image>.npy, "
        "floating point in [0,1], any size, showing the whole image. With maps of the validation "
        "images the threshold is theirs (policy val).",
    )
    parser.add_argument("--scoremaps", type=str, required=True, help="folder of .npy files")
    _add_truth(parser)
    parser.add_argument(
        "--val_metadata", type=str | None, default=None, help="default: --metadata's val split"
    )
    parser.add_argument(
        "--predictions",
        type=str | None,
        default=None,
        help="lines <image>,<class>[:<probability>],<class>,... likeliest first, classes from 0",
    )
    parser.add_argument(
        "--masks", type=str | None, default=None, help="folder of <image>.png, for PxAP and pIoU"
    )
    parser.add_argument(
        "--mask_cut",
        type=NonNegativeInt | None,
        default=None,
        help="a mask is its pixels above this; default: 127, the metadata's own masks 0",
    )
    _add_scoring(parser)
    parser.add_argument(
        "--workers", type=NonNegativeInt, default=2, help="processes; 0: none beside this one"
    )
    settings = parser.parse_args(arguments)
    output_folder(settings.output or "")
    test = read_ground_truth(settings.metadata, "test")
    if settings.masks:
        test = with_masks(test, settings.masks)
    if settings.mask_cut is not None:
        test = with_mask_cut(test, settings.mask_cut)
    validation = _validation(settings)
    other = () if validation is None else validation.names
    predictions = None
    if settings.predictions:
        predictions = read_predictions(settings.predictions, test, other)
        test = with_classes(test, predictions.classes)
    splits = {"test": test} if validation is None else {"test": test, "val": validation}
    files = {
        split: find_scoremaps(settings.scoremaps, truth, (*test.names, *other))
        for split, truth in splits.items()
    }
    both = sorted(set(files["test"]).intersection(files.get("val", ())))
    if both:
        raise ValueError(f"{len(both)} maps are for validation and for test, such as {both[0]}")
    measured = {}
    for split, truth in splits.items():
        is_test = split == "test"
        maps = tabulate_scoremaps(
            files[split],
            truth,
            edges=bin_edges(_thresholds(settings)) if is_test else None,
            every_box=settings.v2 and is_test,
            workers=settings.workers,
            description=split,
        )
        measured[split] = SplitOutput(truth, predictions if is_test else None, {"maps": maps})
    scores = _score(settings, measured["test"], measured.get("val"), settings.threshold)
    _finish(settings, settings.scoremaps, measured["test"], scores)


def boxes_command(arguments: list[str]) -> None:
    parser = Parser(
        prog="evaluate.py boxes",
        description="Score boxes that other programs found: a COCO results list whose image ids "
        "are the metadata's (COCO, CUB), names, or line numbers from 1; without its own numbers, a "
        "category is a label counted from 1. Or localize.py's boxes.json.",
    )
    parser.add_argument("--results", type=str, required=True, help="JSON file")
    _add_truth(parser)
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="of the bootstrap")
    settings = parser.parse_args(arguments)
    output_folder(settings.output or "")
    truth = read_ground_truth(settings.metadata, "test")
    given = read_coco_results(settings.results, truth)
    if given.left_out:
        print(f"{given.left_out} images without a true box there are left out", file=sys.stderr)
    without = int((~given.found).sum())
    if without:
        print(f"{without} of {len(truth)} images have no box and count as missed", file=sys.stderr)
    scores = score_boxes(truth, given, seed=settings.seed)
    _finish(settings, settings.results, SplitOutput(truth, given.predictions, {}), scores)


def _add_scoring(parser: Parser) -> None:
    parser.add_argument(
        "--threshold", type=ClosedUnitInterval | None, default=None, help="adds policy fixed:<t>"
    )
    parser.add_argument(
        "--step", type=_Step, default=0.001, help="between thresholds to choose from"
    )
    parser.add_argument("--v2", type=bool, default=True, help="MaxBoxAccV2 too, from all contours")
    parser.add_argument(
        "--ious",
        type=list[ClosedUnitInterval],
        default=list(IOU_THRESHOLDS),
        help="at which MaxBoxAcc is scored",
    )
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="of the bootstrap")


def _add_truth(parser: Parser) -> None:
    parser.add_argument(
        "--metadata",
        type=str,
        required=True,
        help="the published evaluator's metadata folder, a data set, or COCO JSON",
    )
    parser.add_argument("--output", type=str | None, default=None, help="folder for the results")


def _thresholds(settings: Namespace) -> np.ndarray:
    return np.arange(0, 1, settings.step)


def _score(
    settings: Namespace, test: SplitOutput, validation: SplitOutput | None, fixed: float | None
) -> Scores:
    return score_heatmaps(
        test,
        validation,
        thresholds=_thresholds(settings),
        fixed=fixed,
        iou_thresholds=settings.ious,
        seed=settings.seed,
    )


def _validation(settings: Namespace) -> GroundTruth | None:
    """Images whose maps choose a threshold: those that are named, or --metadata's if mapped."""
    if settings.val_metadata:
        return read_ground_truth(settings.val_metadata, "val")
    folder = Path(settings.metadata)
    published = (folder / "image_ids.txt", folder / "test" / "image_ids.txt")
    one_split = any(map(Path.is_file, published)) and not (folder / "val").is_dir()
    if folder.is_file() or one_split:
        return None
    truth = read_ground_truth(settings.metadata, "val")
    return truth if any_scoremap(settings.scoremaps, truth) else None


def _finish(settings: Namespace, source: str, test: SplitOutput, scores: Scores) -> None:
    print(table({Path(source).resolve().stem: scores.metrics}))
    if settings.output:
        write_scores(settings.output, test, scores, {"settings": dict(settings.as_dict())})


_OTHERS = {"scoremaps": scoremaps_command, "boxes": boxes_command}


def main() -> None:
    arguments = sys.argv[1:]
    if arguments and arguments[0] in _OTHERS:
        _OTHERS[arguments[0]](arguments[1:])
    else:
        runs_command(arguments)


if __name__ == "__main__":
    run(main)
