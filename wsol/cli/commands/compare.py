"""Trains several configurations with equal budgets and seeds, and compares them:

    compare.py configs/methods/*.yaml --base configs/toy_standard.yaml --epochs 5 --seeds 0 1 2
        --output DIR -- --data.root DATA

Options after `--` go to every run of train.py. Each run is a folder DIR/<config>/seed<n>, trained
by train.py and scored by evaluate.py. Finished runs are not repeated, and interrupted ones
continue. Writes comparison.md, comparison.csv, accuracy_gt_known.png, accuracy_robustness.png
(where robustness was measured) and maps.png. Times are multiples of the first configuration's.
"""

import shlex
import sys
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from wsol.cli.parser import Parser, output_folder, run, split_options
from wsol.experiments.compare_methods import Comparison, write_comparison


def main() -> None:
    own, options = split_options(sys.argv[1:])
    parser = Parser(prog="compare.py", description=__doc__)
    parser.add_argument("configs", nargs="+", help="YAML files, one per method")
    parser.add_argument("--base", nargs="*", default=[], help="YAML files below each of them")
    parser.add_argument("--output", type=str, required=True, help="folder for runs and results")
    parser.add_argument("--seeds", type=NonNegativeInt, nargs="+", default=[0])
    parser.add_argument("--epochs", type=PositiveInt | None, default=None, help="of every run")
    parser.add_argument(
        "--minutes",
        type=PositiveFloat | None,
        default=None,
        help="instead: as many epochs of every method as fit, by the time of a trial of one",
    )
    parser.add_argument(
        "--robustness", type=str, default="false", help="as evaluate.py's: true, or a YAML file"
    )
    parser.add_argument("--device", type=str, default="cpu", help="for scoring")
    parser.add_argument("--jobs", type=PositiveInt, default=1, help="runs at once")
    parser.add_argument("--images", type=PositiveInt, default=8, help="on the sheet of maps")
    settings = parser.parse_args(own)
    configs = {Path(file).stem: Path(file) for file in settings.configs}
    if len(configs) < len(settings.configs):
        raise ValueError("two configurations have the same file name")
    output = output_folder(settings.output)
    comparison = Comparison(
        output,
        configs,
        settings.base,
        options,
        settings.device,
        settings.robustness,
        settings.jobs,
        tools=Path(__file__).resolve().parent,
    )
    runs = comparison.run(settings.seeds, epochs=settings.epochs, minutes=settings.minutes)
    command = shlex.join(["python", "tools/compare.py", *sys.argv[1:]])
    table = write_comparison(output, runs, command, settings.images)
    print(f"{table}\n\nthe comparison is in {output}")


if __name__ == "__main__":
    run(main)
