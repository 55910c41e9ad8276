"""Train detectors on a localizer's boxes, and score them beside the boxes they learned from:

    train_detector.py RUN --teachers smoothgrad refined_gradient --output DIR --seeds 0 1

A teacher is a heatmap method: its boxes of the true class on RUN's training images are what the
detector learns. No true box of these is looked at before the finished detector is scored; those of
the validation images choose the heatmap's threshold, unless --threshold says it. Its floor, the
same method on a map that never saw the image, teaches as well. Other teachers: a folder with COCO
data sets train.json and val.json, or `oracle`, the true boxes, as the ceiling. Detectors start from
RUN's best model, keep the epoch that agrees best with the teacher's boxes of the validation images,
and see no test image.
Writes DIR/<teacher>/{train,val,results}.json (COCO), DIR/<teacher>/seed<n>/ (a detector, which
localize.py and `Localizer.load` take; results.json, log.csv), DIR/detectors.md and detectors.json.
The same command again goes on: detectors that are there are not trained again, more teachers and
seeds join them, and other settings are refused.
"""

import itertools
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from robust_training.atomic_io import write_texts
from wsol.annotations.coco_writing import coco_results
from wsol.cli.parser import Parser, find_device, output_folder, run
from wsol.cli.run_folder import fingerprint, lock_folder
from wsol.detectors import Detector, Network, Regressor
from wsol.detectors.training import Training
from wsol.evaluation.split_selection import PreparedSplit, prepare_evaluation, prepare_split
from wsol.heatmaps.methods import NAMES, with_baselines
from wsol.localizer.saved_models import load_classifier, model_folder
from wsol.pseudo_labels.boxes import (
    ORACLE,
    folder_name,
    localizing_teacher,
    measure_splits,
    oracle_teacher,
    read_teacher,
    require_lessons,
    require_true_boxes,
    write_teacher,
)
from wsol.pseudo_labels.scores import (
    Scored,
    compared,
    difference_row,
    score_results,
    score_row,
    tables,
)
from wsol.pseudo_labels.training import School, require_same_lessons, start_model


def main() -> None:
    parser = Parser(prog="train_detector.py", description=__doc__)
    parser.add_argument("run", help="run folder, or model folder with --root")
    parser.add_argument(
        "--root", type=str | None, default=None, help="data set; default: the run's"
    )
    parser.add_argument(
        "--teachers", nargs="+", default=["gradient"], help=f"{ORACLE}, folders, or {NAMES}"
    )
    parser.add_argument("--output", type=str, required=True, help="folder for the results")
    parser.add_argument("--detector", type=Detector, default=Regressor(), help="kind and settings")
    parser.add_class_arguments(Training, "training")
    parser.add_argument(
        "--weights", type=str | None, default=None, help="for the backbone, in place of the run's"
    )
    parser.add_argument(
        "--threshold",
        type=ClosedUnitInterval | None,
        default=None,
        help="of the teachers' heatmaps; default: validation images choose each one's",
    )
    parser.add_argument("--seeds", type=NonNegativeInt, nargs="+", default=[0])
    parser.add_argument("--batch_size", type=PositiveInt, default=20)
    parser.add_argument("--device", type=str, default="cpu")
    settings = parser.parse_args()
    if len(set(settings.seeds)) < len(settings.seeds):
        raise ValueError(f"--seeds {settings.seeds} names a seed twice")
    built = parser.instantiate(settings)
    output = output_folder(settings.output)
    with lock_folder(output):
        _teach(settings, built.detector, built.training, output)


def _teach(settings: Namespace, detector: Detector, training: Training, output: Path) -> None:
    folder, names = Path(settings.run), settings.teachers
    given = [read_teacher(Path(name)) for name in names if _is_folder(name)]
    methods = with_baselines(name for name in names if name != ORACLE and not _is_folder(name))
    oracle = [ORACLE] * names.count(ORACLE)
    places = [folder_name(name) for name in (*methods, *(each.name for each in given), *oracle)]
    if len(set(places)) < len(places):
        raise ValueError(f"--teachers {' '.join(names)} names a teacher twice")
    device = find_device(settings.device)
    model = load_classifier(folder).to(device)
    scored = prepare_evaluation(
        folder,
        model,
        settings.root,
        batch_size=settings.batch_size,
        threshold=settings.threshold,
    )
    data = replace(scored.data, resize=None)
    splits = {
        "train": prepare_split(data.loader("train")),
        "val": prepare_split(data.loader("val")),
        "test": scored.test,
    }
    dataset = scored.test.dataset
    for name, method in methods.items():
        if not method.fits(model):
            raise ValueError(f"{name} is not possible with this network")
    for teacher in given:
        require_lessons(teacher, (scored.all_test or scored.test).dataset)
    if not scored.boxed:
        raise ValueError(*scored.notes)
    if oracle:
        require_true_boxes(splits)

    def build() -> Network:
        student = start_model(folder, settings.weights)
        return detector.build(student, dataset.classes).to(device)

    build()  # its mistakes now, not later
    learned_from = {
        "model": fingerprint(model_folder(folder) / "model.safetensors"),
        "weights": settings.weights and fingerprint(Path(settings.weights)),
        "threshold": settings.threshold,
        "true boxes": fingerprint(_true_boxes(splits)),
        "detector": type(detector).__name__,
        **_named("data", data),
        **_named("detector", detector),
        **_named("training", training),
    }
    require_same_lessons(output, learned_from, places, given)
    for note in scored.notes:
        print(note)
    outputs = measure_splits(model, splits, methods)
    teachers = [
        *(localizing_teacher(name, outputs, scored.threshold) for name in methods),
        *given,
        *(oracle_teacher(outputs) for _ in oracle),
    ]
    own: dict[str, Scored] = {}
    for teacher in teachers:
        place = output / folder_name(teacher.name)
        write_teacher(teacher, place)
        without = len(outputs["train"].truth) - len(teacher.boxes["train"])
        if without > 0:
            print(f"{teacher.name}: {without} training images without a box are left out")
        if teacher.test_boxes is not None:
            test = outputs["test"]
            results = coco_results(test.truth, test.predictions, teacher.test_boxes)
            write_texts(place, {"results.json": json.dumps(results)})
            file = place / "results.json"
            own[teacher.name] = score_results(teacher.name, teacher.policy, [file], test.truth)
    loaders = {name: split.loader for name, split in splits.items()}
    school = School(build, training, data, loaders, outputs)
    students = {
        teacher.name: school.teach(teacher, settings.seeds, output / folder_name(teacher.name))
        for teacher in teachers
    }
    _write(output, own, students, settings.as_dict())


def _true_boxes(splits: Mapping[str, PreparedSplit]) -> str:
    """Those that choose a threshold, and those that score: another text where one differs."""
    return repr(
        [
            (example.name, example.boxes)
            for split in ("val", "test")
            for example in splits[split].dataset.examples
        ]
    )


def _named(part: str, settings: object) -> dict[str, str]:
    """A dataclass's fields by dotted names."""
    return {f"{part}.{name}": str(value) for name, value in vars(settings).items()}


def _is_folder(name: str) -> bool:
    return (Path(name) / "train.json").is_file()


def _write(
    output: Path,
    own: Mapping[str, Scored],
    students: Mapping[str, Scored],
    settings: Mapping[str, Any],
) -> None:
    pairs = [(own.get(name), student) for name, student in students.items()]
    scores = [score_row(each) for each in itertools.chain(*pairs) if each is not None]
    differences = [difference_row(*pair) for pair in compared(own, students)]
    table = tables(scores, differences)
    command = shlex.join(["python", "tools/train_detector.py", *sys.argv[1:]])
    text = (
        f"# Detectors and their teachers\n\n`{command}`\n\n{table}\n\nShares of the test images in "
        "percent, boxes of the true class, a hit is IoU >= 0.5; brackets hold 95 % bootstrap "
        "intervals over the images; a student's score is the mean over "
        f"{len(settings['seeds'])} seed(s). Policy: who chose the threshold of the heatmaps that "
        "taught, or oracle: true boxes taught. The column on training images is for choosing.\n"
    )
    content = {"settings": settings, "scores": scores, "differences": differences}
    write_texts(
        output,
        {"detectors.md": text, "detectors.json": json.dumps(content, indent=2, default=str)},
    )
    print(f"{table}\n\nthe detectors are in {output}")


if __name__ == "__main__":
    run(main)
