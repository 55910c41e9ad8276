"""Trains detectors on pseudo labels, and scores both:

    train_detector.py RUN --pseudo_labels smoothgrad refined_gradient --output DIR --seeds 0 1

Pseudo labels are boxes around the heatmaps of RUN's model for the true class of each training
image. No true box of a training image is used before the finished detector is scored. The heatmaps'
threshold is chosen on true boxes of the validation images, unless --threshold gives it. Pseudo
labels are also made with the method's baseline, a map that does not depend on the image. Other
pseudo labels: boxes.json, which localize.py writes for the images of the data set; a folder with
COCO data sets train.json and val.json; or `oracle`, the true boxes, as an upper bound. Detectors
start from RUN's best model. The epoch is kept whose boxes agree best with the pseudo labels of the
validation images. No test image is used.
Writes DIR/<pseudo labels>/{train,val,results}.json (COCO), DIR/<pseudo labels>/seed<n>/ (a
detector for localize.py and `Localizer.load`; results.json, log.csv), DIR/detectors.md and
detectors.json. With `--attack.images 300`, that many test images are changed so that the finished
detector's box moves, and GT-known is also scored on them. The same command continues an interrupted
one: detectors that exist are not trained again, pseudo labels and seeds may be added, and other
settings are refused.
"""

import json
from pathlib import Path

from jsonargparse.typing import NonNegativeInt

from robust_training.atomic_io import write_texts
from wsol.cli.devices import find_device
from wsol.cli.parser import DEVICE, Parser, output_folder
from wsol.cli.program import typed
from wsol.cli.run_folder import lock_folder
from wsol.experiments.pseudo_labels.pseudo_boxes import ORACLE
from wsol.experiments.train_detectors import train_detectors
from wsol.heatmaps.methods import NAMES

_PAGE = """# Detectors and their pseudo labels

`{command}`

{tables}

Percentages of the test images; boxes of the true class; a hit is IoU >= 0.5. Brackets are 95 %
bootstrap intervals over the images. A detector's score is the mean over {seeds} seed(s). "Policy"
is the threshold policy of the heatmaps that gave the pseudo labels, or oracle for true boxes.
Use the column on training images to compare settings.
"""


def main(arguments: list[str]) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("run", help="run folder, or model folder with --root")
    parser.add_argument(
        "--pseudo_labels",
        nargs="+",
        default=["gradient"],
        help=f"{ORACLE}, folders, files, or {NAMES}",
    )
    parser.add_argument("--output", type=str, required=True, help="folder for the results")
    parser.add_argument("--seeds", type=NonNegativeInt, nargs="+", default=[0])
    parser.add_argument("--device", type=str, default=DEVICE)
    parser.add_function_arguments(
        train_detectors, skip={"run", "names", "output", "seeds", "device"}
    )
    settings = parser.parse_args(arguments)
    if len(set(settings.seeds)) < len(settings.seeds):
        raise ValueError(f"--seeds {settings.seeds} names a seed twice")
    given = vars(parser.instantiate(settings))
    names, output = given.pop("pseudo_labels"), output_folder(given.pop("output"))
    run_or_model, device = Path(given.pop("run")), find_device(given.pop("device"))
    with lock_folder(output):
        scores = train_detectors(run_or_model, names, output, device=device, **given)
        tables = scores.markdown()
        page = _PAGE.format(command=typed(), tables=tables, seeds=len(settings.seeds))
        content = {
            "settings": settings.as_dict(),
            "scores": scores.rows(),
            "differences": scores.differences(),
        }
        text = json.dumps(content, indent=2, default=str)
        write_texts(output, {"detectors.md": page, "detectors.json": text})
    print(f"{tables}\n\nthe detectors are in {output}")
